"""Lessons from hindsight, recalled by task and by what they were worth (2603.08561).

An episode's lesson is kept with its task. Recall weighs how much alike two tasks are
against the lesson's utility, which follows the outcomes of those who were shown it,
with a bonus for lessons that were seldom tried (SimUtil-UCB):

    S = alpha * cosine + (1 - alpha) * (u + kappa * sqrt(ln N / max(n, 1)))

N is the sum of n over all lessons. Tasks are compared by cosine, of their words or of
sentence embeddings.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leafe_jax.memory.banks import Vectors

SCHEMA_VERSION = 1
# What forgetting leaves of a utility, and of the lessons of a task.
_FADE, _KEPT = 0.9, 3
_DIGITS = 9  # of similarities and scores: processors differ in the last ones


@dataclasses.dataclass
class Lesson:
  """What an episode taught.

  Attributes:
    id: within the memory.
    task: what was asked for, which tasks are compared by.
    text: what is shown.
    utility: u, in [0, 1].
    uses: n, how often it was written or shown.
    success: whether the episode succeeded.
    source: task and episode that it was drawn from.
    step: of the training that drew it.
  """

  id: int
  task: str
  text: str
  utility: float
  uses: int
  success: bool
  source: str
  step: int


@dataclasses.dataclass(frozen=True)
class Weights:
  """How lessons are chosen and what becomes of them.

  Attributes:
    relevance: least similarity of tasks.
    alpha: weight of similarity against utility.
    kappa: weight of the bonus for lessons seldom tried.
    decay: beta_u, weight of the newest outcome in a utility.
    initial: utility of a new lesson.
    duplicate: similarity of tasks above which the same text is the same lesson.
  """

  relevance: float
  alpha: float
  kappa: float
  decay: float
  initial: float
  duplicate: float


class Lessons:
  """All lessons, in the order in which they were drawn.

  Attributes:
    lessons: by id.

  Args:
    vectors: makes the texts of tasks comparable.
    weights: see there.
  """

  def __init__(self, vectors: Callable[[Sequence[str]], Vectors], weights: Weights):
    self.lessons: dict[int, Lesson] = {}
    self._make_vectors, self._weights = vectors, weights
    self._next_id = 1
    self._places: dict[str, int] | None = None  # of tasks among the vectors
    self._vectors: Vectors | None = None

  def __len__(self) -> int:
    return len(self.lessons)

  def similar(self, task: str) -> dict[str, float]:
    """Cosine of every task that a lesson was drawn from with a task."""
    if self._vectors is None or self._places is None:
      texts = dict.fromkeys(lesson.task for lesson in self.lessons.values())
      self._places = {text: place for place, text in enumerate(texts)}
      self._vectors = self._make_vectors([*texts])
    scores = self._vectors.scores(task).round(_DIGITS)
    return {text: float(scores[place]) for text, place in self._places.items()}

  def _score(self, lesson: Lesson, cosine: float, curiosity: float) -> float:
    """S, `curiosity` being kappa * sqrt(ln N)."""
    alpha, bonus = self._weights.alpha, curiosity / math.sqrt(max(lesson.uses, 1))
    return alpha * cosine + (1 - alpha) * (lesson.utility + bonus)

  def recall(self, task: str, count: int, greedy: bool = False) -> list[Lesson]:
    """The best lessons for a task, no text twice; older ones first among equals.

    Args:
      task: its text.
      count: at most so many.
      greedy: without the bonus for lessons seldom tried.
    """
    if not count or not self.lessons:
      return []
    total = sum(lesson.uses for lesson in self.lessons.values())
    curiosity = 0.0 if greedy else self._weights.kappa * math.sqrt(math.log(total))
    cosines = self.similar(task)
    near = [
        lesson for lesson in self.lessons.values()
        if cosines[lesson.task] >= self._weights.relevance
    ]
    scores = {
        lesson.id: round(self._score(lesson, cosines[lesson.task], curiosity), _DIGITS)
        for lesson in near
    }
    near.sort(key=lambda lesson: (-scores[lesson.id], lesson.id))
    best: dict[str, Lesson] = {}
    for lesson in near:
      best.setdefault(lesson.text, lesson)
    return [*best.values()][:count]

  def add(
      self, task: str, text: str, success: bool, source: str, step: int
  ) -> Lesson:
    """Keeps a lesson; one that is there for such a task counts as tried again."""
    same = [lesson for lesson in self.lessons.values() if lesson.text == text]
    if same:
      cosines = self.similar(task)
      for lesson in same:
        if cosines[lesson.task] > self._weights.duplicate or lesson.task == task:
          self._try(lesson, self._weights.initial)
          return lesson
    lesson = Lesson(
        self._next_id, task, text, self._weights.initial, 1, success, source, step
    )
    self.lessons[lesson.id] = lesson
    self._next_id += 1
    if self._places is not None and task not in self._places:
      self._vectors = self._places = None
    return lesson

  def note(self, text: str, success: bool) -> None:
    """An episode that was shown this text came to its end."""
    for lesson in self.lessons.values():
      if lesson.text == text:
        self._try(lesson, float(success))

  def _try(self, lesson: Lesson, outcome: float) -> None:
    decay = self._weights.decay
    lesson.utility = (1 - decay) * lesson.utility + decay * outcome
    lesson.uses += 1

  def forget(self) -> None:
    """Keeps the best three lessons of each task, fades them, counts uses anew."""
    by_task: dict[str, list[Lesson]] = collections.defaultdict(list)
    for lesson in self.lessons.values():
      by_task[lesson.task].append(lesson)
    kept = {
        lesson.id for held in by_task.values()
        for lesson in sorted(held, key=lambda found: (-found.utility, found.id))[:_KEPT]
    }
    self.lessons = {i: lesson for i, lesson in self.lessons.items() if i in kept}
    self._vectors = self._places = None
    for lesson in self.lessons.values():
      lesson.utility *= _FADE
      lesson.uses = 1

  def to_json(self) -> dict[str, Any]:
    """JSON types; `from_json` reads them back."""
    return {
        'schema': SCHEMA_VERSION, 'next_id': self._next_id,
        'lessons': [dataclasses.asdict(lesson) for lesson in self.lessons.values()],
    }

  @classmethod
  def from_json(
      cls, record: Mapping[str, Any], vectors: Callable[[Sequence[str]], Vectors],
      weights: Weights,
  ) -> Lessons:  # fmt: skip
    """Inverse of `to_json`. ValueError on another schema version."""
    if record.get('schema') != SCHEMA_VERSION:
      raise ValueError(
          f'lessons schema {record.get("schema")!r}; this code reads {SCHEMA_VERSION}'
      )
    found = cls(vectors, weights)
    found._next_id = record['next_id']
    found.lessons = {held['id']: Lesson(**held) for held in record['lessons']}
    return found
