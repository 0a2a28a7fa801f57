"""How an answer is scored: overlap of normalised tokens, from 0 to 1.

    squad    lower case, no punctuation, no articles; F1 of the bags of tokens
             (arXiv 1606.05250)
    hotpot   the same, but yes, no and noanswer match themselves alone
             (arXiv 1809.09600, hotpot_evaluate_v1)
    locomo   'and' goes with the articles, tokens are stemmed
             (arXiv 2402.17753, task_eval/evaluation)
    parts    as locomo, for lists with commas: each right part counts with its best
             match among the given ones, the mean of all

What the memory does not say has no right answer: to say so scores 1, anything
else 0 (category 5 of LoCoMo).
"""

from __future__ import annotations

import collections
import functools
import re
import string
from collections.abc import Callable, Mapping, Sequence

from nltk.stem import porter

# Of an answer that says that the memory does not say it.
ABSTENTIONS = ('no information available', 'not mentioned')
UNKNOWN = 'no information available'

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_ARTICLES_AND = re.compile(r'\b(a|an|the|and)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)
_WHOLE = ('yes', 'no', 'noanswer')
_STEMMER = porter.PorterStemmer()


def normalise(text: str, articles: re.Pattern[str] = _ARTICLES) -> str:
  """Lower case, without ASCII punctuation and articles, single spaces."""
  return ' '.join(articles.sub(' ', text.lower().translate(_PUNCTUATION)).split())


def token_f1(given: Sequence[str], right: Sequence[str]) -> float:
  """F1 of two bags of tokens; 0 where they share none, so also of empty ones."""
  shared = (collections.Counter(given) & collections.Counter(right)).total()
  if not shared:
    return 0.0
  precision, recall = shared / len(given), shared / len(right)
  return 2 * precision * recall / (precision + recall)


def _squad(given: str, right: str) -> float:
  return token_f1(normalise(given).split(), normalise(right).split())


def _hotpot(given: str, right: str) -> float:
  texts = normalise(given), normalise(right)
  if texts[0] != texts[1] and any(text in _WHOLE for text in texts):
    return 0.0
  return token_f1(*(text.split() for text in texts))


@functools.lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
  return _STEMMER.stem(word)


def _locomo(given: str, right: str) -> float:
  bags = [
      [_stem(word) for word in normalise(text, _ARTICLES_AND).split()]
      for text in (given, right)
  ]
  return token_f1(*bags)


def _parts(given: str, right: str) -> float:
  found = [
      max(_locomo(part, wanted) for part in given.split(','))
      for wanted in right.split(',')
  ]
  return sum(found) / len(found)


RULES: Mapping[str, Callable[[str, str], float]] = {
    'squad': _squad, 'hotpot': _hotpot, 'locomo': _locomo, 'parts': _parts,
}  # fmt: skip


def score(given: str, answers: Sequence[str], rule: str) -> float:
  """The best F1 of an answer with one of the right ones, in [0, 1].

  Args:
    given: what was answered.
    answers: the right ones; empty: only to say that it is not known is right.
    rule: one of `RULES`.
  """
  if not answers:
    return float(any(text in given.lower() for text in ABSTENTIONS))
  return max(RULES[rule](given, right) for right in answers)
