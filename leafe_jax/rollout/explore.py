"""Stage 1: many trees at once, in waves that are saved when complete.

Between two polls some running episodes take a turn or are reflected on, their
branch requests are queued, and free rows are filled from the trees' queues; all
others are with the sampler meanwhile. All choices are functions of the run's
seed and the tasks of the wave, so an interrupted wave that is explored again is
the same wave.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence

from absl import logging

from envs import api
from leafe_jax.config import Explore
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.episode import Episode, Player, first_prompt
from leafe_jax.rollout.grow import Growth, Limits
from leafe_jax.rollout.ledger import warn_of_overlong
from leafe_jax.rollout.outcome import Outcome
from leafe_jax.rollout.play import Rows, open_episodes, take_actions, turn_request
from leafe_jax.rollout.reflect import Question, question_request, read_answer
from leafe_jax.rollout.timing import Meter
from leafe_jax.sampler import Rules, State
from leafe_jax.text.transcript import UnknownWords
from leafe_jax.tree import Tree

# Looking at all trees costs as much as stepping some rows: the more trees there
# are, the more polls lie between two looks.
_POLLS_PER_ROUND, _TREES_PER_POLL = 4, 16


def prefill_roots(
    player: Player,
    crew: Crew,
    tasks: Sequence[api.Task],
    memories: Callable[[api.Task], Iterable[str]] = lambda task: ('',),
) -> list[dict[str, State]]:
  """h_1 of every task under each of its memories, read once for all episodes.

  A wave begins here: all pages are forgotten first, so that it is a function of
  its own requests, whatever this process did before.

  Nothing of a task that cannot be opened: its episodes will say why. A prompt that
  is longer than a transcript may be is left unread: its episodes end as overlong.
  """
  player.sampler.forget()
  world = player.world

  def reset(task: api.Task, outcome: Outcome) -> None:
    session = world.session()
    outcome.step = api.checked(session.reset(task), world, task)
    session.close()

  outcomes = crew.run([(task.id, functools.partial(reset, task)) for task in tasks])
  states: dict[tuple[int, str], State] = {}
  for i, (task, outcome) in enumerate(zip(tasks, outcomes, strict=True)):
    if outcome.step is None:
      continue
    for memory in memories(task):
      with contextlib.suppress(UnknownWords):  # its episodes will say which
        ids = first_prompt(player, task, outcome.step.observation, memory)
        states[i, memory] = player.sampler.extend(player.sampler.empty(), ids)
  fitting = {key: state for key, state in states.items() if player.sampler.fits(state)}
  read = player.sampler.prefill(list(fitting.values()))
  states.update(zip(fitting, read, strict=True))
  found: list[dict[str, State]] = [{} for _ in tasks]
  for (i, memory), state in states.items():
    found[i][memory] = state
  return found


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
    on_round: shown the trees every few turns, as far as they have grown.

  Returns:
    The trees. Of the tasks that another process plays they may lack the turns'
    contents, see `Growth`.
  """
  meter = Meter(player.clock, lambda: player.sampler.stats)
  crew = Crew(tasks, player.clock, player.world)
  roots = prefill_roots(player, crew, tasks)
  growths = [
      Growth(player, task, root.get(''), config, limits(task), crew.plays(task.id))
      for task, root in zip(tasks, roots, strict=True)
  ]
  course = _Course(player, crew, growths, config, rows)
  polls, interval = 0, max(_POLLS_PER_ROUND, len(tasks) // _TREES_PER_POLL)
  while course.join():
    course.poll()
    if polls % interval == 0:
      on_round([growth.billed() for growth in growths])
    polls += 1
  trees = [growth.billed() for growth in growths]
  on_round(trees)
  logging.info('%d trees in %s', len(trees), meter)
  warn_of_overlong(growth.ledger for growth in growths)
  return trees


class _Course:
  """The episodes in progress: act, observe, reflect, act again.

  A row that is with the sampler samples an action, or answers a question.
  """

  def __init__(
      self, player: Player, crew: Crew, growths: Sequence[Growth], config: Explore,
      limit: int,
  ):
    stop_ids = player.transcript.stop_ids
    self._player = player
    self._crew = crew
    self._growths = list(growths)
    self._rules = Rules(config.temperature, config.max_response_tokens, stop_ids)
    self._reflect_rules = Rules(
        config.reflect_temperature, config.max_reflection_tokens, stop_ids
    )
    self._limit = limit
    self._rows: Rows[tuple[Growth, Episode, Question | None]] = Rows(player)

  def join(self) -> bool:
    """Fills free rows; whether any episode runs.

    An episode that cannot be opened leaves its row again.
    """
    while joining := _choose(self._growths, self._limit - len(self._rows)):
      open_episodes(self._crew, [(g.task.id, episode) for g, episode in joining])
      for growth, episode in joining:
        if not episode.over:
          self._act(growth, episode)
        elif growth.lost() and growth in self._growths:  # its world is gone
          self._growths.remove(growth)
    return bool(self._rows)

  def poll(self) -> None:
    """Takes the samples that come next to where they belong."""
    polled = self._rows.poll()
    acting = [(g, e, sample) for (g, e, asked), sample in polled if asked is None]
    take_actions(self._crew, [(g.task.id, e, sample) for g, e, sample in acting])
    for growth, episode, _ in acting:
      self._ask_or_act(growth, episode, growth.observe(episode))
    for (growth, episode, asked), sample in polled:
      if asked is None:
        continue
      if read_answer(self._player, asked, sample):
        growth.accept(asked)
        asked = None
      self._ask_or_act(growth, episode, asked)

  def _ask_or_act(
      self, growth: Growth, episode: Episode, question: Question | None
  ) -> None:
    if question is not None:
      request = question_request(self._player, question)
      self._rows.submit((growth, episode, question), request, self._reflect_rules)
    elif not episode.over:
      self._act(growth, episode)

  def _act(self, growth: Growth, episode: Episode) -> None:
    request = turn_request(self._player, growth.task.id, episode, 'act')
    self._rows.submit((growth, episode, None), request, self._rules)


def _choose(growths: Sequence[Growth], rows: int) -> list[tuple[Growth, Episode]]:
  """Next episodes, round-robin over the trees, so that all grow together."""
  chosen: list[tuple[Growth, Episode]] = []
  joined = True
  while joined and len(chosen) < rows:
    joined = False
    for growth in growths:
      if len(chosen) >= rows:
        break
      episode = growth.start_next()
      if episode is not None:
        chosen.append((growth, episode))
        joined = True
  return chosen
