"""The gate before Stage 1: can the base diagnose, and does it follow a hint?

Stage 1 lives on the base's own reflections; where these are noise, everything
after it is wasted. The gate plays episodes on validation tasks, asks for a
reflection on every failure, takes the advised turn, and compares with the
scripted teacher where the world has one.

What it saw is kept, also when it refuses: its trees, and `report.json` with the
figures and the floors.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
from collections.abc import Sequence

from envs import api
from leafe_jax import hosts
from leafe_jax.config import Experiment, Explore, Gate
from leafe_jax.endings import EarlyEnd
from leafe_jax.files import write_atomic
from leafe_jax.learner.metrics import Nowhere
from leafe_jax.methods import lengths
from leafe_jax.methods.collect import collect, load_trees
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.grow import Limits
from leafe_jax.tree import Node, Reflection, Tree, Turn

ATTEMPTS = 2  # episodes of a task: the first, and the branch


class GateError(EarlyEnd):
  """The base reflects too badly for Stage 1; the message says how badly."""


@dataclasses.dataclass
class GateReport:
  """Shares in [0, 1] over the failed episodes of the gate; NaN-free.

  Attributes:
    failures: failed episodes that were reflected on.
    parsed: share of reflections that could be read.
    turn_right: share whose turn is the script's (None without a teacher).
    diagnosis_right: share whose turn and text are the script's.
    follows: share of branches that take the advised action.
  """

  failures: int
  parsed: float
  turn_right: float | None
  diagnosis_right: float | None
  follows: float | None


def probe(config: Experiment) -> Explore:
  """How the gate explores: an episode a task, and a branch where it failed."""
  return dataclasses.replace(
      config.explore, num_roots=1, reflect_every=0, max_depth=1, restart=False,
      attempts=ATTEMPTS, wave_tasks=max(1, config.gate.num_tasks),
  )


def run_gate(
    player: Player,
    tasks: Sequence[api.Task],
    teacher: api.Teacher | None,
    config: Experiment,
    directory: pathlib.Path,
) -> GateReport:
  """Measures the base. Raises GateError below the configured floor.

  Args:
    player: with the base's weights.
    tasks: of the validation split.
    teacher: whose diagnosis is the right one; None: only reading is judged.
    config: of the run.
    directory: where the trees and report.json stay.
  """
  collect(
      'gate', directory, player, tasks, probe(config), lambda task: Limits(ATTEMPTS, 0),
      config.sampler.max_rows, Nowhere(),
  )
  trees = load_trees(directory)
  report = measure(trees, teacher)
  floors = dataclasses.asdict(config.gate)
  text = json.dumps({**dataclasses.asdict(report), 'floors': floors}, indent=2)
  hosts.first(lambda: write_atomic(directory / 'report.json', text + '\n'))
  try:
    check(report, config.gate)
  except GateError as error:
    raise GateError(
        f'{error} What was seen is in {directory}.{lengths.trouble(trees, config)}'
    ) from error
  return report


def measure(trees: Sequence[Tree], teacher: api.Teacher | None) -> GateReport:
  """The figures of the gate from trees of one root and at most one branch."""
  asked = [
      (tree, node, node.reflections[0])
      for tree in trees
      for node in tree.nodes
      if node.parent is None and node.reflections
  ]
  readable = [entry for entry in asked if entry[2].error is None]
  branches = [n for tree in trees for n in tree.nodes if n.parent is not None]
  report = GateReport(len(asked), _share(len(readable), len(asked)), None, None, None)
  if teacher is not None:
    script = random.Random(0)
    truths = [_truth(teacher, tree, node, script) for tree, node, _ in readable]
    answers = [answer for _, _, answer in readable]
    pairs = list(zip(answers, truths, strict=True))
    same = [_same(teacher, answer, truth) for answer, truth in pairs]
    report.turn_right = _share(sum(_same_turn(a, t) for a, t in pairs), len(asked))
    report.diagnosis_right = _share(sum(same), len(asked))
    followed = [_follows(teacher, node) for node in branches]
    report.follows = _share(sum(followed), len(branches))
  return report


def check(report: GateReport, gate: Gate) -> None:
  """Raises GateError when a figure is below its floor."""
  floors = (
      ('can be read', report.parsed, 'min_parsed'),
      ("are the script's", report.diagnosis_right, 'min_diagnosis'),
      ('are followed', report.follows, 'min_follow'),
  )
  for what, share, name in floors:
    floor = getattr(gate, name)
    if report.failures and share is not None and share < floor:
      raise GateError(
          f'of {report.failures} reflections on validation tasks a share of '
          f'{share:.2f} {what}; the floor is {floor:.2f}. Stage 1 would explore '
          'on noise. Take a better base (train it longer with '
          f'--config.warm_start.steps), or lower --config.gate.{name}.'
      )


def _share(part: int, whole: int) -> float:
  return part / whole if whole else 0.0


def _truth(
    teacher: api.Teacher, tree: Tree, node: Node, rng: random.Random
) -> api.Diagnosis | None:
  history = api.History(
      tree.instruction,
      (*(turn.observation for turn in node.turns), node.final_observation),
      tuple(map(_did, node.turns)),
  )
  return teacher.diagnose(history, True, rng)


def _did(turn: Turn) -> str:
  """The action of a turn; the whole response where it holds none."""
  return turn.response if turn.action is None else turn.action


def _same_turn(answer: Reflection, truth: api.Diagnosis | None) -> bool:
  return truth is not None and answer.tau == truth.turn


def _same(
    teacher: api.Teacher, answer: Reflection, truth: api.Diagnosis | None
) -> bool:
  return (
      truth is not None
      and answer.tau == truth.turn
      and teacher.agrees(answer.experience or '', truth.experience)
  )


def _follows(teacher: api.Teacher, node: Node) -> bool:
  """Whether a branch took the action that its experience advises."""
  if not node.turns or node.experience is None:
    return False
  return teacher.follows(node.experience, _did(node.turns[0]))
