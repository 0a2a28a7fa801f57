"""Whether the limits on lengths are why nothing was learnt: in words, for a message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leafe_jax.config import Experiment
from leafe_jax.tree import Tree


def trouble(trees: Sequence[Tree], config: Experiment) -> str:
  """What was too long or cut off in the episodes, and which option to raise.

  Empty where nothing was; else it begins with a blank, to end a message.
  """
  return ''.join(f' {sentence}' for sentence in _sentences(trees, config))


def _sentences(trees: Sequence[Tree], config: Experiment) -> Iterator[str]:
  nodes = [node for tree in trees for node in tree.nodes]
  turns = [turn for node in nodes for turn in node.turns]
  errors = [answer.error or '' for node in nodes for answer in node.reflections]
  cut = sum(error.startswith('CutOff') for error in errors)
  full = sum(error.startswith('Overlong') for error in errors)
  overlong = sum(node.ended_by == 'overlong' for node in nodes)
  room = f'policy.max_length={config.policy.max_length}'
  answer = f'explore.max_reflection_tokens={config.explore.max_reflection_tokens}'
  response = f'explore.max_response_tokens={config.explore.max_response_tokens}'
  for count, whole, what, option in (
      (overlong, len(nodes), 'episodes ended as overlong', room),
      (sum(t.cut_off for t in turns), len(turns), 'responses were cut off', response),
      (cut, len(errors), 'reflections were cut off', answer),
      (full, len(errors), 'questions for a reflection found no room', room),
  ):
    if 2 * count >= whole > 0:
      yield f'{count} of {whole} {what}, which may be why: raise {option}.'
    elif count:
      yield f'{count} of {whole} {what} ({option}).'
