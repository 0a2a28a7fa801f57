"""Which turns were good or bad, and what is learnt from them (arXiv 2605.13486).

Three judges of the same turns:

* self: a chat policy scores every turn by four rubrics of 0 to 3, told the right
  answer; those that stand out it is asked to write up, as IF .. THEN .. with the
  situation. The policy may have other weights (`r2mem.judge_params`).
* reflections: a failed episode is asked for (tau, e), as in Stage 1 of LEAFE; turn
  tau earned nothing, and e is what is learnt. For small word-level policies, which
  neither score nor rewrite. They find no good turns.
* script: the world's scripted teacher agrees with a turn, which earns all points, or
  not, which earns none; its advice there is what is learnt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from envs import api
from leafe_jax.config import R2Mem
from leafe_jax.memory.banks import (
  MOST_POINTS,
  PLANNING,
  REFLECTION,
  TURNS,
  Banks,
  extremes,
)
from leafe_jax.methods import reflector
from leafe_jax.methods.asking import ask_all, read_object
from leafe_jax.rollout.answers import CutOff
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.outcome import attempt
from leafe_jax.sampler import Rules
from leafe_jax.text.transcript import ReflectionError
from leafe_jax.tree import Node, Turn

RUBRICS = {
    PLANNING: ('coverage', 'non_redundancy', 'tool_fit', 'efficiency'),
    REFLECTION: ('sufficiency_judgement', 'minimality', 'follow_up', 'completeness'),
    TURNS: ('progress', 'grounding', 'non_redundancy', 'efficiency'),
}
_MOST = 3  # points of a rubric
_WRITTEN = ('situation', 'experience')
_JUDGE = """\
Judge one step of an agent.

Task: {task}
The right outcome, which the agent was not told: {reference}

What it saw and did, step by step:
{episode}

How it ended: {outcome}

Score step {turn}, "{response}", from 0 (bad) to 3 (good) for each of: {rubrics}. \
Answer with one JSON object with these keys and whole numbers, and nothing else."""
_WRITE = """\
Learn from one step of an agent, which was judged {verdict} ({points} of 12 points).

Task: {task}

What it saw and did, step by step:
{episode}

