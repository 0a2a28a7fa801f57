"""What may go wrong between a run and its bucket: what passes, and what to do else.

The client library is imported where something did go wrong, and not before.
"""

from __future__ import annotations

import re
from typing import Any

from leafe_jax.buckets import SCHEME

# Of the server that has the credentials of Google's machines, as google.auth spells it.
_REFUSED = re.compile(r'[Ss]tatus: 4(?!08|29)\d\d')


def errors() -> Any:
  """The module of the client library's errors."""
  from google.api_core import exceptions

  return exceptions


def refusals() -> tuple[type[BaseException], ...]:
  """What a call may raise besides."""
  import google.auth.exceptions
  import requests

  return (
      errors().GoogleAPICallError, google.auth.exceptions.GoogleAuthError,
      requests.RequestException, OSError,
  )


def may_pass(error: BaseException) -> bool:
  """Whether a call that failed may succeed a little later."""
  import google.auth.exceptions
  import requests
  import urllib3
  from google.cloud.storage import exceptions as transfer

  kinds = (
      errors().ServerError, errors().TooManyRequests, requests.ConnectionError,
      requests.Timeout, requests.exceptions.ChunkedEncodingError,
      urllib3.exceptions.ProtocolError, google.auth.exceptions.TransportError,
      transfer.DataCorruption, ConnectionError,
  )  # fmt: skip
  if isinstance(error, google.auth.exceptions.RefreshError):
    return getattr(error, 'retryable', False) or _is_silence(error)
  return isinstance(error, kinds) or getattr(error, 'code', None) == 408


def _is_silence(error: BaseException) -> bool:
  """Whether new credentials were not refused, but could not be asked for."""
  import google.auth.exceptions

  cause = error.__cause__
  silent = isinstance(cause, google.auth.exceptions.TransportError)
  return silent and not _REFUSED.search(str(cause))


def reason(error: BaseException) -> str:
  """Its kind and the beginning of its text, on one line."""
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text[:200]}'


def explain(place: str, verb: str, error: BaseException) -> str:
  """One line for an error that no waiting mends."""
  import google.auth.exceptions

  bucket = place.removeprefix(SCHEME).partition('/')[0]
  if isinstance(error, errors().NotFound):
    return (
        f'{place}: there is no bucket {bucket}, or not this object; make the bucket '
        f'(gcloud storage buckets create gs://{bucket}) or correct the name'
    )
  if isinstance(error, errors().Forbidden) and 'retention' in str(error).lower():
    return (
        f'{place}: the bucket keeps objects as they are ({reason(error)}), and a run '
        'writes its own anew; take one without a retention policy and without holds'
    )
  if isinstance(error, errors().Forbidden):
    return (
        f'{place}: no permission to {verb} it ({reason(error)}); give the account the '
        f'role roles/storage.objectUser on gs://{bucket}'
    )
  unknown = (errors().Unauthorized, google.auth.exceptions.GoogleAuthError)
  if isinstance(error, unknown):
    return (
        f'{place}: no valid credentials ({reason(error)}); sign in with gcloud auth '
        'application-default login, or name a key in GOOGLE_APPLICATION_CREDENTIALS'
    )
  return f'{place}: cannot {verb} it ({reason(error)})'
