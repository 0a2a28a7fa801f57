"""results.json: every figure of a run, from counts of successes.

Two identical runs write the same bytes but for `wall_s` and `speed`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from leafe_jax.evaluation import intervals, passk
from leafe_jax.evaluation.intervals import Interval
from leafe_jax.evaluation.tasksets import TaskSet
from leafe_jax.files import write_atomic

_DIGITS = 6


class Outcome(Protocol):
  """What n episodes of one task came to; one entry per sample."""

  task_id: str
  successes: list[int]
  scores: list[float]
  turns: list[int]
  budget: dict[str, int]
  ended_by: dict[str, int]
  turn_errors: dict[str, int]
  invalid_turns: int | None


class Counts(Protocol):
  """What is known of one arm: an `ArmCounts`, or several seeds' pooled."""

  @property
  def name(self) -> str: ...

  @property
  def task_ids(self) -> list[str]: ...

  @property
  def n_samples(self) -> int: ...

  @property
  def temperature(self) -> float: ...

  @property
  def turns(self) -> int: ...

  @property
  def score(self) -> float: ...

  @property
  def episodes(self) -> int: ...

  @property
  def overlong(self) -> int: ...

  @property
  def cut_off(self) -> int | None: ...

  @property
  def invalid(self) -> int | None: ...

  @property
  def ended_by(self) -> Mapping[str, int]: ...

  def pass_at(self, ks: Sequence[int]) -> Float[np.ndarray, 'N K']: ...

  def solved(self) -> Bool[np.ndarray, ' M']: ...


@dataclasses.dataclass(frozen=True)
class ArmCounts:
  """How often one arm's policy solved each task.

  Attributes:
    name: of the arm.
    task_ids: the N tasks.
    successes: c, successful samples of each task, in 0..n_samples.
    n_samples: n, independent episodes per task.
    temperature: of sampling.
    turns: sum over all N * n episodes.
    score: sum of the environment's scores over all N * n episodes.
    overlong: episodes that ended because their transcript was full.
    cut_off: turns whose response the token limit ended; None: not recorded.
    invalid: turns without an action that the environment took, those cut off
      among them; None: not recorded.
    ended_by: episodes by what ended them; empty: not recorded.
  """

  name: str
  task_ids: list[str]
  successes: Int[np.ndarray, ' N']
  n_samples: int
  temperature: float
  turns: int = 0
  score: float = 0.0
  overlong: int = 0
  cut_off: int | None = None
  invalid: int | None = None
  ended_by: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    if len(set(self.task_ids)) != len(self.task_ids):
      raise ValueError(f'arm {self.name!r} has a task twice')
    if not self.task_ids or np.shape(self.successes) != (len(self.task_ids),):
      raise ValueError(
          f'arm {self.name!r} has {len(self.task_ids)} tasks and '
          f'{np.size(self.successes)} counts; need as many, and at least one'
      )

  @property
  def episodes(self) -> int:
    return len(self.task_ids) * self.n_samples

  def pass_at(self, ks: Sequence[int]) -> Float[np.ndarray, 'N K']:
    """Pass@k per task, tasks in the order of their ids."""
    order = sorted(range(len(self.task_ids)), key=self.task_ids.__getitem__)
    return passk.pass_at_ks(np.asarray(self.successes)[order], self.n_samples, ks)

  def solved(self) -> Bool[np.ndarray, ' N']:
    """Which tasks some sample solves, in the same order."""
    return self.pass_at((self.n_samples,))[:, 0] > 0.5


def count(name: str, outcomes: Sequence[Outcome], temperature: float) -> ArmCounts:
  """Counts of an arm from the outcomes of its episodes.

  Raises:
    ValueError: tasks with different numbers of samples.
  """
  samples = sorted({len(outcome.successes) for outcome in outcomes})
  if len(samples) != 1:
    raise ValueError(
        f'arm {name!r}: every task needs the same number of samples, not {samples}'
    )
  return ArmCounts(
      name=name,
      task_ids=[outcome.task_id for outcome in outcomes],
      successes=np.array([sum(o.successes) for o in outcomes], np.int64),
      n_samples=samples[0],
      temperature=temperature,
      turns=sum(sum(outcome.turns) for outcome in outcomes),
      score=float(sum(sum(outcome.scores) for outcome in outcomes)),
      overlong=sum(outcome.budget.get('overlong', 0) for outcome in outcomes),
      **_turn_counts(outcomes),
      ended_by=add_counts(outcome.ended_by for outcome in outcomes),
  )


