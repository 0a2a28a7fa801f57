"""Cosine similarity of texts by a sentence encoder, such as all-MiniLM-L6-v2.

Read from a directory in the form of sentence-transformers, with transformers on torch:
the mean of the last hidden states over a text's tokens, at length 1.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from leafe_jax.endings import RunStopped
from leafe_jax.files import read_object

_POOLING, _LENGTH = '1_Pooling/config.json', 'sentence_bert_config.json'
_DIGITS = 5  # of a cosine: processors differ in the last ones


class Encoder:
  """A sentence encoder; each text is read once.

  Args:
    directory: of the model.

  Raises:
    RunStopped: it is none, pools in another way, or torch is not there.
  """

  def __init__(self, directory: pathlib.Path):
    self._most = _read_length(directory)
    self._tokenizer, self._model = _load(directory)
    self._known: dict[str, np.ndarray] = {}

  def __call__(self, text: str) -> Float[np.ndarray, ' D']:
    """The unit vector of a text."""
    if text not in self._known:
      self._known[text] = self._encode(text)
    return self._known[text]

  def _encode(self, text: str) -> Float[np.ndarray, ' D']:
    import torch

    # One text at a time: a vector depends on its text and on nothing beside it.
    ids = self._tokenizer(
        text, truncation=True, max_length=self._most, return_tensors='pt'
    )
    with torch.inference_mode():
      states = self._model(**ids).last_hidden_state[0]
    mean = states.double().mean(0).numpy()
    return mean / max(float(np.linalg.norm(mean)), 1e-9)


class SentenceVectors:
  """Texts as unit vectors, as `envs.vectors.WordVectors`; immutable."""

  def __init__(self, encoder: Encoder, texts: Sequence[str]):
    self._encoder = encoder
    self._rows = [encoder(text) for text in texts]

  def scores(self, query: str) -> Float[np.ndarray, ' N']:
    """Cosine of every text with the query."""
    vector = self._encoder(query)
    return np.array([row @ vector for row in self._rows]).round(_DIGITS)

  def top(self, query: str, count: int) -> list[int]:
    """Numbers of the nearest texts, at most `count`; earlier ones first if equal."""
    return np.argsort(-self.scores(query), kind='stable')[:count].tolist()


def _read_length(directory: pathlib.Path) -> int:
  """Most tokens of a text."""
  try:
    pooling = read_object(directory / _POOLING)
    most = read_object(directory / _LENGTH).get('max_seq_length')
  except (OSError, ValueError) as error:
    raise RunStopped(
        f'retro.encoder={directory} is no directory of sentence-transformers: {error}'
    ) from error
  modes = [name for name, on in pooling.items() if on is True]
  if modes != ['pooling_mode_mean_tokens'] or not isinstance(most, int):
    raise RunStopped(
        f'retro.encoder={directory}: pooling {modes} and max_seq_length {most!r}; '
        'only the mean over tokens, with a length, is known'
    )
  return most


def _load(directory: pathlib.Path) -> tuple[Any, Any]:
  try:
    import torch  # noqa: F401 - transformers says less clearly that it is missing
    import transformers
  except ModuleNotFoundError as error:
    raise RunStopped(
        f'retro.encoder={directory} needs torch: {error}; pip install torch'
    ) from error
  try:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory)
  except (OSError, ValueError) as error:
    line = ' '.join(str(error).split())
    raise RunStopped(f'retro.encoder={directory}: {line}') from error
  return tokenizer, model.float().eval()
