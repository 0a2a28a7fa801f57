"""Stage 1: many trees at once, in waves that are saved when complete.

One round: every running episode takes a turn, the reflections that follow are
asked in one batch, their branch requests are queued, free rows are filled from
the trees' queues. All choices are functions of the run's seed and the tasks of
the wave, so an interrupted wave that is explored again is the same wave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envs import api
from leafe_jax.config import Explore
from leafe_jax.rollout.episode import Episode, Player, attempt, first_prompt
from leafe_jax.rollout.grow import Growth, Limits
from leafe_jax.rollout.play import take_turn
from leafe_jax.rollout.reflect import Question, reflect
from leafe_jax.sampler import Rules, State
from leafe_jax.tree import Tree


def prefill_roots(player: Player, tasks: Sequence[api.Task]) -> list[State | None]:
  """h_1 of every task, read once however many episodes share it.

  None for a task that cannot be opened: its episodes will say why.
  """
  session = player.world.session()
  states: dict[int, State] = {}
  for i, task in enumerate(tasks):
    step, _ = attempt(lambda task=task: session.reset(task))
    if step is not None:
      ids = first_prompt(player, task, step.observation)
      states[i] = player.sampler.extend(player.sampler.empty(), ids)
  session.close()
  read = dict(zip(states, player.sampler.prefill(list(states.values())), strict=True))
  return [read.get(i) for i in range(len(tasks))]


def explore(
    player: Player,
    tasks: Sequence[api.Task],
    config: Explore,
    limits: Callable[[api.Task], Limits],
    rows: int,
    on_round: Callable[[Sequence[Tree]], None] = lambda trees: None,
) -> list[Tree]:
  """Grows one tree per task; all tasks of one wave together.

  Args:
    player: the policy and the world.
    tasks: of the wave.
    config: the exploration's options.
    limits: what a task may spend.
    rows: most episodes that run at the same time.
    on_round: shown the trees after every round, as far as they have grown.
  """
  stop_ids = player.transcript.stop_ids
  rules = Rules(config.temperature, config.max_response_tokens, stop_ids)
  reflect_rules = Rules(
      config.reflect_temperature, config.max_reflection_tokens, stop_ids
  )
  roots = prefill_roots(player, tasks)
  growths = [
      Growth(player, task, root, config, limits(task))
      for task, root in zip(tasks, roots, strict=True)
  ]
  active: list[tuple[Growth, Episode]] = []
  while True:
    _join(active, growths, rows)
    if not active:
      return [growth.billed() for growth in growths]
    take_turn(player, [(g.task.id, e) for g, e in active], rules, 'act')
    _reflect(player, active, reflect_rules)
    active = [(g, e) for g, e in active if not e.over]
    on_round([growth.billed() for growth in growths])


def _join(
    active: list[tuple[Growth, Episode]], growths: Sequence[Growth], rows: int
) -> None:
  """Fills free rows round-robin over the trees, so that all grow together."""
  joined = True
  while joined and len(active) < rows:
    joined = False
    for growth in growths:
      if len(active) >= rows:
        return
      episode = growth.start_next()
      if episode is not None:
        active.append((growth, episode))
        joined = True


def _reflect(
    player: Player, active: Sequence[tuple[Growth, Episode]], rules: Rules
) -> None:
  asked: list[tuple[Growth, Question]] = []
  for growth, episode in active:
    question = growth.observe(episode)
    if question is not None:
      asked.append((growth, question))
  reflect(player, [question for _, question in asked], rules)
  for growth, question in asked:
    growth.accept(question)
