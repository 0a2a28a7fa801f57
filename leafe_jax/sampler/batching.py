"""From states to the few static shapes that the device programs know.

Rows are grouped by the bucket of their new tokens, then sorted by length, so
that short rows share small programs. The order is a function of the rows
alone: the same requests give the same batches.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.sampler.pages import Page
from leafe_jax.sampler.state import State
from leafe_jax.sampler.turn import Batch

_MIN_RESPONSE = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
  """One row of a dispatch.

  Attributes:
    index: place of its request.
    state: the prompt.
    num_new: how many of its pending tokens to read now.
    key: random key of the row.
  """

  index: int
  state: State
  num_new: int
  key: tuple[int, int] = (0, 0)


class Buckets:
  """The static shapes.

  Args:
    config: bucket sizes; lengths are rounded up to whole pages.
    max_length: longest transcript in tokens.
  """

  def __init__(self, config: config_lib.Sampler, max_length: int):
    self.page_size = config.page_size
    self.new_tokens = tuple(sorted(config.prefill_buckets))
    longest = self._round_up(max_length)
    lengths = {self._round_up(size) for size in config.length_buckets} | {longest}
    self.lengths = tuple(sorted(size for size in lengths if size <= longest))
    self.rows = min(config.dispatch_rows, config.max_rows)

  def _round_up(self, size: int) -> int:
    return -(-size // self.page_size) * self.page_size

  def split(self, rows: Sequence[Row]) -> list[list[Row]]:
    """Groups of rows that share one program and one dispatch.

    The rest of a bucket that does not fill a dispatch joins the next bucket,
    unless that one is more than twice as long.
    """
    by_size: dict[int, list[Row]] = {size: [] for size in self.new_tokens}
    for row in rows:
      by_size[_bucket(row.num_new, self.new_tokens)].append(row)
    groups: list[list[Row]] = []
    for size, larger in itertools.zip_longest(self.new_tokens, self.new_tokens[1:]):
      members = sorted(by_size[size], key=lambda row: (row.state.cached, row.index))
      if larger is not None and larger <= 2 * size and by_size[larger]:
        whole = len(members) // self.rows * self.rows
        by_size[larger] += members[whole:]
        members = members[:whole]
      groups += [
          members[start : start + self.rows]
          for start in range(0, len(members), self.rows)
      ]
    return groups

  def num_decode(self, max_tokens: int) -> int:
    """Room for a response: a power of two, so that few programs do."""
    return max(_MIN_RESPONSE, 1 << (max_tokens - 1).bit_length())

  def pages_needed(self, row: Row, num_response: int) -> int:
    """Fresh pages that hold what follows the full pages of the prefix."""
    offset = row.state.cached % self.page_size
    # The last token of a response is never read.
    end = offset + row.num_new + max(0, num_response - 1)
    return -(-end // self.page_size)

  def fill(
      self,
      rows: Sequence[Row],
      fresh: Sequence[tuple[Page, ...]],
      num_decode: int,
      num_pages: int,
  ) -> Batch:
    """Arrays of one dispatch, padded to its buckets.

    Args:
      rows: from `split`.
      fresh: pages that each row writes.
      num_decode: room for responses, 0 to read only.
      num_pages: size of the pool; as an id it means 'write nowhere'.
    """
    width = _bucket(max(row.num_new for row in rows), self.new_tokens)
    prefix = max(row.state.cached // self.page_size for row in rows)
    length = _bucket(prefix * self.page_size, self.lengths)
    batch = self.blank(width, length, num_decode, num_pages)
    batch.active[: len(rows)] = True
    for place, (row, pages) in enumerate(zip(rows, fresh, strict=True)):
      _fill_row(batch, place, row, pages, self.page_size)
    return batch

  def blank(self, width: int, length: int, num_decode: int, num_pages: int) -> Batch:
    """A dispatch without rows.

    Args:
      width: new tokens a row, one of `new_tokens`.
      length: places of the prefix, one of `lengths` or 0.
      num_decode: room for responses, 0 to read only.
      num_pages: size of the pool.
    """
    rows, page = self.rows, self.page_size
    num_write = -(-(page - 1 + width + num_decode) // page)
    arrays: dict[str, Any] = dict(
        prefix_pages=np.zeros((rows, length // page), np.int32),
        prefix_length=np.zeros(rows, np.int32),
        tail_page=np.zeros(rows, np.int32),
        offset=np.zeros(rows, np.int32),
        tokens=np.zeros((rows, width), np.int32),
        num_new=np.ones(rows, np.int32),
        write_pages=np.full((rows, num_write), num_pages, np.int32),
        keys=np.zeros((rows, 2), np.uint32),
        active=np.zeros(rows, bool),
    )
    return Batch(**arrays)


def _fill_row(
    batch: Batch, place: int, row: Row, fresh: tuple[Page, ...], page_size: int
) -> None:
  state = row.state
  full, offset = divmod(state.cached, page_size)
  if full:
    batch.prefix_pages[place, :full] = [page.id for page in state.pages[:full]]
    batch.prefix_length[place] = full * page_size
  if offset:
    batch.tail_page[place] = state.pages[full].id
    batch.offset[place] = offset
  batch.tokens[place, : row.num_new] = state.pending[: row.num_new]
  batch.num_new[place] = row.num_new
  batch.write_pages[place, : len(fresh)] = [page.id for page in fresh]
  batch.keys[place] = row.key


def advance(
    state: State,
    fresh: tuple[Page, ...],
    num_read: int,
    pending: tuple[int, ...],
    page_size: int,
) -> State:
  """The state after `num_read` more tokens went into `fresh` pages."""
  full = state.cached // page_size
  cached = state.cached + num_read
  used = -(-cached // page_size) - full
  return State(
      version=state.version,
      pages=state.pages[:full] + fresh[:used],
      cached=cached,
      pending=pending,
  )


def _bucket(size: int, buckets: tuple[int, ...]) -> int:
  for bucket in buckets:
    if size <= bucket:
      return bucket
  raise ValueError(f'{size} exceeds the largest bucket of {buckets}')
