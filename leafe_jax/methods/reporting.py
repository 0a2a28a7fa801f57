"""The last phase: figures, tables and the page, from what the others left."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from leafe_jax import hosts, redaction
from leafe_jax.endings import RunStopped
from leafe_jax.evaluation import results as results_lib
from leafe_jax.evaluation import stage1, tables, tasksets, tokens
from leafe_jax.evaluation.memories import Remembered
from leafe_jax.evaluation.report import Spelling, unspelt, write_report
from leafe_jax.evaluation.results import ArmCounts
from leafe_jax.evaluation.tasksets import TaskSet
from leafe_jax.evaluation.transcripts import Transcript, Transcripts, choose_tasks
from leafe_jax.experience import roles
from leafe_jax.experience.build import HintLeak
from leafe_jax.files import read_object
from leafe_jax.methods.arms import Arm
from leafe_jax.methods.assess import load_episodes, load_outcomes
from leafe_jax.methods.catalogue import arms_of
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.phases import discover_name, evaluate_name
from leafe_jax.methods.run import Run
from leafe_jax.rollout.ledger import total
from leafe_jax.tracking.api import Tracker
from leafe_jax.tree import Tree


def report(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """Writes results.json, passk.png and report/index.html; logs the tables."""
  del directory  # the report belongs to the run, not to a phase
  return hosts.first(lambda: _write(run))


def _write(run: Run) -> dict[str, Any]:
  results = collect_results(run)
  root = run.directory.path
  results_lib.write_results(root / 'results.json', results)
  page = write_report(
      root / 'report', results, trees_of(run),
      redaction.config_text(run.config), name=root.name,
      transcripts=transcripts_of(run), spelling=spelling_of(run),
      memories=memories_of(run, arms_of(run.config)),
  )
  with contextlib.closing(run.writer('evaluate')) as writer:
    for arm, figures in results['arms'].items():
      for k, point in figures['pass_at_k'].items():
        writer.write(int(k), {f'pass_at_k/{arm}': point['mean']})
  publish(run.tracker, root)
  logging.info('\n%s\nreport: %s', tables.render_tables(results), page)
  return {'page': str(page.relative_to(root))}


def publish(tracker: Tracker, root: pathlib.Path) -> None:
  """Tells a tracker what a directory's report says, and gives it the files."""
  columns, rows = tables.flat(read_object(root / 'results.json'))
  if rows:
    tracker.table('pass_at_k', columns, rows)
  report = root / 'report'
  paths = [root / 'results.json', *sorted(report.glob('*.png')), report / 'index.html']
  tracker.files('report', [path for path in paths if path.exists()])


def write_unfinished(run: Run, reason: str) -> pathlib.Path:
  """results.json and the report of what a run has that came to an early end.

  Args:
    run: whose arms may not all be evaluated, or none.
    reason: of the end, a sentence.

  Returns:
    The page.
  """
  root, config = run.directory.path, run.config
  trees = trees_of(run) or load_trees(run.directory.phase('gate').dir)
  results = {**_collect(run, _evaluated(run), trees), 'stopped': reason}
  results_lib.write_results(root / 'results.json', results)
  page = write_report(
      root / 'report', results, trees, redaction.config_text(config), name=root.name,
      spelling=spelling_of(run), memories=memories_of(run, _evaluated(run)),
  )
  publish(run.tracker, root)
  return page


def _evaluated(run: Run) -> list[Arm]:
  """The arms that were evaluated, at the configured temperature."""
  return [
      arm for arm in arms_of(run.config)
      if run.directory.phase(evaluate_name(arm.name)).done()
  ]  # fmt: skip


def collect_results(run: Run) -> dict[str, Any]:
  """The content of results.json; see `evaluation.results.build_results`."""
  config = run.config
  results = _collect(run, arms_of(config), trees_of(run))
  more = config.evaluate.more_temperatures
  at = {f'{t:g}': results_lib.compare(counts_of(run, t), config.evaluate.bootstrap)
        for t in more}  # fmt: skip
  found = discovered(run)
  return {
      **results, **({'at_temperature': at} if more else {}),
      **({'discovery': found} if found else {}),
  }


def discovered(run: Run) -> dict[str, dict[str, Any]]:
  """Discovery@k of the arms that made attempts in sequence, shares of tasks by k."""
  found = {}
  for arm in arms_of(run.config):
    phase = run.directory.phase(discover_name(arm.name))
    if run.config.evaluate.discovery and arm.pupil:
      result = phase.result()
      found[arm.name] = {
          side: [round(count / result['tasks'], 6) for count in counts]
          for side, counts in result['solved'].items()
      }
  return found


