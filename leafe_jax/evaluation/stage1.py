"""What Stage 1 did: statistics of experience trees, all JSON-able."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from leafe_jax.tree import Node, Reflection, Tree

RELATIVE_BINS = 10
_DIGITS = 6


def describe(trees: Sequence[Tree]) -> dict[str, Any]:
  """Statistics of the trees of one exploration.

  Shares are None where there is nothing to take a share of.

  Returns:
    counts: tasks, episodes, turns.
    reflections: by trigger, parsed, retried, requested (each with its rate).
    tau: where reflections go back to: `absolute` turn -> count; `relative`
      counts in `RELATIVE_BINS` bins of tau / turn asked at, in (0, 1].
    branches: success by depth and against the parent.
    solved: tasks by how they were solved and after how many attempts.
    ended_by, errors: counts by kind.
  """
  nodes = [node for tree in trees for node in tree.nodes]
  reflections = [r for node in nodes for r in node.reflections]
  return {
      'counts': _counts(trees, nodes),
      'reflections': _reflections(reflections),
      'tau': _tau(reflections),
      'branches': _branches(trees),
      'solved': _solved(trees),
      'ended_by': _sorted_counts(node.ended_by or 'unknown' for node in nodes),
      'errors': _errors(nodes, reflections),
  }


def _share(part: int, whole: int) -> float | None:
  return round(part / whole, _DIGITS) if whole else None


def _sorted_counts(names: Iterable[str]) -> dict[str, int]:
  """Most frequent first, ties by name."""
  counts = Counter(names)
  return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _kind(error: str) -> str:
  return error.split(':', 1)[0].strip() or 'unknown'


def _counts(trees: Sequence[Tree], nodes: Sequence[Node]) -> dict[str, Any]:
  turns = [turn for node in nodes for turn in node.turns]
  return {
      'tasks': len(trees),
      'nodes': len(nodes),
      'roots': sum(node.parent is None for node in nodes),
      'branches': sum(node.parent is not None for node in nodes),
      'turns': len(turns),
      'hinted_turns': sum(turn.hinted for turn in turns),
      'invalid_turn_share': _share(sum(not t.valid for t in turns), len(turns)),
      'successes': sum(node.success for node in nodes),
  }


def _reflections(reflections: Sequence[Reflection]) -> dict[str, Any]:
  number = len(reflections)

  def rate(holds: Callable[[Reflection], bool]) -> float | None:
    return _share(sum(map(holds, reflections)), number)

  return {
      'asked': number,
      'periodic': sum(not r.terminal for r in reflections),
      'terminal': sum(r.terminal for r in reflections),
      'carry_on': sum(r.error is None and r.tau is None for r in reflections),
      'requested': sum(r.requested for r in reflections),
      'parse_rate': rate(lambda r: r.error is None),
      'retry_rate': rate(lambda r: r.attempts > 1),
      'request_rate': rate(lambda r: r.requested),
  }


def _tau(reflections: Sequence[Reflection]) -> dict[str, Any]:
  placed = [(r.tau, r.turn) for r in reflections if r.tau is not None]
  absolute = Counter(tau for tau, _ in placed)
  relative = np.array([tau / max(turn, tau, 1) for tau, turn in placed])
  # Bins are open below: going back to the turn just taken (1.0) is the last.
  bins = np.ceil(relative * RELATIVE_BINS).astype(int).clip(1, RELATIVE_BINS)
  return {
      'absolute': {
          str(tau): absolute[tau] for tau in range(1, max(absolute, default=0) + 1)
      },
      'relative': np.bincount(bins, minlength=RELATIVE_BINS + 1)[1:].tolist(),
      'mean_steps_back': (
          round(sum(turn - tau for tau, turn in placed) / len(placed), _DIGITS)
          if placed
          else None
      ),
  }


def _branches(trees: Sequence[Tree]) -> dict[str, Any]:
  pairs = [
      (tree, tree.nodes[node.parent], node)
      for tree in trees
      for node in tree.nodes
      if node.parent is not None
  ]
  started = [
      (tree.path(parent)[node.tau - 1 : node.tau], node.turns[0])
      for tree, parent, node in pairs
      if node.turns
  ]
  compared = [(old[0].action, new.action) for old, new in started if old]
  number = len(pairs)
  return {
      'by_depth': _by_depth(node for tree in trees for node in tree.nodes),
      'improved_share': _share(sum(n.score > p.score for _, p, n in pairs), number),
      'worse_share': _share(sum(n.score < p.score for _, p, n in pairs), number),
      'action_differs_share': _share(
          sum(old != new for old, new in compared), len(compared)
      ),
  }


def _by_depth(nodes: Iterable[Node]) -> list[dict[str, Any]]:
  """Episodes and their successes per depth; depth 0 holds the roots."""
  episodes: Counter[int] = Counter()
  successes: Counter[int] = Counter()
  for node in nodes:
    episodes[node.depth] += 1
    successes[node.depth] += node.success
  return [
      {
          'depth': depth,
          'episodes': episodes[depth],
          'successes': successes[depth],
          'success_rate': _share(successes[depth], episodes[depth]),
      }
      for depth in sorted(episodes)
  ]


def first_success(tree: Tree) -> Node | None:
  """The earliest started episode that solved the task."""
  return next((node for node in tree.nodes if node.success), None)


def _solved(trees: Sequence[Tree]) -> dict[str, Any]:
  firsts = [first for tree in trees if (first := first_success(tree))]
  by_root = sum(
      any(node.success for node in tree.nodes if node.parent is None)
      for tree in trees
  )
  attempts = max((len(tree.nodes) for tree in trees), default=0)
  return {
      'tasks': len(firsts),
      'share': _share(len(firsts), len(trees)),
      'by_some_root': by_root,
      'by_branches_only': len(firsts) - by_root,
      'unsolved': len(trees) - len(firsts),
      'within_attempts': [
          sum(node.id < limit for node in firsts) for limit in range(1, attempts + 1)
      ],
  }


def _errors(
    nodes: Sequence[Node], reflections: Sequence[Reflection]
) -> dict[str, dict[str, int]]:
  turns = (turn for node in nodes for turn in node.turns)
  return {
      'turns': _sorted_counts(_kind(turn.error) for turn in turns if turn.error),
      'episodes': _sorted_counts(_kind(n.error) for n in nodes if n.error),
      'reflections': _sorted_counts(_kind(r.error) for r in reflections if r.error),
  }
