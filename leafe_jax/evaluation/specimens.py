"""Trees for the report's browser: which ones, and what of them.

A page cannot hold every tree of a run, nor token ids and log-probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from leafe_jax.evaluation.stage1 import first_success
from leafe_jax.tree import Node, Reflection, Tree, Turn, dump_json

T = TypeVar('T')

KINDS = ('solved_by_branch', 'solved_by_root', 'unsolved')
_SHARES = {'solved_by_branch': 0.5, 'unsolved': 0.3, 'solved_by_root': 0.2}
_LONGEST_TEXT = 4000


def kind_of(tree: Tree) -> str:
  """One of `KINDS`, by the first episode that solved the task."""
  first = first_success(tree)
  if first is None:
    return 'unsolved'
  return 'solved_by_root' if first.parent is None else 'solved_by_branch'


def choose_trees(trees: Sequence[Tree], limit: int) -> list[Tree]:
  """At most `limit` trees: a mix of kinds, evenly spread over the run.

  What a kind cannot fill goes to the others, in the order of `_SHARES`. The
  trees keep their order.
  """
  if len(trees) <= limit:
    return list(trees)
  places: dict[str, list[int]] = {kind: [] for kind in _SHARES}
  for place, tree in enumerate(trees):
    places[kind_of(tree)].append(place)
  quotas = {
      kind: min(int(limit * share), len(places[kind]))
      for kind, share in _SHARES.items()
  }
  for kind in quotas:
    spare = limit - sum(quotas.values())
    quotas[kind] += min(spare, len(places[kind]) - quotas[kind])
  chosen = [p for kind, quota in quotas.items() for p in spread(places[kind], quota)]
  return [trees[place] for place in sorted(chosen)]


def spread(items: Sequence[T], number: int) -> list[T]:
  """`number` of the items, evenly; not more than there are."""
  return [items[i * len(items) // number] for i in range(number)]


def encode_trees(trees: Sequence[Tree], max_bytes: int) -> tuple[str, int]:
  """(JSON of the trees that fit into `max_bytes`, their number).

  The text may stand inside a script element: '<' is written as \\u003c.
  """
  return encode(map(compact, trees), max_bytes)


def encode(records: Iterable[Any], max_bytes: int) -> tuple[str, int]:
  """As `encode_trees`, of the first records."""
  parts: list[str] = []
  size = 2
  for record in records:
    part = embed_json(record)
    size += len(part.encode()) + 1
    if size > max_bytes:
      break
    parts.append(part)
  return f'[{",".join(parts)}]', len(parts)


def encode_sparsely(records: Iterable[Any], max_bytes: int) -> str:
  """As `encode_trees`: an object, number -> record, of those that have room.

  Those that are null have none either.
  """
  parts: list[str] = []
  size = 2
  for number, record in enumerate(records):
    part = f'"{number}":{embed_json(record)}'
    grown = size + len(part.encode()) + 1
    if record is not None and grown <= max_bytes:
      parts.append(part)
      size = grown
  return f'{{{",".join(parts)}}}'


def embed_json(content: Any) -> str:
  """JSON that no HTML parser takes for markup."""
  text = dump_json(content)
  for char in '<>&\u2028\u2029':
    text = text.replace(char, f'\\u{ord(char):04x}')
  return text


def compact(tree: Tree) -> dict[str, Any]:
  """A tree without tokens; empty fields are left out."""
  return {
      'id': tree.task_id,
      'instruction': _clip(tree.instruction),
      'split': tree.split,
      'kind': kind_of(tree),
      'nodes': [_compact_node(node) for node in tree.nodes],
  }


def _clip(text: str | None) -> str:
  text = text or ''
  hidden = len(text) - _LONGEST_TEXT
  if hidden <= 0:
    return text
  return f'{text[:_LONGEST_TEXT]} … ({hidden} more characters)'


def _filled(record: dict[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in record.items() if value not in (None, '', [])}


def _compact_node(node: Node) -> dict[str, Any]:
  return _filled({
      'parent': node.parent,
      'tau': node.tau,
      'depth': node.depth,
      'experience': _clip(node.experience),
      'success': node.success,
      'score': round(node.score, 4),
      'ended_by': node.ended_by,
      'final': _clip(node.final_observation),
      'error': _clip(node.error),
      'turns': [_compact_turn(turn) for turn in node.turns],
      'reflections': [_compact_reflection(r) for r in node.reflections],
  })


def _compact_turn(turn: Turn) -> dict[str, Any]:
  same = turn.action is not None and turn.action == turn.response.strip()
  return _filled({
      'observation': _clip(turn.observation),
      'response': _clip(turn.response),
      'action': None if same else _clip(turn.action),
      'reward': round(turn.reward, 4) or None,
      'hinted': turn.hinted or None,
      'invalid': not turn.valid or None,
      'error': _clip(turn.error),
      'tokens': len(turn.response_ids),
      'logprob': round(sum(turn.logprobs), 2) if turn.logprobs else None,
  })


def _compact_reflection(reflection: Reflection) -> dict[str, Any]:
  return _filled({
      'turn': reflection.turn,
      'terminal': reflection.terminal or None,
      'raw': _clip(reflection.raw),
      'tau': reflection.tau,
      'experience': _clip(reflection.experience),
      'error': _clip(reflection.error),
      'attempts': reflection.attempts,
      'requested': reflection.requested or None,
  })
