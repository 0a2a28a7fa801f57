"""Memory search as a world of `envs.api`: a shared library, light sessions."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api
from envs.memsearch import embedded, expert, hotpot, locomo, scoring
from envs.memsearch import view as view_lib
from envs.memsearch.library import Library, Memory, Question, deal, question_from_json
from envs.memsearch.view import ANSWER, KEYWORD, PAGE, PLAN, Command, View
from envs.options import check_choice, complete, defaults, refuse_foreign

SOURCES = ('embedded', 'locomo', 'hotpot')
VIEWS = ('compact', 'text')
# Memories of a file that train and validate: LoCoMo has ten conversations.
_DEALT = {'locomo': (1, 1), 'hotpot': (25, 25)}
_LEAST = {
    'budget': 1, 'hits': 1, 'max_steps': 0, 'max_page_chars': 200,
    'train_memories': 0, 'validation_memories': 0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class State:
  """Of a session.

  Attributes:
    question: what is asked.
    searches: how many were made.
    steps: actions so far.
    score: of the answer; None before it.
  """

  question: Question
  searches: int = 0
  steps: int = 0
  score: float | None = None


class MemSearchSession(api.TextEnv):
  """One question; its whole state is a `State`."""

  def __init__(self, world: MemSearchWorld):
    self._world = world
    self._state: State | None = None

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    """Asks the question. Nothing is random, so `seed` is unused."""
    del seed
    self._state = State(question_from_json(task.payload))
    return api.Step(self._world.opening(self._state.question), info={'valid': True})

  def step(self, action: str) -> api.Step:
    """Takes a command; what is none costs a step and changes nothing else."""
    if self._state is None:
      raise api.EpisodeOver('step before the first reset')
    if self._world.is_over(self._state):
      raise api.EpisodeOver('step after the end of the episode')
    self._state, observation, valid = self._world.take(self._state, action)
    return self._world.judge(self._state, observation, valid)

  def admissible(self) -> tuple[str, ...]:
    if self._state is None or self._world.is_over(self._state):
      return ()
    return self._world.admissible(self._state)

  def snapshot(self) -> api.Snapshot:
    if self._state is None:
      raise api.EpisodeOver('snapshot before the first reset')
    return api.Snapshot(self._world.name, self._state, sys.getsizeof(self._state))

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._world.name, State)
    self._state = snapshot.state


class MemSearchWorld(api.World):
  """The shared part: memories, their indices, the questions and the view.

  Attributes:
    name: identifies library and settings; snapshots carry it.
    view: see `envs.memsearch.view`.
  """

  def __init__(
      self, name: str, library: Library, view: View, source: str, budget: int,
      hits: int, max_steps: int, success_at: float,
  ):  # fmt: skip
    self.name = name
    self.view = view
    self._memories = library.memories
    self._source, self._budget, self._hits = source, budget, hits
    self._max_steps, self._success_at = max_steps, success_at
    self._tasks = {
        split: self._tasks_of(split, library.questions[split]) for split in api.SPLITS
    }

  def _tasks_of(self, split: str, questions: Sequence[Question]) -> Sequence[api.Task]:
    """A question that stands twice in a file is one task."""
    tasks = (self._task(split, question) for question in questions)
    return tuple({task.id: task for task in tasks}.values())

  def _task(self, split: str, question: Question) -> api.Task:
    # Its memory, its text and its answers name a task.
    digest = api.observation_hash(repr(sorted(question.to_json().items())))
    return api.Task(
        id=f'memsearch-{self._source}-{digest}', split=split,
        instruction=self.opening(question), payload=question.to_json(),
    )

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return self._tasks[split]

  def session(self) -> MemSearchSession:
    return MemSearchSession(self)

  def opening(self, question: Question) -> str:
    """The first observation."""
    return self.view.question(question, self._memory(question), self._budget)

  def _memory(self, question: Question) -> Memory:
    return self._memories[question.memory]

  def is_over(self, state: State) -> bool:
    return state.score is not None or 0 < self._max_steps <= state.steps

  def take(self, state: State, action: str) -> tuple[State, str, bool]:
    """(the state after an action, what is seen, whether it did anything)."""
    state = dataclasses.replace(state, steps=state.steps + 1)
    command = self.view.read(action)
    why = self._refusal(state, command)
    if command is None or why:
      return state, self.view.refused(why), False
    if command.verb == PLAN:
      return state, self.view.noted(), True
    if command.verb == ANSWER:
      question = state.question
      score = scoring.score(command.text, question.answers, question.rule)
      return dataclasses.replace(state, score=score), self.view.answered(score), True
    state = dataclasses.replace(state, searches=state.searches + 1)
    return state, self._search(state, command), True

  def _refusal(self, state: State, command: Command | None) -> str:
    """Why a command does nothing; '' if it does something."""
    if command is None:
      return view_lib.REFUSED
    if not command.text:
      return view_lib.NO_WORDS
    if command.verb in view_lib.SEARCHES and state.searches >= self._budget:
      return view_lib.EXHAUSTED
    if command.verb == PAGE and not self._memory(state.question).page(command.text):
      return view_lib.NO_PAGE
    return ''

  def _search(self, state: State, command: Command) -> str:
    memory, left = self._memory(state.question), self._budget - state.searches
    if command.verb == PAGE:
      opened = memory.page(command.text)
      assert opened is not None  # refused before
      return self.view.page(*opened, left)
    look = memory.keyword if command.verb == KEYWORD else memory.vector
    return self.view.found(look(command.text, self._hits), memory, left)

  def admissible(self, state: State) -> tuple[str, ...]:
    """The forms, with open places; and the pages."""
    verbs = [PLAN, ANSWER]
    pages: list[str] = []
    if state.searches < self._budget:
      verbs += [KEYWORD, view_lib.VECTOR]
      names = (page.id for page in self._memory(state.question).pages)
      pages = [self.view.write(PAGE, name) for name in names]
    return (*(self.view.write(verb, '<words>') for verb in verbs), *pages)

  def judge(self, state: State, observation: str, valid: bool) -> api.Step:
    """The step that led to `state`; the reward is the F1 of the answer."""
    answered, over = state.score is not None, self.is_over(state)
    score = state.score or 0.0
    info: dict[str, Any] = {'valid': valid}
    if over:
      info |= {'success': answered and score >= self._success_at, 'score': score}
      info |= {'kind': state.question.kind, 'searches': state.searches}
    return api.Step(
        observation, reward=score if answered else 0.0, terminated=answered,
        truncated=over and not answered, info=info,
    )

  def instructions(self) -> str:
    return self.view.rules(self._budget)

  def parse_response(self, response: str) -> str:
    return self.view.parse_response(response)

  def task_type(self, task: api.Task) -> str:
    """The kind of question; of what was never said that is not given away."""
    if self._source == 'embedded':
      return self.view.asked(task.instruction).kind
    return self._source

  def reference(self, task: api.Task) -> str:
    question = question_from_json(task.payload)
    return ' or '.join(question.answers) or scoring.UNKNOWN

  def plans(self, history: api.History) -> bool:
    """Until something was looked up."""
    commands = [self.view.read(action) for action in history.actions]
    return all(command is None or command.verb == PLAN for command in commands)

  def vocabulary(self) -> Sequence[str]:
    """Every word of the compact view; the text view is for language models."""
    if not isinstance(self.view, view_lib.CompactView):
      return super().vocabulary()
    sessions = max(len(memory.pages) for memory in self._memories.values())
    words = self.view.vocabulary(sessions, self._budget)
    return tuple(dict.fromkeys([*words, *expert.WORDS]))

  def teacher(self, **options: Any) -> api.Teacher:
    """Of the generated conversations alone, in the view's own words."""
    if self._source != 'embedded':
      return super().teacher(**options)
    if isinstance(self.view, view_lib.CompactView):
      return expert.MemoryTeacher(self.view, self._budget, **options)
    return expert.SpokenMemoryTeacher(self.view, self._budget, **options)


