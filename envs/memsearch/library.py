"""What is remembered, and what is asked about it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.bm25 import Index
from envs.vectors import WordVectors


class BadFile(ValueError):
  """A file that is not of the form it should have; names the file and the place."""


@dataclass(frozen=True)
class Passage:
  """The smallest piece that a search finds.

  Attributes:
    id: within its memory; 'D3:5' is the fifth of page D3.
    page: id of its page.
    text: what was said, with who said it.
    brief: the same in a few words, where the compact view can show it.
  """

  id: str
  page: str
  text: str
  brief: str = ''


@dataclass(frozen=True)
class Page:
  """A session of a conversation, or a document.

  Attributes:
    id: within its memory.
    title: its date, or its name.
    passages: in order.
  """

  id: str
  title: str
  passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Memory:
  """One conversation, or one set of documents; all that a task may search.

  Attributes:
    id: within the world.
    pages: in order.
  """

  id: str
  pages: tuple[Page, ...]

  @functools.cached_property
  def passages(self) -> tuple[Passage, ...]:
    return tuple(passage for page in self.pages for passage in page.passages)

  @functools.cached_property
  def _places(self) -> dict[str, Page]:
    return {page.id.lower(): page for page in self.pages}

  @functools.cached_property
  def _keywords(self) -> Index:
    # Ties go to what was said first.
    ranks = [f'{rank:09d}' for rank in range(len(self.passages))]
    return Index((passage.text for passage in self.passages), ranks)

  @functools.cached_property
  def _vectors(self) -> WordVectors:
    return WordVectors([passage.text for passage in self.passages])

  def keyword(self, query: str, count: int) -> list[Passage]:
    """The passages that BM25 ranks first; none without a word of the query."""
    return [self.passages[number] for number in self._keywords.top(query, count)]

  def vector(self, query: str, count: int) -> list[Passage]:
    """The passages whose words are nearest to the query's, by cosine."""
    return [self.passages[number] for number in self._vectors.top(query, count)]

  def page(self, name: str) -> tuple[Page, int] | None:
    """(a page, the place of its passage that is named); None if there is none.

    The name of a page, or of one of its passages.
    """
    name = name.strip().lower()
    page = self._places.get(name) or self._places.get(name.rpartition(':')[0])
    if page is None:
      return None
    names = [passage.id.lower() for passage in page.passages]
    return page, names.index(name) if name in names else 0


@dataclass(frozen=True)
class Question:
  """What is asked, and what counts as the answer.

  Attributes:
    memory: id of the memory that holds the answer.
    text: as the agent reads it.
    answers: texts that are right; the best match counts. Empty: the memory does
      not say it, and the right thing is to say so.
    kind: of question, as its source sorts them.
    rule: how answers are compared, one of `scoring.RULES`.
    evidence: ids of passages that it rests on, as far as they are known.
  """

  memory: str
  text: str
  answers: tuple[str, ...]
  kind: str
  rule: str
  evidence: tuple[str, ...] = ()

  def to_json(self) -> dict[str, Any]:
    """JSON types; `question_from_json` reads them back."""
    fields = {**vars(self)}
    return {**fields, 'answers': list(self.answers), 'evidence': list(self.evidence)}


def question_from_json(record: Mapping[str, Any]) -> Question:
  """Inverse of `Question.to_json`."""
  fields = dict(record)
  answers, evidence = tuple(fields.pop('answers')), tuple(fields.pop('evidence'))
  return Question(**fields, answers=answers, evidence=evidence)


@dataclass(frozen=True)
class Library:
  """Memories, and the questions of each split."""

  memories: Mapping[str, Memory]
  questions: Mapping[str, tuple[Question, ...]]


def deal(
    found: Sequence[tuple[Memory, list[Question]]], train: int, validation: int
) -> Library:
  """Whole memories to splits, in their order; the test has what is left.

  Raises:
    ValueError: nothing is left; names the options.
  """
  if train + validation >= len(found):
    raise ValueError(
        f'train_memories={train} and validation_memories={validation} leave nothing '
        f'of {len(found)} memories for the test; lower them'
    )
  parts = {
      'train': found[:train], 'validation': found[train : train + validation],
      'test': found[train + validation :],
  }  # fmt: skip
  questions = {
      name: tuple(question for _, asked in part for question in asked)
      for name, part in parts.items()
  }
  return Library({memory.id: memory for memory, _ in found}, questions)
