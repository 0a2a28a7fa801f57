"""What was lived through as messages, for any trainer: the inverse of `conversations`.

A row holds `messages` (role, content, and whether an assistant's words are trained) and
`token_ids`, one list a message, which is empty where the text alone gives the tokens
back. A sampled text may be spelt in tokens that no encoder would choose; read back with
the same tokenizer (`tokenizer` names it), every row gives the ids and weights that it
came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from leafe_jax.experience.examples import Example
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.transcript import closing
from leafe_jax.tree import Node, Tree, Turn, segments

Row = dict[str, Any]


class NotOfTree(ValueError):
  """An example that is no part of its tree; names both."""


class Scribe:
  """Writes turns down as messages.

  Args:
    transcript: in which they were spelt.
  """

  def __init__(self, transcript: ChatTranscript):
    self._transcript = transcript

  def row(self, turns: Sequence[Turn], trained: Sequence[bool]) -> Row:
    """One conversation.

    Args:
      turns: of one segment: only the first prompt begins anew.
      trained: whether the response of each turn is learnt.
    """
    told = list(self._told(turns, trained))
    if system := self._transcript.system:
      told.insert(0, (_message('system', system), []))
    return {
        'messages': [message for message, _ in told],
        'token_ids': [ids for _, ids in told],
        'tokenizer': self._transcript.tokenizer_id,
    }

  def _told(
      self, turns: Sequence[Turn], trained: Sequence[bool]
  ) -> Iterator[tuple[Row, list[int]]]:
    end: list[int] = []  # of the response before, which the next prompt brings along
    for number, (turn, learnt) in enumerate(zip(turns, trained, strict=True)):
      yield self._asked(turn.prompt_ids[len(end) :], number == 0)
      end = closing(self._transcript, turn.response_ids)
      yield self._answered([*turn.response_ids, *end], learnt)

  def _asked(self, ids: list[int], begins: bool) -> tuple[Row, list[int]]:
    own = self._transcript
    before = own.pieces.head if begins else own.header
    content = own.all_text(ids).removeprefix(before)
    again = own.beginning(content) if begins else own.further(content)
    return _message('user', content), [] if again == ids else ids

  def _answered(self, ids: list[int], trained: bool) -> tuple[Row, list[int]]:
    content = self._transcript.spoken(ids[:-1])
    same = self._transcript.response(content) == ids
    return _message('assistant', content, trained), [] if same else ids


def _message(role: str, content: str, trained: bool = False) -> Row:
  return {'role': role, 'content': content, 'loss': trained}


def of_example(scribe: Scribe, tree: Tree, example: Example) -> Row:
  """An example of D_reh or D_cf, with where it comes from.

  Args:
    scribe: writes.
    tree: of the example's task.
    example: whose loss weights say which turns are learnt.

  Raises:
    NotOfTree: its tokens are not those of the tree.
  """
  node = tree.nodes[example.node]
  turns = _turns_of(tree, node, example)
  trained, place = [], 0
  for turn in turns:
    place += len(turn.prompt_ids) + len(turn.opener_ids)
    end = place + len(turn.response_ids)
    trained.append(bool(np.any(example.weights[place:end])))
    place = end
  return {
      'kind': example.kind, **_origin(tree, node), 'turn': example.turn,
      **scribe.row(turns, trained),
  }


def _turns_of(tree: Tree, node: Node, example: Example) -> list[Turn]:
  """The turns whose tokens an example is."""
  path = tree.path(node)
  if example.turn:
    path = path[: example.turn]
  for part in segments(path):
    ids: list[int] = []
    for count, turn in enumerate(part, 1):
      ids += [*turn.prompt_ids, *turn.opener_ids, *turn.response_ids]
      if np.array_equal(ids, example.ids):
        return part[:count]
  raise NotOfTree(
      f'an example of task {example.task_id!r}, node {example.node}, is no part of its '
      'tree: the trees are not those that it was made from'
  )


def of_tree(scribe: Scribe, tree: Tree) -> Iterator[Row]:
  """Every episode of a tree, its own turns trained; one row a `segments` of it."""
  for node in tree.nodes:
    for part in segments(tree.path(node)):
      own = [turn.index >= node.tau and not turn.cut_off for turn in part]
      if any(own):
        yield {'kind': 'tree', **_origin(tree, node), 'turn': 0,
               **scribe.row(part, own)}  # fmt: skip


def _origin(tree: Tree, node: Node) -> Row:
  """Of what the rows tell beside the words; the same fields in every row."""
  return {
      'id': f'{tree.task_id}/{node.id}', 'task_id': tree.task_id, 'split': tree.split,
      'node': node.id, 'parent': -1 if node.parent is None else node.parent,
      'tau': node.tau, 'depth': node.depth, 'hint': node.experience or '',
      'success': node.success, 'score': node.score, 'ended_by': node.ended_by,
  }


def as_completions(row: Row) -> Iterator[Row]:
  """One row a trained answer: what stands before it as prompt, itself as completion."""
  messages = row['messages']
  bare = [{'role': m['role'], 'content': m['content']} for m in messages]
  ids, rest = row['token_ids'], {k: v for k, v in row.items() if k != 'messages'}
  for i, message in enumerate(messages):
    if message['loss']:
      yield {**rest, 'token_ids': ids[: i + 1], 'prompt': bare[:i],
             'completion': bare[i : i + 1]}  # fmt: skip