def _collect(run: Run, arms: list[Arm], trees: list) -> dict[str, Any]:
  """The figures of some of the arms, without those at other temperatures."""
  config = run.config
  of_run: dict[str, Any] = {
      'config_sha256': run.config_sha256,
      'seeds': {'run': config.seed},
      'budget': {arm.name: budget_of(run, arm) for arm in arms},
      'stage1': stage1.describe(trees),
      'wall_s': run.directory.wall_times(),
      'speed': run.directory.speeds(),
      'resamples': config.evaluate.bootstrap,
  }
  if not arms:
    return {**results_lib.NO_ARMS, **results_lib.describe_run(**of_run)}
  return results_lib.build_results(
      counts_of(run, arms=arms), tasks=tasks_of(run, arms), **of_run
  )


def counts_of(
    run: Run, temperature: float | None = None, arms: list[Arm] | None = None
) -> list[ArmCounts]:
  """How often each arm solved each task, at the configured or another temperature."""
  config = run.config
  actual = config.evaluate.temperature if temperature is None else temperature
  return [
      results_lib.count(
          arm.name,
          load_outcomes(run.directory.phase(evaluate_name(arm.name, temperature)).dir),
          actual,
      )
      for arm in (arms_of(config) if arms is None else arms)
  ]


def tasks_of(run: Run, arms: list[Arm] | None = None) -> TaskSet:
  """The tasks that every arm was evaluated on."""
  first = (arms or arms_of(run.config))[0].name
  outcomes = load_outcomes(run.directory.phase(evaluate_name(first)).dir)
  return tasksets.of_outcomes(run.config.evaluate.split, outcomes)


def trees_of(run: Run) -> list:
  """The trees of Stage 1, none if there was none."""
  return load_trees(run.directory.phase('explore').dir)


def memories_of(run: Run, arms: list[Arm]) -> dict[str, Sequence[Remembered]]:
  """What arms learnt in words, of those that do."""
  return {arm.name: arm.remembered(run) for arm in arms if arm.remembered}


def transcripts_of(run: Run) -> Transcripts:
  """Episodes of the same few tasks of every arm, out of those that were kept."""
  places = {
      arm.name: run.directory.phase(evaluate_name(arm.name)).dir
      for arm in arms_of(run.config)
  }
  outcomes = {arm: load_outcomes(place) for arm, place in places.items()}
  tasks = choose_tasks(outcomes)
  chosen, total = [], 0
  for arm, place in places.items():
    successes = {outcome.task_id: outcome.successes for outcome in outcomes[arm]}
    for tree in load_episodes(place):
      total += 1
      if tree.task_id in tasks:
        found = successes[tree.task_id]
        chosen.append(Transcript(arm, tree, sum(found), len(found)))
  chosen.sort(key=lambda transcript: tasks.index(transcript.tree.task_id))
  return Transcripts(chosen, total)


def spelling_of(run: Run) -> Spelling:
  """Tokens of a tree, with what of it is trained where it is one of Stage 1.

  None, with a warning, where the tokenizer is not at hand.
  """
  place, config = run.directory.path / 'tokenizer', run.config
  if not config.policy.checkpoint and not place.is_dir():
    return unspelt  # of a run that was made elsewhere, or before there was one
  try:
    spell = tokens.speller(run.tokenizer)
  except RunStopped as error:
    logging.warning('the report shows no tokens: %s', error)
    return unspelt

  def spelt(tree: Tree) -> list[Any]:
    found: dict[roles.Place, list[roles.Role]] = {}
    if tree.budget:  # of Stage 1: evaluated episodes pay nothing
      with contextlib.suppress(HintLeak):  # whoever trains on it says so
        found = roles.of_tree(tree, config.experience, config.distill.beta)
    named = {
        place: [dataclasses.asdict(role) for role in of_turn]
        for place, of_turn in found.items()
    }
    return tokens.spell_tree(tree, spell, named, prompts=False)

  return spelt


def budget_of(run: Run, arm: Arm) -> dict[str, int]:
  """What the arm's experience cost; the base and evaluation cost none of it."""
  return total(
      run.directory.phase(name).result()['budget'] for name in arm.costs
  ).as_dict()
