"""RetroAgent: hindsight as reward and as lessons (arXiv 2603.08561).

    retro_in_context  GRPO whose episodes earn what they completed beyond the group's
                      best, half of each group with lessons of earlier hindsight
    retro_trained     the same, and hindsight is trained beside: the policy judges
                      untold how its episodes ended, and earns for being right

After a step's episodes their policy looks back on each of them (`retro_reflect` has the
prompts, `hindsight` what follows). Progress phi becomes an intrinsic reward beside the
outcome, max(0, phi - Phi), where Phi is the best success rate that groups of the task
ever had. Lessons go into a memory (`memory.lessons`) and into the first prompt of the
second half of later groups. In retro_trained a second pass of updates follows on the
tokens of the reflections.

Where paper and released code part (`retro.parity`): the code leaves the intrinsic
reward out of the episodes' advantages and gives it to the reflections.
"""

from __future__ import annotations

import functools
import pathlib

from leafe_jax.config import Experiment, Grpo
from leafe_jax.evaluation.memories import Remembered
from leafe_jax.files import read_object
from leafe_jax.methods import effort
from leafe_jax.methods.arms import Arm, Phase
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.grpo import GRPO_READS
from leafe_jax.methods.hindsight import FILE, Retrospection
from leafe_jax.methods.online import OnlineTraining
from leafe_jax.methods.run import Run
from leafe_jax.methods.tuning import tuned
from leafe_jax.planning import jobs
from leafe_jax.rollout.episode import no_memory
from leafe_jax.rollout.samples import Memory

IN_CONTEXT, TRAINED = 'retro_in_context', 'retro_trained'


def _fit(trained: bool, run: Run, directory: pathlib.Path) -> dict:
  del directory  # the phase's, as `tuned` knows
  name = TRAINED if trained else IN_CONTEXT

  def fit(config: Grpo, place: pathlib.Path) -> dict:
    memory = Retrospection(run, config, trained)
    training = OnlineTraining(run, name, place, 0.0, memory, config, memory)
    return {**training.train(), 'lessons': len(memory.lessons)}

  return tuned(run, name, run.config.grpo, fit, ('params', FILE))


def _memory_at_test(trained: bool, run: Run) -> Memory:
  """The most useful lessons of tasks like the one that is met."""
  if not run.config.retro.shown_at_test:
    return no_memory
  return _finished(trained, run).recall_at_test


def _finished(trained: bool, run: Run) -> Retrospection:
  """What an arm that was trained has learnt."""
  memory = Retrospection(run, run.config.grpo, trained)
  place = run.directory.phase(TRAINED if trained else IN_CONTEXT).dir
  memory.load(read_object(place / FILE))
  return memory


def _remembered(trained: bool, run: Run) -> list[Remembered]:
  """All lessons, each with its utility."""
  return [
      Remembered(
          lesson.text, lesson.task, f'step {lesson.step} {lesson.source}, '
          f'{"a success" if lesson.success else "a failure"}',
          f'utility {lesson.utility:.2f}', lesson.utility, lesson.uses,
      )
      for lesson in _finished(trained, run).lessons.lessons.values()
  ]  # fmt: skip


def _effort(trained: bool, config: Experiment) -> Effort:
  grpo, name = config.grpo, TRAINED if trained else IN_CONTEXT
  job = jobs.group_policy(name, config)
  count = grpo.steps * grpo.tasks_per_step * grpo.group_size
  size = config.retro.max_tokens if config.policy.checkpoint else (
      config.explore.max_reflection_tokens)
  found = effort.optimising(config, name, job=job)
  found += effort.asking(count, size, attempts=1)
  if trained:  # a second pass a step
    trained_on = count * grpo.epochs * job.length
    found += Effort(updates=jobs.updates(grpo), trained=trained_on)
  return effort.tuned(config, found)


_PHASES = {
    trained: Phase(
        name, (*GRPO_READS, 'explore.max_reflection_tokens', 'retro'),
        functools.partial(_fit, trained), functools.partial(_effort, trained),
    )
    for trained, name in ((False, IN_CONTEXT), (True, TRAINED))
}

ARMS = tuple(
    Arm(
        name, about, (_PHASES[trained],), name, (name,),
        functools.partial(_memory_at_test, trained),
        remembered=functools.partial(_remembered, trained),
        pupil=functools.partial(_finished, trained),
    )
    for trained, name, about in (
        (False, IN_CONTEXT, 'GRPO that earns progress, with lessons of hindsight'),
        (True, TRAINED, 'the same, and hindsight is trained beside'),
    )
)
