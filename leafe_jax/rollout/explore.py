"""Stage 1: many trees at once, in waves that are saved when complete.

Between two polls some running episodes take a turn or are reflected on, their
branch requests are queued, and free rows are filled from the trees' queues; all
others are with the sampler meanwhile. All choices are functions of the run's
seed and the tasks of the wave, so an interrupted wave that is explored again is
the same wave.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from envs import api
from leafe_jax.config import Explore
from leafe_jax.rollout.episode import Episode, Player, attempt, first_prompt
from leafe_jax.rollout.grow import Growth, Limits
from leafe_jax.rollout.play import Rows, submit_turn
from leafe_jax.rollout.reflect import submit_question
from leafe_jax.sampler import Rules, State
from leafe_jax.tree import Tree

_POLLS_PER_ROUND = 4  # looking at all trees costs as much as stepping some rows


def prefill_roots(player: Player, tasks: Sequence[api.Task]) -> list[State | None]:
  """h_1 of every task, read once however many episodes share it.

  A wave begins here: all pages are forgotten first, so that it is a function of
  its own requests, whatever this process did before.

  None for a task that cannot be opened: its episodes will say why.
  """
  player.sampler.forget()
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
  course = _Course(player, growths, rules, reflect_rules, rows)
  polls = 0
  while course.join():
    course.rows.poll()
    polls += 1
    if polls % _POLLS_PER_ROUND == 0:
      on_round([growth.billed() for growth in growths])
  return [growth.billed() for growth in growths]


class _Course:
  """The episodes in progress: act, observe, reflect, act again."""

  def __init__(
      self,
      player: Player,
      growths: Sequence[Growth],
      rules: Rules,
      reflect_rules: Rules,
      limit: int,
  ):
    self._player = player
    self._growths = growths
    self._rules = rules
    self._reflect_rules = reflect_rules
    self._limit = limit
    self._active = 0
    self.rows = Rows(player.sampler)

  def join(self) -> bool:
    """Fills free rows round-robin over the trees; whether any episode runs."""
    joined = True
    while joined and self._active < self._limit:
      joined = False
      for growth in self._growths:
        if self._active >= self._limit:
          break
        episode = growth.start_next()
        if episode is not None:
          self._active += 1
          self._act(growth, episode)
          joined = True
    return bool(self._active)

  def _act(self, growth: Growth, episode: Episode) -> None:
    then = functools.partial(self._observe, growth, episode)
    submit_turn(
        self._player, self.rows, growth.task.id, episode, self._rules, 'act', then
    )

  def _observe(self, growth: Growth, episode: Episode) -> None:
    question = growth.observe(episode)
    if question is None:
      self._go_on(growth, episode)
      return

    def accept() -> None:
      growth.accept(question)
      self._go_on(growth, episode)

    submit_question(self._player, self.rows, question, self._reflect_rules, accept)

  def _go_on(self, growth: Growth, episode: Episode) -> None:
    if episode.over:
      self._active -= 1
    else:
      self._act(growth, episode)
