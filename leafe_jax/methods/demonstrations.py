"""Scripted data for a base policy that starts from scratch.

A stand-in for an instruction-tuned model that can say what it does not yet
do: demonstrations of limited quality, reflection dialogues on them, and turns
in which a hint is followed. The teacher sees only what the agent sees
(`envs.api.Teacher`).
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from absl import logging

from envs import api
from leafe_jax import stops
from leafe_jax.config import WarmStart
from leafe_jax.endings import RunStopped
from leafe_jax.experience import examples
from leafe_jax.rollout.outcome import attempt
from leafe_jax.text.transcript import Transcript, UnknownWords

T = TypeVar('T')

MAX_BROKEN = 10


@dataclasses.dataclass(frozen=True)
class Demonstration:
  """A scripted episode: what was seen and done, and how it ended."""

  task: api.Task
  history: api.History
  success: bool

  def before(self, turn: int) -> api.History:
    """What was known before action `turn` (from 1)."""
    return api.History(
        self.history.instruction,
        self.history.observations[:turn],
        self.history.actions[: turn - 1],
    )

  def responses(self, teacher: api.Teacher) -> tuple[str, ...]:
    """What `teacher` says to take the actions."""
    actions = enumerate(self.history.actions, start=1)
    return tuple(teacher.say(self.before(turn), action) for turn, action in actions)

  def after(self, turn: int) -> api.History:
    """What was known after action `turn` was answered."""
    return api.History(
        self.history.instruction,
        self.history.observations[: turn + 1],
        self.history.actions[:turn],
    )


class Script:
  """One training sequence under construction: pieces with their weights."""

  def __init__(self) -> None:
    self._pieces: list[tuple[Sequence[int], float]] = []

  def prompt(self, ids: Sequence[int]) -> None:
    self._pieces.append((ids, 0.0))

  def target(self, ids: Sequence[int]) -> None:
    self._pieces.append((ids, 1.0))

  def example(self, kind: str, task_id: str, turn: int) -> examples.Example:
    return examples.make(self._pieces, kind, task_id, turn=turn)


class BrokenDemonstration(RunStopped):
  """An episode that came to no end of its own; says what broke it."""


def demonstrate(
    world: api.World,
    task: api.Task,
    teacher: api.Teacher,
    horizon: int,
    rng: random.Random,
) -> Demonstration:
  """Plays one episode with the demonstrator.

  Raises:
    BrokenDemonstration: the environment or the teacher broke, or the environment
      answered with what is no step.
  """
  session, error = attempt(world.session)
  demo = None
  if session is not None:
    demo, error = attempt(
        lambda: _demonstrate(world, session, task, teacher, horizon, rng)
    )
    attempt(session.close)  # the log says what is wrong with its end
  if demo is None:
    raise BrokenDemonstration(f'a demonstration of task {task.id!r} broke: {error}')
  return demo


def _demonstrate(
    world: api.World,
    session: api.TextEnv,
    task: api.Task,
    teacher: api.Teacher,
    horizon: int,
    rng: random.Random,
) -> Demonstration:
  step = api.checked(session.reset(task), world, task)
  if step.terminated or step.truncated:
    raise api.BadStep(f'world {world.name!r}: the reset ends the episode')
  history = api.History(task.instruction, (step.observation,), ())
  while len(history.actions) < horizon and not (step.terminated or step.truncated):
    action = teacher.act(history, rng)
    step = api.checked(session.step(action), world, task)
    history = api.History(
        task.instruction,
        (*history.observations, step.observation),
        (*history.actions, action),
    )
  return Demonstration(task, history, step.success)


class Demonstrator:
  """Plays demonstrations, and leaves out those that break.

  Args:
    world, teacher, horizon, rng: as for `demonstrate`.
  """

  def __init__(
      self, world: api.World, teacher: api.Teacher, horizon: int, rng: random.Random
  ):
    self._play = functools.partial(
        demonstrate, world, teacher=teacher, horizon=horizon, rng=rng
    )
    self._broken = 0  # in a row

  def play(self, task: api.Task) -> Demonstration | None:
    """An episode; None for one that broke, which is logged.

    Raises:
      BrokenDemonstration: the last `MAX_BROKEN` all broke: the world is gone.
    """
    return self.write(task, lambda demo: demo)

  def write(self, task: api.Task, write: Callable[[Demonstration], T]) -> T | None:
    """What `write` makes of an episode; one that it cannot spell broke, too.

    Raises:
      BrokenDemonstration: as `play`.
    """
    try:
      written = _written(self._play(task), write)
    except BrokenDemonstration as error:
      self._broken += 1
      if self._broken >= MAX_BROKEN:
        raise
      logging.warning('%s; it is left out', error)
      return None
    self._broken = 0
    return written


def _written(demo: Demonstration, write: Callable[[Demonstration], T]) -> T:
  try:
    return write(demo)
  except UnknownWords as error:
    raise BrokenDemonstration(
        f'a demonstration of task {demo.task.id!r}: {error}; a world has to name all '
        'words that it and its teacher say (World.vocabulary)'
    ) from error


def warm_start_examples(
    world: api.World,
    transcript: Transcript,
    teacher: api.Teacher,
    tasks: Sequence[api.Task],
    horizon: int,
    reflect_every: int,
    config: WarmStart,
    rng: random.Random,
) -> Iterator[examples.Example]:
  """`config.num_demonstrations` episodes with dialogues, less those that break."""
  writer = Writer(world, transcript, teacher, reflect_every, config, rng)
  demonstrator = Demonstrator(world, teacher, horizon, rng)
  for i in range(config.num_demonstrations):
    stops.check('all finished phases are saved')
    task = tasks[i % len(tasks)]
    yield from demonstrator.write(task, lambda demo: [*writer.write(demo)]) or ()


class Writer:
  """Turns demonstrations into examples."""

  def __init__(
      self,
      world: api.World,
      transcript: Transcript,
      teacher: api.Teacher,
      reflect_every: int,
      config: WarmStart,
      rng: random.Random,
  ):
    self._rules = world.instructions()
    self._transcript = transcript
    self._teacher = teacher
    self._every = reflect_every
    self._config = config
    self._rng = rng

  def write(self, demo: Demonstration) -> Iterator[examples.Example]:
    yield self._episode(demo)
    if self._rng.random() < self._config.hint_share:
      yield self._hinted(demo)
    if self._every and self._rng.random() < self._config.in_progress_share:
      example = self._in_progress(demo)
      if example is not None:
        yield example

  def _episode(self, demo: Demonstration) -> examples.Example:
    """All actions as targets; a reflection at the end of a failure."""
    last = len(demo.history.actions)
    script = self._acts(demo, last)
    if not demo.success and self._rng.random() < self._config.reflection_share:
      diagnosis = self._teacher.diagnose(demo.history, True, self._rng)
      if diagnosis is not None:
        self._ask(script, demo, last, terminal=True, diagnosis=diagnosis)
    return script.example(examples.DEMONSTRATION, demo.task.id, last)

  def _in_progress(self, demo: Demonstration) -> examples.Example | None:
    """A reflection in the middle of an episode; actions are context only."""
    last = len(demo.history.actions)
    places = range(self._every, last, self._every)
    if not places:
      return None
    turn = self._rng.choice(places)
    script = self._acts(demo, turn, train=False)
    diagnosis = self._teacher.diagnose(demo.after(turn), False, self._rng)
    self._ask(script, demo, turn, terminal=False, diagnosis=diagnosis)
    return script.example('reflect', demo.task.id, turn)

  def _hinted(self, demo: Demonstration) -> examples.Example:
    """One turn in which a hint is shown and followed."""
    return self._correction(demo, 'hinted', shown=True)

  def corrected(self, demo: Demonstration, kind: str) -> examples.Example:
    """One turn with the script's own action and no hint."""
    return self._correction(demo, kind, shown=False)

  def _correction(
      self, demo: Demonstration, kind: str, shown: bool
  ) -> examples.Example:
    turn = self._rng.randint(1, len(demo.history.actions))
    history = demo.before(turn)
    action = self._teacher.correct(history)
    script = self._acts(demo, turn - 1, train=False)
    self._observe(script, demo, turn)
    if shown:
      script.prompt(self._transcript.hint(self._teacher.advise(history, action)))
    script.prompt(self._transcript.opener_ids)
    said = self._teacher.say(history, action)
    script.target(self._transcript.response(said))
    return script.example(kind, demo.task.id, turn)

  def acted(self, demo: Demonstration, kind: str) -> examples.Example:
    """All actions as targets."""
    last = len(demo.history.actions)
    return self._acts(demo, last).example(kind, demo.task.id, last)

  def _acts(self, demo: Demonstration, turns: int, train: bool = True) -> Script:
    """The transcript through action `turns`."""
    script = Script()
    write = script.target if train else script.prompt
    for turn in range(1, turns + 1):
      self._observe(script, demo, turn)
      script.prompt(self._transcript.opener_ids)
      action = demo.history.actions[turn - 1]
      said = self._teacher.say(demo.before(turn), action)
      write(self._transcript.response(said))
    return script

  def _observe(self, script: Script, demo: Demonstration, turn: int) -> None:
    observation = demo.history.observations[turn - 1]
    if turn == 1:
      ids = self._transcript.first(self._rules, demo.task.instruction, observation)
    else:
      ids = self._transcript.next(turn, observation)
    script.prompt(ids)

  def _ask(
      self,
      script: Script,
      demo: Demonstration,
      turn: int,
      terminal: bool,
      diagnosis: api.Diagnosis | None,
  ) -> None:
    self._observe(script, demo, turn + 1)
    script.prompt(self._transcript.reflection(turn, terminal))
    tau, experience = (
        (None, '') if diagnosis is None else (diagnosis.turn, diagnosis.experience)
    )
    text = self._transcript.reflection_response(tau, experience)
    script.target(self._transcript.response(text))
