"""What a sampled response says: the boundary between tokens and meaning.

Nothing is read from a thought, nor from a response that the token limit ended:
its action may be half of one, or one that was only considered.
"""

from __future__ import annotations

from envs import api, plain
from leafe_jax.sampler import Sample
from leafe_jax.text.transcript import Transcript


class CutOff(api.InvalidAction):
  """A response that came to the token limit before its end."""


def read_answer(transcript: Transcript, sample: Sample) -> str:
  """The text of a response outside its thoughts. Raises CutOff."""
  if not sample.stopped:
    raise CutOff(f'no end within {len(sample.tokens)} tokens')
  return transcript.answer(transcript.text(sample.tokens))


def read_action(world: api.World, answer: str) -> str:
  """The action in an answer.

  Raises:
    InvalidAction: there is none.
    BadStep: what the world takes for it is no text that can be written.
  """
  if not answer.strip():
    raise api.InvalidAction('empty response')
  action = world.parse_response(answer)
  try:
    return plain.text('the action of parse_response', action)
  except ValueError as error:
    raise api.BadStep(f'world {world.name!r}: {error}') from error
