"""Early Experience: learning from what other actions would have led to.

    imitation        an expert's actions alone
    iwm              first what the world answers, to the expert's actions and
                     to the policy's own alternatives, then imitation
    self_reflection  imitation, and the policy's reflections on its alternatives
                     where they lead to the expert's action
    leafe_ee         the examples of self_reflection and those of LEAFE, together

(arXiv 2510.08558.) Every arm takes the same number of updates. The experts are
the scripted teacher's successful episodes on training tasks, or, where there
is no teacher, the successes of the policy's own independent samples; the
expert's steps are given, those of the alternatives are charged.

The paper's self-reflection puts the rationale before the action in one
response. Small policies' responses have no room for one, so for all policies
the reflection is a turn of its own, in the form that Stage 1 asks for.
"""

from __future__ import annotations

import functools
import pathlib
import random
from collections.abc import Callable, Sequence

from leafe_jax import hosts, stops
from leafe_jax.config import Experiment
from leafe_jax.endings import EarlyEnd, RunStopped
from leafe_jax.experience import dataset, foresight
from leafe_jax.experience.examples import Example
from leafe_jax.methods import lengths, stage1
from leafe_jax.methods.arms import (
  ASK_READS,
  BASE,
  PLAY_READS,
  TRAIN_READS,
  Arm,
  Phase,
)
from leafe_jax.methods.collect import load_trees, save_trees, wave_path, waves
from leafe_jax.methods.demonstrations import Demonstrator
from leafe_jax.methods.effort import Effort, asking, distilling
from leafe_jax.methods.leafe import Recipe, distill_on
from leafe_jax.methods.run import Run
from leafe_jax.progress import Progress
from leafe_jax.rollout.alternatives import Expert, propose
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.ledger import total
from leafe_jax.sampler import Rules
from leafe_jax.tree import Tree

_SHARE = 'early_experience.iwm_share'


def experts_of(run: Run) -> list[Expert]:
  """One successful episode per training task, where one was found.

  Raises:
    EarlyEnd: nobody ever succeeded.
    RunStopped: there is neither teacher nor sample.
  """
  tasks = run.tasks('train', run.config.explore.num_tasks)
  found = _scripted(run, tasks) if run.teacher() else _own(run, tasks)
  if not found:
    raise EarlyEnd(
        'early experience has no expert: neither a scripted teacher nor an '
        'independent sample succeeded on a training task'
    )
  return found


def _scripted(run: Run, tasks: Sequence) -> list[Expert]:
  teacher = run.teacher()
  assert teacher is not None
  rng = random.Random(f'{run.config.seed}/experts')
  demonstrator = Demonstrator(run.world, teacher, run.config.env.horizon, rng)
  found = []
  for task in tasks:
    stops.check('all finished phases are saved')
    for _ in range(run.config.early_experience.expert_attempts):
      demo = demonstrator.play(task)
      if demo is not None and demo.success:
        found.append(Expert(task, demo.responses(teacher)))
        break
  return found


def _own(run: Run, tasks: Sequence) -> list[Expert]:
  """The first success of each tree of independent samples."""
  sampled = run.directory.phase(stage1.SAMPLE.name)
  if not sampled.done():
    raise RunStopped(
        f'{run.config.env.name} has no scripted teacher; name an arm that samples '
        'successes before this one (--config.arms=base,rft,iwm)'
    )
  by_id = {task.id: task for task in tasks}
  found = []
  for tree in load_trees(sampled.dir):
    node = next((node for node in tree.nodes if node.success), None)
    if node is not None:
      responses = tuple(turn.response for turn in node.turns)
      found.append(Expert(by_id[tree.task_id], responses))
  return found


def retrace(
    run: Run, directory: pathlib.Path, label: str,
    grow: Callable[[Player, Sequence[Expert]], list[Tree]],
) -> None:  # fmt: skip
  """Saves what `grow` makes of the experts' episodes, wave by wave."""
  experts = experts_of(run)
  player = run.base_player()
  with Progress(label, len(experts), 'expert') as progress:
    for number, wave in waves(experts, run.config.explore.wave_tasks):
      path = wave_path(directory, number)
      if hosts.first(path.exists):
        progress.skip(len(wave))
        continue
      hosts.first(functools.partial(save_trees, path, grow(player, wave)))
      progress.advance(len(wave))


def branch_out(run: Run, directory: pathlib.Path) -> dict:
  """Executes the policy's alternatives at the experts' states; saves the trees."""
  config = run.config
  explore = config.explore
  stop_ids = run.transcript.stop_ids
  options = config.early_experience
  rules = Rules(options.temperature, explore.max_response_tokens, stop_ids)
  asking = Rules(explore.reflect_temperature, explore.max_reflection_tokens, stop_ids)
  retrace(
      run, directory, 'alternatives',
      lambda player, wave: propose(player, wave, options.alternatives, rules, asking),
  )
  trees = load_trees(directory)
  return {
      'experts': len(trees),
      'alternatives': sum(len(tree.nodes) - 1 for tree in trees),
      'budget': total(tree.budget for tree in trees).as_dict(),
  }