def _turn_counts(outcomes: Sequence[Outcome]) -> dict[str, int | None]:
  """Of turns; None where some outcome is older than the counts."""
  invalid = add_known(outcome.invalid_turns for outcome in outcomes)
  cut_off = sum(outcome.turn_errors.get('CutOff', 0) for outcome in outcomes)
  return {'cut_off': None if invalid is None else cut_off, 'invalid': invalid}


def add_known(counts: Iterable[int | None]) -> int | None:
  """Their sum; None if one of them is not known."""
  total = 0
  for count in counts:
    if count is None:
      return None
    total += count
  return total


def add_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
  """Counts by kind, summed, in the order of the kinds' names."""
  total: Counter[str] = Counter()
  for part in parts:
    total.update(part)
  return dict(sorted(total.items()))


def build_results(
    arms: Sequence[Counts],
    *,
    config_sha256: str,
    seeds: Mapping[str, int],
    tasks: TaskSet | None = None,
    budget: Mapping[str, Mapping[str, int]] | None = None,
    stage1: Mapping[str, Any] | None = None,
    wall_s: Mapping[str, float] | None = None,
    speed: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
  """The content of results.json.

  Args:
    arms: in the order in which they are shown; all on the same tasks. Each
      later arm is compared with each earlier one.
    config_sha256: of the run's config.
    seeds: name -> seed.
    tasks: those that the arms were evaluated on.
    budget: arm (or phase) -> ledger counts.
    stage1: `stage1.describe(trees)`.
    wall_s: phase -> seconds.
    speed: phase -> where the time of its rollouts went, in seconds, and their
      tokens; like wall_s it differs between equal runs.
    resamples: bootstrap draws.
    seed: of the bootstrap.

  Raises:
    ValueError: no arms, an arm twice, or arms on different tasks or with
      different numbers of samples.
  """
  return {
      **compare(arms, resamples, seed),
      **describe_tasks(arms, tasks, resamples, seed),
      **describe_run(
          config_sha256, seeds, budget, stage1, wall_s, speed, resamples, seed
      ),
  }


def describe_run(
    config_sha256: str,
    seeds: Mapping[str, int],
    budget: Mapping[str, Mapping[str, int]] | None = None,
    stage1: Mapping[str, Any] | None = None,
    wall_s: Mapping[str, float] | None = None,
    speed: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
  """What results.json says beside the evaluations; as for `build_results`."""
  return {
      'budget': {name: dict(costs) for name, costs in (budget or {}).items()},
      'stage1': dict(stage1 or {}),
      'config_sha256': config_sha256,
      'seeds': dict(seeds),
      'bootstrap': {
          'over': 'tasks',
          'resamples': resamples,
          'seed': seed,
          'level': intervals.LEVEL,
      },
      'wall_s': {name: round(s, 1) for name, s in (wall_s or {}).items()},
      'speed': dict(speed or {}),
  }


# The evaluations of a run that has none.
NO_ARMS: Mapping[str, Any] = {'arms': {}, 'paired': {}, 'tasks': {}, 'by_type': {}}


def compare(
    arms: Sequence[Counts], resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
  """Pass@k of every arm and the paired differences; as for `build_results`."""
  _check_comparable(arms)
  return {
      'arms': {arm.name: _arm_figures(arm, resamples, seed) for arm in arms},
      'paired': {
          f'{late.name} - {early.name}': _paired(late, early, resamples, seed)
          for early, late in itertools.combinations(arms, 2)
      },
  }


def describe_tasks(
    arms: Sequence[Counts], tasks: TaskSet | None, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
  """The tasks, and Pass@k of every arm on each type of them.

  Returns:
    tasks: as `TaskSet.as_dict`; empty if they are not known.
    by_type: type -> n_tasks and arms (name -> k -> interval); empty where all
      tasks are of one type.
  """
  if tasks is None:
    return {'tasks': {}, 'by_type': {}}
  counts = tasks.counts if len(tasks.counts) > 1 else {}
  types = dict(zip(tasks.ids, tasks.types, strict=True))
  ks = passk.powers_up_to(arms[0].n_samples)
  found: dict[str, Any] = {}
  for name, number in counts.items():
    # `pass_at` has the tasks in the order of their ids.
    chosen = [types[task_id] == name for task_id in sorted(types)]
    points = {
        arm.name: _by_k(ks, arm.pass_at(ks)[chosen], resamples, seed) for arm in arms
    }
    found[name] = {'n_tasks': number, 'arms': points}
  return {'tasks': tasks.as_dict(), 'by_type': found}


def _check_comparable(arms: Sequence[Counts]) -> None:
  names = [arm.name for arm in arms]
  if not names or len(set(names)) != len(names):
    raise ValueError(f'need distinct arms, at least one, not {names}')
  for arm in arms[1:]:
    if set(arm.task_ids) != set(arms[0].task_ids):
      raise ValueError(
          f'arms {arm.name!r} and {arms[0].name!r} were evaluated on different '
          'tasks; paired differences need the same'
      )
    if arm.n_samples != arms[0].n_samples:
      raise ValueError(
          f'arms {arm.name!r} and {arms[0].name!r} have {arm.n_samples} and '
          f'{arms[0].n_samples} samples per task; need the same number'
      )


def _rounded(interval: Interval) -> dict[str, float]:
  # + 0.0 turns -0.0 into 0.0
  return {
      name: round(value, _DIGITS) + 0.0
      for name, value in dataclasses.asdict(interval).items()
  }


def _by_k(
    ks: Sequence[int], values: Float[np.ndarray, 'N K'], resamples: int, seed: int
) -> dict[str, Any]:
  found = intervals.bootstrap(values, resamples, seed)
  return {str(k): _rounded(i) for k, i in zip(ks, found, strict=True)}


def _arm_figures(arm: Counts, resamples: int, seed: int) -> dict[str, Any]:
  ks = passk.powers_up_to(arm.n_samples)
  return {
      'pass_at_k': _by_k(ks, arm.pass_at(ks), resamples, seed),
      'n_tasks': len(arm.task_ids),
      'n_samples': arm.n_samples,
      'temperature': arm.temperature,
      'mean_turns': round(arm.turns / arm.episodes, _DIGITS),
      'mean_score': round(arm.score / arm.episodes, _DIGITS),
      'overlong_share': round(arm.overlong / arm.episodes, _DIGITS),
      'cut_off_share': _share_of_turns(arm.cut_off, arm),
      'invalid_turn_share': _share_of_turns(arm.invalid, arm),
      'ended_by': dict(arm.ended_by),
  }


def _share_of_turns(count: int | None, arm: Counts) -> float | None:
  return None if count is None else round(count / max(1, arm.turns), _DIGITS)


def _paired(
    late: Counts, early: Counts, resamples: int, seed: int
) -> dict[str, Any]:
  ks = passk.powers_up_to(late.n_samples)
  values, others = late.pass_at(ks), early.pass_at(ks)
  p_value = intervals.mcnemar(late.solved(), early.solved())
  figures = _by_k(ks, values - others, resamples, seed)
  return {**figures, 'mcnemar_p': float(f'{p_value:.4g}')}


def dump_results(results: Mapping[str, Any]) -> str:
  """results.json as text; ValueError on a NaN or an infinity."""
  return json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + '\n'


def write_results(path: pathlib.Path, results: Mapping[str, Any]) -> None:
  """Writes results.json; readers see the old file or the new, never a part."""
  write_atomic(path, dump_results(results))