def make(
    source: str = 'embedded',
    data_path: str = '',
    view: str = '',
    budget: int = 3,
    hits: int = 3,
    max_steps: int = 0,
    max_page_chars: int = 6000,
    success_at: float = 1.0,
    train_memories: int = 0,
    validation_memories: int = 0,
    **options: Any,
) -> MemSearchWorld:
  """The world of a source of memories.

  Args:
    source: 'embedded' (generated, needs no data), 'locomo' or 'hotpot'.
    data_path: the file, see `locomo` and `hotpot`; of these alone.
    view: 'compact' (embedded only) or 'text'; empty for 'compact' with the embedded
      and 'text' with other sources.
    budget: keyword, vector and page look-ups in all (arXiv 2605.13486: 3 rounds).
    hits: passages per search.
    max_steps: the environment's own limit, 0 for none.
    max_page_chars: of a page in the text view.
    success_at: F1 from which an answer is a success.
    train_memories, validation_memories: conversations of LoCoMo, or questions of
      HotpotQA, that are not for the test, in the order of the file; 0 for 1 each of
      LoCoMo and 25 each of HotpotQA.
    **options: of `embedded.build`; embedded only.

  Raises:
    ValueError: names the bad option and the choices; `library.BadFile` what is wrong
      in a file.
    FileNotFoundError: there is no file.
  """
  check_choice('source', source, SOURCES)
  view = view or ('compact' if source == 'embedded' else 'text')
  check_choice('view', view, VIEWS if source == 'embedded' else ('text',))
  _check_bounds(locals())
  options = complete(make, defaults(embedded.build) if source == 'embedded' else {},
                     options)
  if source == 'embedded':
    refuse_foreign(
        make, "source='locomo' or 'hotpot'", f'source={source!r}', data_path=data_path,
        train_memories=train_memories, validation_memories=validation_memories,
    )
    library = embedded.build(**options)
  else:
    library = _load(source, data_path, train_memories, validation_memories)
  shown = view_lib.CompactView() if view == 'compact' else view_lib.TextView(
      max_page_chars)
  settings = (view, budget, hits, max_steps, max_page_chars, success_at,
              sorted(library.memories))
  name = f'memsearch-{source}-{api.observation_hash(repr(settings))[:8]}'
  return MemSearchWorld(
      name, library, shown, source, budget, hits, max_steps, success_at
  )


def _check_bounds(given: Mapping[str, Any]) -> None:
  """ValueError names the option that is out of range."""
  for name, least in _LEAST.items():
    if given[name] < least:
      raise ValueError(f'{name} is {given[name]}; it must be at least {least}')
  if not 0 < given['success_at'] <= 1:
    raise ValueError(
        f'success_at is {given["success_at"]}; it must be above 0 and at most 1'
    )


def _load(source: str, data_path: str, train: int, validation: int) -> Library:
  if not data_path:
    raise ValueError(f'source={source!r} needs data_path, the JSON file')
  load = locomo.load if source == 'locomo' else hotpot.load
  usual = _DEALT[source]
  return deal(load(data_path), train or usual[0], validation or usual[1])
