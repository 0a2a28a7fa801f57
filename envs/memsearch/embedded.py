"""Generated conversations whose facts change: the default that needs no data.

They are built to have the failure that reflection and rollback address. A person's
city is Paris in session 2 and Rome in session 5, and each is said with one of two
words (city, town): whoever searches for one word alone finds a value that may be
out of date and sees nothing wrong with it. There are four kinds of questions:

    now      the value that was said last
    first    the value that was said first
    friend   the present value of a person's friend, who must be found out first
    never    it was never said

A conversation has its own people and values; splits share none of them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence

from envs.api import SPLITS
from envs.memsearch.library import Library, Memory, Page, Passage, Question
from envs.memsearch.scoring import UNKNOWN

NAMES = (
    'ann', 'bob', 'carla', 'dan', 'eva', 'finn', 'gina', 'hugo', 'iris', 'jack',
    'kim', 'leo', 'mona', 'nick', 'olga', 'paul',
)  # fmt: skip
# The two words for a thing, and its values.
TOPICS = {
    'city': ('town', ('paris', 'rome', 'oslo', 'cairo', 'lima', 'tokyo')),
    'pet': ('animal', ('cat', 'dog', 'parrot', 'rabbit', 'turtle', 'horse')),
    'job': ('work', ('nurse', 'baker', 'pilot', 'teacher', 'painter', 'farmer')),
    'dish': ('food', ('soup', 'pizza', 'curry', 'salad', 'pasta', 'sushi')),
    'sport': ('game', ('tennis', 'chess', 'rugby', 'golf', 'judo', 'hockey')),
    'car': ('van', ('volvo', 'fiat', 'honda', 'skoda', 'tesla', 'dacia')),
}  # fmt: skip
FRIEND = 'friend'
NOW, FIRST, NEVER = 'now', 'first', 'never'
KINDS = (NOW, FIRST, FRIEND, NEVER)
_CHAT = (
    'Good to hear from you.', 'What a long week.', 'Did you sleep well?',
    'Let us talk again soon.',
)  # fmt: skip
QUESTIONS = {
    NOW: 'What is the {topic} of {name} now?',
    FIRST: 'What was the first {topic} of {name}?',
    FRIEND: 'What is the {topic} of the friend of {name} now?',
}


@dataclasses.dataclass(frozen=True)
class Fact:
  """What a person says of themselves in a session."""

  session: int
  name: str
  word: str
  value: str

  def sentence(self) -> str:
    name, value = self.name.capitalize(), self.value
    return f'{name}: My {self.word} is {value.capitalize()}.'

  def brief(self) -> str:
    return f'{self.name} {self.word} {self.value}'


def build(
    people: int = 4,
    topics: int = 6,
    sessions: int = 6,
    max_changes: int = 2,
    change: float = 0.6,
    second_word: float = 0.5,
    questions_per_memory: int = 8,
    kinds: tuple[str, ...] = KINDS,
    train_questions: int = 960,
    validation_questions: int = 160,
    test_questions: int = 240,
    seed: int = 0,
) -> Library:
  """Generates conversations and questions; the same options give the same ones.

  Args:
    people: in each conversation.
    topics: how many of the things above they speak of.
    sessions: pages of a conversation.
    max_changes: how often a fact changes at most.
    change: chance of each of these changes.
    second_word: chance that the second word for a thing is used.
    questions_per_memory: asked about one conversation.
    kinds: of questions, see the module.
    train_questions, validation_questions, test_questions: sizes of the splits.
    seed: of the conversations, independent of a run's seed.

  Raises:
    ValueError: an option is out of range; names it.
  """
  _check(locals())
  rng = random.Random(f'memsearch/{seed}')
  sizes = dict(
      zip(SPLITS, (train_questions, validation_questions, test_questions), strict=True)
  )
  memories: dict[str, Memory] = {}
  questions: dict[str, tuple[Question, ...]] = {}
  for split, size in sizes.items():
    asked: list[Question] = []
    while len(asked) < size:
      talk = _Talk(rng, people, list(TOPICS)[:topics], sessions, max_changes, change,
                   second_word)  # fmt: skip
      memory = talk.memory(f'talk-{seed}-{split}-{len(asked)}')
      memories[memory.id] = memory
      asked += talk.questions(memory.id, kinds, questions_per_memory)
    questions[split] = tuple(asked[:size])
  return Library(memories, questions)


def _check(options: dict[str, object]) -> None:
  bounds = {
      'people': (2, len(NAMES)), 'topics': (1, len(TOPICS)), 'sessions': (1, 20),
      'max_changes': (0, 5), 'change': (0, 1), 'second_word': (0, 1),
      'questions_per_memory': (1, 1000), 'train_questions': (0, 10**6),
      'validation_questions': (0, 10**6), 'test_questions': (0, 10**6),
  }  # fmt: skip
  for name, (least, most) in bounds.items():
    value = options[name]
    if not least <= value <= most:  # type: ignore[operator]
      raise ValueError(f'{name} is {value}; it must be between {least} and {most}')
  kinds = options['kinds']
  unknown = [kind for kind in kinds if kind not in KINDS]  # type: ignore[union-attr]
  if unknown or not kinds:
    raise ValueError(f'kinds is {kinds}; choose from {", ".join(KINDS)}')


class _Talk:
  """One conversation, fact by fact."""

  def __init__(
      self, rng: random.Random, people: int, topics: Sequence[str], sessions: int,
      max_changes: int, change: float, second_word: float,
  ):  # fmt: skip
    self._rng, self._sessions, self._topics = rng, sessions, topics
    self._names = rng.sample(NAMES, people)
    self._friends = {
        name: rng.choice([other for other in self._names if other != name])
        for name in self._names
    }
    # One thing of each person is never spoken of.
    self._silent = {name: rng.choice(topics) for name in self._names}
    self._series = {
        (name, topic): self._values(name, topic, max_changes, change, second_word)
        for name in self._names
        for topic in topics
        if len(topics) == 1 or topic != self._silent[name]
    }

  def _values(
      self, name: str, topic: str, max_changes: int, change: float, second_word: float
  ) -> list[Fact]:
    rng = self._rng
    count = 1 + sum(rng.random() < change for _ in range(max_changes))
    second, values = TOPICS[topic]
    count = min(count, self._sessions, len(values))
    when = sorted(rng.sample(range(1, self._sessions + 1), count))
    return [
        Fact(session, name, second if rng.random() < second_word else topic, value)
        for session, value in zip(when, rng.sample(values, count), strict=True)
    ]

  def memory(self, name: str) -> Memory:
    said = [fact for series in self._series.values() for fact in series]
    said += [
        Fact(self._rng.randint(1, self._sessions), who, FRIEND, friend)
        for who, friend in self._friends.items()
    ]
    self._rng.shuffle(said)
    pages = []
    for session in range(1, self._sessions + 1):
      lines = [(fact.sentence(), fact.brief()) for fact in said
               if fact.session == session]
      speaker = self._rng.choice(self._names)
      chat = f'{speaker.capitalize()}: {self._rng.choice(_CHAT)}'
      lines.insert(0, (chat, f'{speaker} hello'))
      passages = tuple(
          Passage(f'D{session}:{number}', f'D{session}', *line)
          for number, line in enumerate(lines, start=1)
      )
      pages.append(Page(f'D{session}', f'session {session}', passages))
    return Memory(name, tuple(pages))

  def questions(
      self, memory: str, kinds: Sequence[str], count: int
  ) -> Iterator[Question]:
    """As many as there are, at most `count`; the kinds take turns."""
    pools = {kind: list(self._askable(kind)) for kind in kinds}
    for pool in pools.values():
      self._rng.shuffle(pool)
    left = count
    while left and any(pools.values()):
      for kind in [kind for kind in kinds if pools[kind]][:left]:
        name, topic, answers = pools[kind].pop()
        yield Question(memory, ask(kind, name, topic), answers, kind, 'squad')
        left -= 1

  def _askable(self, kind: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for name in self._names:
      if kind == NEVER:
        if (name, self._silent[name]) not in self._series:
          yield name, self._silent[name], ()
        continue
      subject = self._friends[name] if kind == FRIEND else name
      for topic in self._topics:
        if series := self._series.get((subject, topic)):
          yield name, topic, (series[0 if kind == FIRST else -1].value,)


def ask(kind: str, name: str, topic: str) -> str:
  """The question in a sentence; of what was never said as if it had been."""
  kind = NOW if kind == NEVER else kind
  return QUESTIONS[kind].format(name=name.capitalize(), topic=topic)


def words() -> tuple[str, ...]:
  """Every word of the generated facts, none twice."""
  found = [*NAMES, FRIEND, 'hello', NOW, FIRST, *UNKNOWN.split()]
  for topic, (second, values) in TOPICS.items():
    found += [topic, second, *values]
  return tuple(dict.fromkeys(found))
