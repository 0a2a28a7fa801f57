"""What memories compare texts with."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence

from leafe_jax.endings import RunStopped
from leafe_jax.memory.banks import Vectors
from leafe_jax.methods.sentences import Encoder, SentenceVectors


def word_vectors() -> Callable[[Sequence[str]], Vectors]:
  """`envs.vectors.WordVectors`. RunStopped without the package that it needs.

  Not every environment needs that package, so it is looked for when a memory is made.
  """
  try:
    from envs.vectors import WordVectors
  except ModuleNotFoundError as error:
    package = (error.name or '').partition('.')[0]
    raise RunStopped(
        f'texts of a memory are compared word by word: {error}; pip install {package}'
    ) from error
  return WordVectors


def vectors_of(encoder: str) -> Callable[[Sequence[str]], Vectors]:
  """By words, or with the sentence encoder of a directory. RunStopped as there."""
  if not encoder:
    return word_vectors()
  return functools.partial(SentenceVectors, _encoder(encoder))


@functools.lru_cache(maxsize=1)
def _encoder(directory: str) -> Encoder:
  return Encoder(pathlib.Path(directory))
