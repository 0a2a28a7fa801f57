"""The experience tree: what a policy lived through while exploring one task.

A `Tree` belongs to one task. Its nodes are episodes: roots start at the reset
state, a branch starts at turn `tau` of its parent and owns only the turns from
there on; the turns before are the parent's. Turns count from 1; h_tau is the
history before action tau (arXiv 2603.16843, section 3; indices as in
BUILD_NOTES.md).

History is never re-rendered and never re-tokenised for training: a turn stores
the tokens it added, so a training sequence is the concatenation along a path,
or along a part of it where prompts begin anew (`segments`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from leafe_jax.token_ids import shared

SCHEMA_VERSION = 1
_TOKENS = ('prompt_ids', 'opener_ids', 'hint_ids', 'response_ids')


@dataclasses.dataclass
class Turn:
  """One decision: an observation, the response to it, and what came of it.

  Attributes:
    index: number of the turn in its episode, from 1.
    observation: o_t as text.
    prompt_ids: tokens that the observation adds to the transcript, or the whole
      prompt where it begins anew.
    opener_ids: tokens that open the response (an assistant header).
    hint_ids: tokens of the hint block between the two at sampling time; empty
      without a hint. Never part of a training prompt.
    response_ids: sampled tokens, the stop token included.
    logprobs: natural-log probability of each response token when sampled.
    response: the response as text.
    action: the parsed action, None when the response held none.
    policy_version: number of the policy that sampled it.
    reward: reward that followed.
    valid: whether the environment accepted the action.
    error: why there is no action (typed: 'InvalidAction: ...', 'CutOff: ...').
    fresh: whether the prompt begins anew: no turn before is part of it.
    routes: of each response token, a number for the experts that were asked when
      it was sampled; empty without experts.
  """

  index: int
  observation: str
  prompt_ids: list[int]
  opener_ids: list[int]
  response_ids: list[int]
  logprobs: list[float]
  response: str
  action: str | None
  policy_version: int = 0
  reward: float = 0.0
  valid: bool = True
  hint_ids: list[int] = dataclasses.field(default_factory=list)
  error: str | None = None
  fresh: bool = False
  routes: list[int] = dataclasses.field(default_factory=list)

  @property
  def hinted(self) -> bool:
    return bool(self.hint_ids)

  @property
  def cut_off(self) -> bool:
    """Whether the token limit ended the response, so that it says nothing."""
    return (self.error or '').startswith('CutOff')


class _Elsewhere:
  """A turn that another process keeps: it counts, and holds nothing.

  Whoever asks for more than how many there are gets an AttributeError, and `to_json`
  a TypeError, so that no half of a tree is taken for a whole one.
  """


ELSEWHERE: Any = _Elsewhere()


def segments(turns: Iterable[Turn]) -> list[list[Turn]]:
  """A path cut before each prompt that begins anew; each part is one sequence."""
  parts: list[list[Turn]] = []
  for turn in turns:
    if turn.fresh or not parts:
      parts.append([])
    parts[-1].append(turn)
  return parts


@dataclasses.dataclass
class Reflection:
  """One call for (tau, e), whether it was usable or not.

  Attributes:
    turn: the turn after which the policy was asked.
    terminal: asked after a failure (True) or in progress (False).
    raw: the last response as text.
    tau: the turn to roll back to; None for 'carry on' or no usable answer.
    experience: e, what went wrong and what to do.
    error: None, or why nothing could be used ('ReflectionError: ...', 'Overlong:
      ...' where the question found no room).
    attempts: number of calls (one retry is allowed).
    requested: whether it became a branch request (limits may drop it).
  """

  turn: int
  terminal: bool
  raw: str
  tau: int | None = None
  experience: str | None = None
  error: str | None = None
  attempts: int = 1
  requested: bool = False


@dataclasses.dataclass
class Node:
  """One episode: a root, or a branch from turn `tau` of its parent.

  Attributes:
    id: position in the tree's list of nodes.
    parent: id of the parent, None for a root.
    tau: first own turn (1 for a root).
    experience: e that the branch was opened with, None for a root.
    depth: 0 for a root.
    turns: own turns, tau, tau + 1, ...
    success: whether the task was solved.
    score: the environment's score in [0, 1] at the end.
    ended_by: 'terminated', 'horizon', 'truncated', 'overlong' or 'error'.
    final_observation: the last answer of the environment.
    error: what broke the episode, when ended_by is 'error'; else what closing its
      session raised ('CloseError: ..'), None if nothing.
    reflections: calls for reflection on this node.
  """

  id: int
  parent: int | None
  tau: int
  experience: str | None
  depth: int
  turns: list[Turn] = dataclasses.field(default_factory=list)
  success: bool = False
  score: float = 0.0
  ended_by: str = ''
  final_observation: str = ''
  error: str | None = None
  reflections: list[Reflection] = dataclasses.field(default_factory=list)

  @property
  def last_turn(self) -> int:
    """Index of the last turn of the episode (tau - 1 when it has none)."""
    return self.tau + len(self.turns) - 1


@dataclasses.dataclass
class Tree:
  """All episodes of one task, in the order in which they were started.

  Attributes:
    task_id, instruction, split: of the task.
    nodes: episodes; `nodes[i].id == i`, parents before children. Of an evaluation
      only roots are kept, a few of many: their ids are their samples' numbers.
    budget: what the tree cost, a `rollout.ledger.Ledger` as a dict.
  """

  task_id: str
  instruction: str
  split: str
  nodes: list[Node] = dataclasses.field(default_factory=list)
  budget: dict[str, int] = dataclasses.field(default_factory=dict)

  def path(self, node: Node) -> list[Turn]:
    """All turns of the node's episode, replayed ones included, from turn 1."""
    return [turn for _, turn in self.owned_path(node)]

  def owned_path(self, node: Node) -> list[tuple[int, Turn]]:
    """As `path`, each turn with the id of the node that owns it."""
    if node.parent is None:
      prefix = []
    else:
      prefix = self.owned_path(self.nodes[node.parent])[: node.tau - 1]
    return prefix + [(node.id, turn) for turn in node.turns]

  def children(self, node: Node) -> list[Node]:
    return [child for child in self.nodes if child.parent == node.id]

  def solved(self) -> bool:
    return any(node.success for node in self.nodes)

  def to_json(self) -> str:
    """One line of JSON."""
    # `dataclasses.asdict` would copy every token, which takes five times as long.
    return dump_json({'schema': SCHEMA_VERSION, **vars(self)})

  @classmethod
  def from_json(cls, line: str) -> Tree:
    """Inverse of `to_json`. ValueError on another schema version."""
    return cls.from_record(json.loads(line))

  @classmethod
  def from_record(cls, record: dict[str, Any]) -> Tree:
    """As `from_json`, of the value of the line, which is used up."""
    schema = record.pop('schema', None)
    if schema != SCHEMA_VERSION:
      raise ValueError(f'tree schema {schema!r}; this code reads {SCHEMA_VERSION}')
    record['nodes'] = [_node_from_dict(node) for node in record['nodes']]
    return cls(**record)


def dump_json(content: Any) -> str:
  """Compact JSON that can be written as UTF-8, whatever its texts hold.

  Dataclasses become objects of their fields.

  Half a surrogate pair, which an error about a file's name may cite, has no
  UTF-8: it becomes its escape in JSON and is read back as it was.
  """
  text = json.dumps(
      content, ensure_ascii=False, separators=(',', ':'), default=_fields
  )
  return text.encode('utf-8', 'backslashreplace').decode('utf-8')


def _fields(value: Any) -> dict[str, Any]:
  """A dataclass as JSON takes it. TypeError for anything else."""
  if not dataclasses.is_dataclass(value) or isinstance(value, type):
    raise TypeError(f'{type(value).__name__} is of no JSON type')
  return vars(value)


def _node_from_dict(record: dict[str, Any]) -> Node:
  record['turns'] = [_turn_from_dict(turn) for turn in record['turns']]
  record['reflections'] = [Reflection(**r) for r in record['reflections']]
  return Node(**record)


def _turn_from_dict(record: dict[str, Any]) -> Turn:
  for name in _TOKENS:
    if name in record:
      record[name] = shared(record[name])
  return Turn(**record)