def _effort(config: Experiment) -> Effort:
  """A branch of one turn, and a reflection on it, for every alternative."""
  options, explore = config.early_experience, config.explore
  experts = explore.num_tasks
  found = experts * config.env.horizon * options.alternatives
  acted = Effort(experts + found, found * explore.max_response_tokens)
  return acted + asking(found, explore.max_reflection_tokens)


ALTERNATIVES = Phase(
    'alternatives',
    (*PLAY_READS, *ASK_READS, 'env.teacher', 'explore.num_tasks', 'explore.wave_tasks',
     *(f'early_experience.{name}' for name in (
         'alternatives', 'temperature', 'expert_attempts'))),
    branch_out, _effort, after=(BASE, stage1.SAMPLE.name),
)  # fmt: skip


def _trees(run: Run) -> list[Tree]:
  return load_trees(run.directory.phase(ALTERNATIVES.name).dir)


def model_world(run: Run, directory: pathlib.Path) -> dict:
  """The first part of iwm: training on the world's answers."""
  share = run.config.early_experience.iwm_share
  steps = max(1, round(share * run.config.distill.steps))
  found = foresight.world_model(_trees(run), run.transcript)
  return _train(run, WORLD.name, directory, found, BASE, steps)


def imitate(phase: str, start: str, share: Callable[[Run], float]) -> Callable:
  """Training on the experts' actions, for a share of the updates."""

  def body(run: Run, directory: pathlib.Path) -> dict:
    steps = max(1, round(share(run) * run.config.distill.steps))
    found = foresight.imitation(_trees(run))
    return _train(run, phase, directory, found, start, steps)

  return body


def self_reflect(run: Run, directory: pathlib.Path) -> dict:
  """Training on the experts' actions and on the reflections that lead to them."""
  found = _reflected(run)
  steps = run.config.distill.steps
  result = _train(run, REFLECT.name, directory, found, BASE, steps)
  kept = sum(example.kind == foresight.REFLECTION for example in found)
  return {**result, 'reflections': kept}


def _reflected(run: Run) -> list[Example]:
  trees = _trees(run)
  return foresight.imitation(trees) + foresight.reflections(trees, run.transcript)


def _train(
    run: Run, phase: str, directory: pathlib.Path, found: Sequence[Example],
    start: str, steps: int,
) -> dict:  # fmt: skip
  if not found:
    raise EarlyEnd(
        f'phase {phase!r} has nothing to learn from: no expert could be retraced, or '
        'no alternative was taken; raise policy.max_length or explore.num_tasks.'
        + lengths.trouble(_trees(run), run.config)
    )
  hosts.first(lambda: dataset.write(directory / 'data', list(found)))
  return distill_on(run, phase, directory / 'data', start, {}, steps)


_AFTER = (BASE, ALTERNATIVES.name)
WORLD = Phase(
    'world_model', (*TRAIN_READS, _SHARE), model_world,
    lambda config: distilling(config, config.early_experience.iwm_share),
    after=_AFTER,
)
IMITATE = Phase(
    'distill/imitation', TRAIN_READS,
    imitate('distill/imitation', BASE, lambda run: 1.0), distilling, after=_AFTER,
)
FORESEE = Phase(
    'distill/iwm', (*TRAIN_READS, _SHARE),
    imitate(
        'distill/iwm', WORLD.name,
        lambda run: 1.0 - run.config.early_experience.iwm_share,
    ),
    lambda config: distilling(config, 1.0 - config.early_experience.iwm_share),
    after=(*_AFTER, WORLD.name),
)
REFLECT = Phase(
    'distill/self_reflection', TRAIN_READS, self_reflect, distilling, after=_AFTER
)
_COSTS = (ALTERNATIVES.name,)

ARMS = (
    Arm(
        'imitation', "an expert's actions alone", (ALTERNATIVES, IMITATE),
        IMITATE.name,
    ),
    Arm(
        'iwm', 'Early Experience: a world model first, then imitation',
        (ALTERNATIVES, WORLD, FORESEE), FORESEE.name, _COSTS,
    ),
    Arm(
        'self_reflection', 'Early Experience: imitation and grounded reflections',
        (ALTERNATIVES, REFLECT), REFLECT.name, _COSTS,
    ),
    # How the LEAFE paper combines them is not told: the union is our reading.
    Recipe('leafe_ee', beside=ALTERNATIVES, others=_reflected).arm(
        'LEAFE and Early Experience: the union of their examples'
    ),
)
