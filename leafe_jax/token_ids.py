"""One object for every token id, however often it is kept.

A Python int above 256 takes 28 bytes beside the 8 of each place that points to it,
and each text that is tokenised, each response and each line that is read brings fresh
ones. Trees, states and the radix tree keep every token of a run several times: where
they point to the same ints, a process is a third smaller.
"""

from __future__ import annotations

from collections.abc import Iterable

_KNOWN: dict[int, int] = {}  # as many as the vocabulary has tokens


def shared(ids: Iterable[int]) -> list[int]:
  """The same ids, each the one object that stands for it in this process."""
  known = _KNOWN.setdefault
  return [known(i, i) for i in ids]
