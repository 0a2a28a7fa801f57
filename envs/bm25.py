"""BM25 as Lucene ranks through Anserini, the keyword search of WebShop and memories.

Libraries such as bm25s rank differently in four places, each of which moves
products across the first page, so the forty lines are written out here:

* Lucene stores a document's length in one byte; lengths above 40 lose their
  low bits (`quantise_length`), while the average length stays exact;
* idf = ln(1 + (N - n + 0.5) / (n + 0.5)), never negative, and the numerator
  has no factor (k1 + 1);
* a query term counts as often as it occurs in the query;
* Anserini breaks ties by the document's identifier; scores that agree to four
  decimals count as ties, since Lucene computes in float32.

Text analysis is Anserini's English default: Unicode word segmentation,
possessive 's removed, lower case, Lucene's 33 stop words, Porter's stemmer.
"""

from __future__ import annotations

import array
import collections
import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import regex
from jaxtyping import Float, Int
from nltk.stem import porter

K1 = 0.9
B = 0.4

# Lucene's EnglishAnalyzer.ENGLISH_STOP_WORDS_SET.
STOP_WORDS = frozenset((
    'a', 'an', 'and', 'are', 'as', 'at', 'be', 'but', 'by', 'for', 'if', 'in',
    'into', 'is', 'it', 'no', 'not', 'of', 'on', 'or', 'such', 'that', 'the',
    'their', 'then', 'there', 'these', 'they', 'this', 'to', 'was', 'will', 'with',
))  # fmt: skip

# Word segmentation of Unicode annex 29 as StandardTokenizer applies it: colons,
# points and apostrophes join letters, commas and points join digits; ideographs
# and pictographs stand alone. Marks belong to the letter before them.
_PICTOGRAPHS = (
    '©®‼⁉™ℹ↔-↙↩↪⌚⌛⌨⎈⏏⏩-⏳⏸-⏺Ⓜ▪▫▶◀◻-◾☀-★☇-☒☔-⚅⚐-✅✈-✒✔✖✝✡✨✳✴❄❇❌❎'
    '❓-❕❗❣-❧➕-➗➡➰➿⤴⤵⬅-⬇⬛⬜⭐⭕〰〽㊗㊙\U0001F000-\U0001FAFF'
)
_TOKEN = regex.compile(
    rf"""
    [\p{{Han}}\p{{Hiragana}}]
  | [{_PICTOGRAPHS}]\p{{M}}*
  | [\p{{L}}\p{{N}}_]
    (?:(?![\p{{Han}}\p{{Hiragana}}])[\p{{L}}\p{{N}}\p{{M}}_]
      | (?<=[\p{{L}}\p{{M}}])[:.·'’․‧：﹕＇．](?=\p{{L}})
      | (?<=\p{{N}})[,.;'’․⁄，；﹐﹔＇．](?=\p{{N}})
    )*
    """,
    regex.VERBOSE,
)
_WORD = regex.compile(rf'[\p{{L}}\p{{N}}{_PICTOGRAPHS}]')
_STEMMER = porter.PorterStemmer(mode='MARTIN_EXTENSIONS')


@functools.lru_cache(maxsize=200_000)
def _term(token: str) -> str:
  """The index term of a token; '' where it has none."""
  if not _WORD.search(token):
    return ''
  if token[-2:] in ("'s", '’s', "'S", '’S', '＇s', '＇S'):
    token = token[:-2]
  token = token.lower()
  return '' if token in STOP_WORDS else _STEMMER.stem(token, to_lowercase=False)


def analyse(text: str) -> list[str]:
  """The index terms of a text, in order, with repetitions."""
  return [term for term in map(_term, _TOKEN.findall(text)) if term]


def quantise_length(length: int) -> int:
  """A document length after Lucene's SmallFloat.intToByte4 and back."""
  if length < 24:
    return length
  rest = length - 24
  shift = max(rest.bit_length() - 4, 0)
  return 24 + (rest >> shift << shift)


class Index:
  """An inverted index of short documents; immutable after construction.

  Posting lists hold the finished contribution idf * tf / (tf + norm) of a term
  to each document, so a query is one addition per term.
  """

  def __init__(self, documents: Iterable[str], identifiers: Sequence[str]):
    occurrences: dict[str, tuple[array.array, array.array]] = {}
    lengths = []
    for document, text in enumerate(documents):
      counts = collections.Counter(analyse(text))
      lengths.append(counts.total())
      for term, frequency in counts.items():
        if term not in occurrences:
          occurrences[term] = array.array('i'), array.array('i')
        numbers, frequencies = occurrences[term]
        numbers.append(document)
        frequencies.append(frequency)
    average = sum(lengths) / max(len(lengths), 1) or 1.0
    stored = np.array([quantise_length(length) for length in lengths])
    norms = K1 * (1 - B + B * stored / average)
    self._num_documents = len(lengths)
    self._tie_ranks = np.empty(len(lengths), np.int64)
    self._tie_ranks[np.argsort(identifiers)] = np.arange(len(lengths))
    self._postings = {
        term: self._weigh(np.asarray(numbers), np.asarray(frequencies), norms)
        for term, (numbers, frequencies) in occurrences.items()
    }

  def _weigh(
      self,
      documents: Int[np.ndarray, ' D'],
      frequencies: Int[np.ndarray, ' D'],
      norms: Float[np.ndarray, ' N'],
  ) -> tuple[Int[np.ndarray, ' D'], Float[np.ndarray, ' D']]:
    found = len(documents)
    idf = math.log(1 + (self._num_documents - found + 0.5) / (found + 0.5))
    return documents, idf * frequencies / (frequencies + norms[documents])

  def scores(self, query: str) -> Float[np.ndarray, ' N']:
    """BM25 of every document."""
    total = np.zeros(self._num_documents)
    for term, repeats in collections.Counter(analyse(query)).items():
      if term in self._postings:
        documents, weights = self._postings[term]
        total[documents] += repeats * weights
    return total

  def top(self, query: str, count: int) -> list[int]:
    """Numbers of the best documents, at most `count`; none with score 0."""
    scores = self.scores(query)
    hits = np.flatnonzero(scores)
    rounded = np.round(scores[hits], 4)
    if len(hits) > count:  # sorting a whole catalogue would take most of the time
      best = rounded >= np.partition(rounded, -count)[-count]
      hits, rounded = hits[best], rounded[best]
    order = np.lexsort((self._tie_ranks[hits], -rounded))
    return hits[order[:count]].tolist()