Write what other tasks can use of step {turn}, "{response}": names and facts of this \
task do not belong there. Answer with one JSON object and nothing else, with the keys \
"thinking", "summary", "situation" (where such a step is taken, in a sentence), \
"condition" (what must hold) and "experience" (IF ... THEN ..., {what})."""
_WHAT = {True: 'what to do again', False: 'what to avoid, and what to do instead'}


@dataclasses.dataclass(frozen=True)
class Judged:
  """A turn and what it earned.

  Attributes:
    task, node, turn: which turn it is.
    bank: that it belongs to.
    points: 0 to 12.
    text: what is learnt from it; None: it is still to be written.
  """

  task: api.Task
  node: Node
  turn: Turn
  bank: str
  points: int
  text: str | None = None

  @property
  def source(self) -> str:
    return f'{self.task.id} episode {self.node.id} turn {self.turn.index}'


@dataclasses.dataclass(frozen=True)
class Court:
  """All that judges need.

  Attributes:
    player: who is asked.
    world: of the tasks.
    teacher: its script, where that judges.
    config: how is judged.
    by_module: whether planning and reflection have banks of their own.
    reflection: sampling of reflections.
    banks: that what cannot be read is logged in.
    step: of the phase.
    ledger: pays.
  """

  player: Player
  world: api.World
  teacher: api.Teacher | None
  config: R2Mem
  by_module: bool
  reflection: Rules
  banks: Banks
  step: int
  ledger: Ledger

  def bank_of(self, task: api.Task, node: Node, turn: Turn) -> str:
    if not self.by_module:
      return TURNS
    return PLANNING if self.world.plans(before(task, node, turn)) else REFLECTION

  def judged(self, task: api.Task, node: Node, turn: Turn, points: int,
             text: str | None = None) -> Judged:  # fmt: skip
    bank = self.bank_of(task, node, turn)
    return Judged(task, node, turn, bank, points, text)

  def reject(self, text: str, reason: str) -> None:
    self.banks.reject(text, reason, self.step)

  def ask(self, role: str, temperature: float, prompts: Sequence[tuple[str, str]],
          read: Callable[[str], Any]) -> list[Any]:  # fmt: skip
    if not prompts:
      return []
    stops = self.player.transcript.stop_ids
    rules = Rules(temperature, self.config.max_write_tokens, stops)
    return ask_all(
        self.player, role, rules, prompts, read, self.reject, self.step, self.ledger
    )


def before(task: api.Task, node: Node, turn: Turn) -> api.History:
  """What the agent knew before a turn of a root."""
  past = node.turns[: turn.index - 1]
  seen = (*(t.observation for t in past), turn.observation)
  return api.History(task.instruction, seen, tuple(t.action or '' for t in past))


# --- who judges


def by_rubrics(
    court: Court, episodes: Sequence[tuple[api.Task, Node]]
) -> list[Judged]:
  """Every turn whose verdict could be read."""
  turns = [
      court.judged(task, node, turn, 0)
      for task, node in episodes
      for turn in node.turns
  ]
  found: dict[int, dict[str, int]] = {}
  for bank, rubrics in RUBRICS.items():
    asked = [n for n, judged in enumerate(turns) if judged.bank == bank]
    prompts = [(turns[n].source, _judge_prompt(court, turns[n])) for n in asked]

    def read(text: str, rubrics: tuple[str, ...] = rubrics) -> dict[str, int]:
      return read_verdict(text, rubrics)

    verdicts = court.ask('judge', court.config.judge_temperature, prompts, read)
    found |= {n: v for n, v in zip(asked, verdicts, strict=True) if v is not None}
  return [
      dataclasses.replace(judged, points=sum(found[n].values()))
      for n, judged in enumerate(turns) if n in found
  ]  # fmt: skip


def read_verdict(text: str, rubrics: Sequence[str]) -> dict[str, int]:
  """Points by rubric. ValueError where one is missing or no whole number of 0 to 3."""
  found = read_object(text)
  for rubric in rubrics:
    points = found.get(rubric)
    if not isinstance(points, int) or isinstance(points, bool) or not (
        0 <= points <= _MOST):
      raise ValueError(f'{rubric} is {points!r}; it must be 0, 1, 2 or 3')
  return {rubric: found[rubric] for rubric in rubrics}


def _judge_prompt(court: Court, judged: Judged) -> str:
  node = judged.node
  return _JUDGE.format(
      task=judged.task.instruction,
      reference=court.world.reference(judged.task) or '(not known)',
      episode=reflector.compact(node), turn=judged.turn.index,
      outcome=f'score {node.score:.2f}, {"success" if node.success else "failure"}',
      response=judged.turn.response, rubrics=', '.join(RUBRICS[judged.bank]),
  )


def by_reflections(
    court: Court, episodes: Sequence[tuple[api.Task, Node]]
) -> list[Judged]:
  """The turn that each failed episode names."""
  failed = [
      (task, node) for task, node in episodes
      if not node.success and node.ended_by not in ('error', 'overlong')
  ]  # fmt: skip
  samples = reflector.reflect_on(court.player, failed, court.reflection, court.ledger)
  found = []
  for (task, node), sample in zip(failed, samples, strict=True):
    try:
      read = reflector.read_reflection(court.player, node, sample)
    except (ReflectionError, CutOff) as error:
      court.reject(court.player.transcript.text(sample.tokens), str(error))
      continue
    turn = node.turns[(read.tau or 1) - 1]
    found.append(court.judged(task, node, turn, 0, read.experience))
  return found


def by_script(
    court: Court, episodes: Sequence[tuple[api.Task, Node]]
) -> list[Judged]:
  """Every turn that the script can say something of."""
  teacher = court.teacher
  assert teacher is not None
  found = []
  for task, node in episodes:
    for turn in node.turns:
      history = before(task, node, turn)
      better, error = attempt(lambda history=history: teacher.correct(history))
      if better is None:
        court.reject(turn.response, f'the script broke: {error}')
        continue
      points = MOST_POINTS if better == turn.action else 0
      text = teacher.advise(history, better)
      found.append(court.judged(task, node, turn, points, text))
  return found


JUDGES = {'self': by_rubrics, 'reflections': by_reflections, 'script': by_script}


# --- what is kept


def select(judged: Sequence[Judged], config: R2Mem, by_module: bool,
           whole: bool) -> list[tuple[Judged, bool]]:  # fmt: skip
  """(turn, whether it is good) of those that stand out.

  Args:
    judged: turns of a step.
    config: its thresholds, or its share.
    by_module: take the thresholds, as in the paper; else the share at both ends.
    whole: nothing but bad turns was looked for: all are kept.
  """
  if by_module or whole:
    return [
        (turn, turn.points >= config.good_from) for turn in judged
        if turn.points >= config.good_from or turn.points <= config.bad_to
    ]  # fmt: skip
  high, low = extremes([turn.points for turn in judged], config.keep_share)
  return [(judged[n], n in high) for n in sorted([*high, *low])]


def learn(court: Court, kept: Sequence[tuple[Judged, bool]]) -> int:
  """Writes what is to be written and puts it into the banks; how many came in."""
  before_it = len(court.banks)
  open_ones = [(turn, good) for turn, good in kept if turn.text is None]
  prompts = [(turn.source, _write_prompt(turn, good)) for turn, good in open_ones]
  written = court.ask('learner', court.config.write_temperature, prompts, read_written)
  texts = {t.source: w for (t, _), w in zip(open_ones, written, strict=True)}
  for turn, good in kept:
    if turn.text is not None:
      told = {'situation': turn.turn.observation, 'experience': turn.text}
    else:
      told = texts[turn.source]
    if told is not None:
      court.banks.add(
          turn.bank, good, turn.points, told['situation'], told.get('condition', ''),
          told['experience'], turn.source, court.step,
      )  # fmt: skip
  return len(court.banks) - before_it


def _write_prompt(judged: Judged, good: bool) -> str:
  return _WRITE.format(
      verdict='good' if good else 'bad', points=judged.points, what=_WHAT[good],
      task=judged.task.instruction, episode=reflector.compact(judged.node),
      turn=judged.turn.index, response=judged.turn.response,
  )


def read_written(text: str) -> dict[str, str]:
  """Situation, condition and experience. ValueError where one of them is no text."""
  found = read_object(text)
  for name in _WRITTEN:
    if not isinstance(found.get(name), str) or not found[name].strip():
      raise ValueError(f'{name} is {found.get(name)!r}; it must be a text')
  condition = found.get('condition')
  told = {name: found[name] for name in _WRITTEN}
  return {**told, 'condition': condition if isinstance(condition, str) else ''}
