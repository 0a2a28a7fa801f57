"""From experience trees to training examples (arXiv 2603.16843, sections 3.2, B.3).

* D_reh, behaviour rehearsal: responses of successful episodes, so that the
  policy keeps what it can do.
* D_cf, experience-to-policy distillation: per branch event the corrected
  action a'_tau given h_tau alone. The hint e that brought it about is gone
  from the condition; that is the point of the method.

A sequence along a path is prompt + opener + response, turn after turn, and a
sequence of its own from each prompt on that begins anew. Hint blocks are never
part of it: `check_no_hint` refuses a tree where they are.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from absl import logging

from leafe_jax import config as config_lib
from leafe_jax.experience import examples
from leafe_jax.experience.examples import Example
from leafe_jax.tree import Node, Tree, Turn, segments

_CITATIONS = re.compile(
    r'\b(lesson|earlier attempt|previous attempt|hint|experience)s?\b', re.IGNORECASE
)
_QUOTE_WORDS = 6


class HintLeak(ValueError):
  """A training prompt holds the hint that it must be free of."""

  def __init__(self, tree: Tree, node: Node, turn: int, how: str):
    super().__init__(
        f'the hint of task {tree.task_id!r}, node {node.id}, is in the training '
        f'prompt of turn {turn}: {how}'
    )
    self.task_id = tree.task_id
    self.node = node.id


@dataclasses.dataclass
class Summary:
  """What building drew, kept and dropped.

  Attributes:
    successes: successful episodes in the trees.
    drawn: those of them whose paths entered D_reh.
    reh, cf: number of examples.
    reh_tokens, cf_tokens: trained tokens.
    events: branch events (nodes with a parent).
    events_after_error: those with an invalid action or an error before tau.
    tasks: number of trees.
    tasks_below_cap: tasks with fewer D_cf examples than `cf_per_task`.
    dropped: number of candidates per reason.
  """

  successes: int = 0
  drawn: int = 0
  reh: int = 0
  cf: int = 0
  reh_tokens: int = 0
  cf_tokens: int = 0
  events: int = 0
  events_after_error: int = 0
  tasks: int = 0
  tasks_below_cap: int = 0
  dropped: Counter[str] = dataclasses.field(default_factory=Counter)

  @property
  def error_share(self) -> float:
    """Share of events with an error in h_tau."""
    return self.events_after_error / max(self.events, 1)

  def as_dict(self) -> dict[str, Any]:
    """JSON types."""
    # A Counter does not survive dataclasses.asdict.
    counts = dataclasses.asdict(dataclasses.replace(self, dropped=Counter()))
    return {**counts, 'dropped': dict(self.dropped)}


def build(
    trees: Sequence[Tree], config: config_lib.Experience, rng: random.Random
) -> tuple[list[Example], Summary]:
  """D_reh followed by D_cf, with a summary. Raises HintLeak."""
  summary = Summary(tasks=len(trees))
  reh = rehearsal(trees, config, rng, summary)
  cf = counterfactual(trees, config, summary)
  logging.info('built %s', summary)
  return reh + cf, summary


def rehearsal(
    trees: Iterable[Tree],
    config: config_lib.Experience,
    rng: random.Random,
    summary: Summary | None = None,
) -> list[Example]:
  """D_reh: one sequence per drawn successful episode, or per `segments` of it.

  A turn that several drawn paths share is trained once, in the first of them.
  What has nothing left to train is dropped.

  Args:
    trees: one per task.
    config: `reh_fraction`, `reh_hinted` and `reh_prefix` count here.
    rng: draws the episodes.
    summary: is added to.

  Returns:
    Examples of kind 'reh' in the order of the trees.

  Raises:
    HintLeak: a hint block is part of a training prompt.
  """
  summary = Summary() if summary is None else summary
  successes = [(tree, node) for tree in trees for node in tree.nodes if node.success]
  count = round(config.reh_fraction * len(successes))
  drawn = sorted(rng.sample(range(len(successes)), count))
  summary.successes += len(successes)
  summary.drawn += count
  trained: set[tuple[str, int, int]] = set()
  found = [_rehearse(*successes[i], config, trained, summary) for i in drawn]
  kept = [example for of_path in found for example in of_path]
  summary.reh += len(kept)
  summary.reh_tokens += _trained_tokens(kept)
  return kept


def _rehearse(
    tree: Tree,
    node: Node,
    config: config_lib.Experience,
    trained: set[tuple[str, int, int]],
    summary: Summary,
) -> list[Example]:
  check_no_hint(tree, node, node.last_turn)
  weights = {
      turn.index: rehearsal_weight(tree, node, owner, turn, config, trained)
      for owner, turn in tree.owned_path(node)
  }
  found = []
  for part in segments(tree.path(node)):
    pieces, kept = [], 0
    for turn in part:
      pieces += [*_prompt(turn), (turn.response_ids, weights[turn.index])]
      if weights[turn.index]:
        kept = len(pieces)  # what follows the last trained response is of no use
    if kept:
      made = examples.make(pieces[:kept], examples.REHEARSAL, tree.task_id, node.id)
      found.append(made)
  if not found:
    summary.dropped['reh: nothing left to train'] += 1
  return found


def rehearsal_weight(
    tree: Tree,
    node: Node,
    owner: int,
    turn: Turn,
    config: config_lib.Experience,
    trained: set[tuple[str, int, int]],
) -> float:
  """Of a turn on a successful path, 0 if it is not trained; notes it in `trained`."""
  key = (tree.task_id, owner, turn.index)
  if owner != node.id and not config.reh_prefix:
    return 0.0
  if turn.hinted and not config.reh_hinted:
    return 0.0
  if turn.cut_off:  # it would teach never to end
    return 0.0
  if key in trained:
    return 0.0
  trained.add(key)
  return 1.0


def counterfactual(
    trees: Iterable[Tree],
    config: config_lib.Experience,
    summary: Summary | None = None,
) -> list[Example]:
  """D_cf: (h_tau, a'_tau) of branch events, e removed.

  Events whose action equals the parent's, that fail `cf_filter`, that cite
  the hint or that repeat another event's tokens are dropped; of the rest each
  task keeps the `cf_per_task` best: success first, then the smallest depth.

  Args:
    trees: one per task.
    config: `cf_filter`, `cf_per_task` and `citation_filter` count here.
    summary: is added to.

  Returns:
    Examples of kind 'cf' in the order of the trees.

  Raises:
    HintLeak: a hint block is part of a training prompt.
    ValueError: unknown `cf_filter`.
  """
  summary = Summary() if summary is None else summary
  found = []
  for tree in trees:
    kept = _counterfactual_of(tree, config, summary)
    summary.tasks_below_cap += len(kept) < config.cf_per_task
    found += kept
  summary.cf += len(found)
  summary.cf_tokens += _trained_tokens(found)
  return found


def _counterfactual_of(
    tree: Tree, config: config_lib.Experience, summary: Summary
) -> list[Example]:
  candidates = []
  for node in tree.nodes:
    if node.parent is None:
      continue
    summary.events += 1
    summary.events_after_error += _error_before(tree, node)
    reason = objection(tree, node, config)
    if reason is None:
      candidates.append(node)
    else:
      summary.dropped[f'cf: {reason}'] += 1
  candidates.sort(key=lambda node: (not credited_success(tree, node), node.depth))
  found = _unique([_correction(tree, node) for node in candidates])
  summary.dropped['cf: repeats another event'] += len(candidates) - len(found)
  summary.dropped['cf: over the cap'] += max(0, len(found) - config.cf_per_task)
  return found[: config.cf_per_task]


def objection(
    tree: Tree, node: Node, config: config_lib.Experience
) -> str | None:
  """Why a branch event is not trained; None if it is."""
  if not node.turns or not node.turns[0].response_ids:
    return 'no response'
  turn = node.turns[0]
  if turn.action is None:
    return 'no action in the response'
  if turn.action == _parent_action(tree, node):
    return "the parent's action again"
  if not _passes(tree, node, config.cf_filter):
    return f'not {config.cf_filter}'
  if config.citation_filter and cites_hint(turn, node.experience or ''):
    return 'cites the hint'
  return None


def _passes(tree: Tree, node: Node, cf_filter: str) -> bool:
  if cf_filter == 'all':
    return True
  if cf_filter == 'success':
    return credited_success(tree, node)
  if cf_filter == 'improved':
    parent = tree.nodes[node.parent or 0]
    best = max(other.score for other in credited(tree, node))
    return credited_success(tree, node) or best > parent.score
  raise ValueError(
      f'unknown cf_filter {cf_filter!r}; choose from success, improved, all'
  )


def credited(tree: Tree, node: Node) -> list[Node]:
  """The node and the descendants that still contain its action at tau.

  A rollback to a turn <= node.tau has discarded that action, so nothing below
  it says anything about the action.
  """
  found = [node]
  for other in found:  # grows while we walk
    found += [child for child in tree.children(other) if child.tau > node.tau]
  return found


def credited_success(tree: Tree, node: Node) -> bool:
  """Whether the event's action is part of a successful episode."""
  return any(other.success for other in credited(tree, node))


def cites_hint(turn: Turn, experience: str) -> bool:
  """Whether a response mentions its hint instead of acting on it.

  Looks for words such as 'lesson' anywhere, and for verbatim quotes of six or
  more words of e outside the action itself: an action may be what e proposes.
  """
  if _CITATIONS.search(turn.response):
    return True
  thought = turn.response
  if turn.action:
    thought = thought.replace(turn.action, ' \0 ')
  spoken, words = thought.split(), experience.split()
  quotes = {
      tuple(words[i : i + _QUOTE_WORDS])
      for i in range(len(words) - _QUOTE_WORDS + 1)
  }
  return any(
      tuple(spoken[i : i + _QUOTE_WORDS]) in quotes for i in range(len(spoken))
  )


def check_no_hint(tree: Tree, node: Node, last_turn: int) -> None:
  """Checks the prompts of a path up to `last_turn`. Raises HintLeak.

  Two signs of a hint left behind, neither of which honest data shows: the
  tokens of a hint block of the path stand in a prompt (words of e alone may
  well occur in observations), or a branch's prompt at tau differs from the
  parent's although both saw the same observation.
  """
  owned = [pair for pair in tree.owned_path(node) if pair[1].index <= last_turn]
  blocks = {tuple(turn.hint_ids) for _, turn in owned if turn.hinted}
  for _, turn in owned:
    prompt = [*turn.prompt_ids, *turn.opener_ids]
    if any(_contains(prompt, block) for block in blocks):
      raise HintLeak(tree, node, turn.index, 'its tokens occur there')
  for owner in {owner for owner, _ in owned}:
    _check_branch_point(tree, tree.nodes[owner])


def _check_branch_point(tree: Tree, node: Node) -> None:
  if node.parent is None or not node.turns:
    return
  before = parent_turn(tree, node)
  turn = node.turns[0]
  if before is None or before.observation != turn.observation:
    return
  if (before.prompt_ids, before.opener_ids) != (turn.prompt_ids, turn.opener_ids):
    raise HintLeak(tree, node, turn.index, "the prompt is not the parent's")


def _contains(ids: list[int], run: tuple[int, ...]) -> bool:
  starts = (i for i, token in enumerate(ids) if token == run[0])
  return any(tuple(ids[i : i + len(run)]) == run for i in starts)


def _correction(tree: Tree, node: Node) -> Example:
  check_no_hint(tree, node, node.tau)
  return answer_at(tree, node, node.turns[0], examples.COUNTERFACTUAL)


def answer_at(tree: Tree, node: Node, answer: Turn, kind: str) -> Example:
  """The prompt h_tau of a branch event and the response of `answer`, trained.

  Args:
    tree: of the event.
    node: the branch; its own first turn is the corrected one.
    answer: any turn that stood before the same prompt.
    kind: of the example.
  """
  pieces: list[tuple[Sequence[int], float]] = []
  *before, _ = segments([*tree.path(node)[: node.tau - 1], answer])[-1]
  for turn in before:
    pieces += [*_prompt(turn), (turn.response_ids, 0.0)]
  pieces += [*_prompt(answer), (answer.response_ids, 1.0)]
  return examples.make(pieces, kind, tree.task_id, node.id, node.tau)


def parent_turn(tree: Tree, node: Node) -> Turn | None:
  """What the parent did at turn tau of a branch; None if it never got there."""
  path = tree.path(tree.nodes[node.parent or 0])
  return path[node.tau - 1] if node.tau <= len(path) else None


def _prompt(turn: Turn) -> list[tuple[Sequence[int], float]]:
  return [(turn.prompt_ids, 0.0), (turn.opener_ids, 0.0)]


def _parent_action(tree: Tree, node: Node) -> str | None:
  turn = parent_turn(tree, node)
  return None if turn is None else turn.action


def _error_before(tree: Tree, node: Node) -> bool:
  before = tree.path(node)[: node.tau - 1]
  return any(turn.error is not None or not turn.valid for turn in before)


def _unique(found: Iterable[Example]) -> list[Example]:
  """The first of every set of examples with the same tokens."""
  first: dict[bytes, Example] = {}
  for example in found:
    first.setdefault(example.ids.tobytes(), example)
  return list(first.values())


def _trained_tokens(found: Iterable[Example]) -> int:
  return sum(int((example.weights > 0).sum()) for example in found)
