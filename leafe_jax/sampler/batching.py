"""From states to the few static shapes that the device programs know.

Rows are grouped by the bucket of their new tokens, then sorted by length, so
that short rows share small programs. The order is a function of the rows
alone: the same requests give the same batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.sampler.batch import Batch, Drawing, Held
from leafe_jax.sampler.choices import Trie
from leafe_jax.sampler.drawing import Filters
from leafe_jax.sampler.pages import Fresh
from leafe_jax.sampler.state import MAX_STOP_IDS, Rules, State

_MIN_RESPONSE = 8
_MIN_ROWS = 2
_NOWHERE = 2**30  # out of range: read as nothing, written nowhere
_NO_STOPS = (-1,) * MAX_STOP_IDS


class Row(NamedTuple):
  """One row of a dispatch.

  Attributes:
    index: its place among the rows waiting.
    state: the prompt.
    num_new: how many of its pending tokens to read now.
    key: random key of the row.
    rules: how to draw.
    first: tokens of the response that were drawn before.
    max_tokens: most tokens to draw now; 0: read only.
    trie: what may be said; None: anything.
    node: place in the trie.
    shard: of the pool, where its pages are.
  """

  index: int
  state: State
  num_new: int
  key: tuple[int, int] = (0, 0)
  rules: Rules = Rules()
  first: int = 0
  max_tokens: int = 0
  trie: Trie | None = None
  node: int = 0
  shard: int = 0


class Buckets:
  """The static shapes.

  Args:
    config: bucket sizes; lengths are rounded up to whole pages.
    max_length: longest transcript in tokens.
    num_shards: of the pool; the rows of a dispatch are cut likewise.
    few_rows: whether a dispatch of few rows has a program of its own, a quarter
      as wide: for a large policy it saves more than it takes to compile.
    recurrent: whether the policy has layers with memories.
    window: that some of its layers have; 0: none.
  """

  def __init__(
      self,
      config: config_lib.Sampler,
      max_length: int,
      num_shards: int = 1,
      few_rows: bool = False,
      recurrent: bool = False,
      window: int = 0,
  ):
    self.recurrent = recurrent
    self.window = window
    self.page_size = config.page_size
    self.new_tokens = tuple(sorted(config.prefill_buckets))
    longest = self._round_up(max_length)
    lengths = {self._round_up(size) for size in config.length_buckets} | {longest}
    self.lengths = tuple(sorted(size for size in lengths if size <= longest))
    self.num_shards = num_shards
    self._rows_per_shard = -(-min(config.dispatch_rows, config.max_rows) // num_shards)
    self.rows = self._rows_per_shard * num_shards
    narrow = max(_MIN_ROWS, self._rows_per_shard // 4)
    narrow_too = few_rows and narrow < self._rows_per_shard
    self._widths = (narrow,) * narrow_too + (self._rows_per_shard,)
    self._chunk = config.decode_chunk

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
      found = self._cut(members)
      if larger is not None and larger <= 2 * size and by_size[larger]:
        by_size[larger] += [r for g in found if len(g) < self.rows for r in g]
        found = [group for group in found if len(group) == self.rows]
      groups += found
    return groups

  def _cut(self, rows: Sequence[Row]) -> list[list[Row]]:
    """Dispatches of rows in their order, with each shard's in its places."""
    of_shard: list[list[Row]] = [[] for _ in range(self.num_shards)]
    for row in rows:
      of_shard[row.shard].append(row)
    size = self._rows_per_shard
    return [
        [row for own in of_shard for row in own[start : start + size]]
        for start in range(0, max(map(len, of_shard)), size)
    ]

  def places(self, rows: Sequence[Row]) -> list[int]:
    """Where the rows of a dispatch stand in its arrays."""
    width = self._width(rows)
    taken = [shard * width for shard in range(self.num_shards)]
    found = []
    for row in rows:
      found.append(taken[row.shard])
      taken[row.shard] += 1
    return found

  @property
  def row_sizes(self) -> tuple[int, ...]:
    """Rows that a dispatch may have, real and padded, on all shards together."""
    return tuple(width * self.num_shards for width in self._widths)

  def _width(self, rows: Sequence[Row]) -> int:
    """Places on each shard."""
    counts = [0] * self.num_shards
    for row in rows:
      counts[row.shard] += 1
    return _bucket(max(counts), self._widths)

  def per_dispatch(self, max_tokens: int) -> int:
    """How many of `max_tokens` tokens one dispatch decodes at most."""
    return min(max_tokens, self._chunk or max_tokens)

  def num_decode(self, max_tokens: int) -> int:
    """A dispatch's room for responses: a power of two, so that few programs do."""
    count = self.per_dispatch(max_tokens)
    return max(_MIN_RESPONSE, 1 << (count - 1).bit_length())

  def pages_needed(self, row: Row) -> int:
    """Fresh pages that hold what follows the full pages of the prefix."""
    offset = row.state.cached % self.page_size
    # The last token of a response is never read.
    end = offset + row.num_new + max(0, row.max_tokens - 1)
    return -(-end // self.page_size)

  def fill(
      self,
      rows: Sequence[Row],
      fresh: Sequence[Fresh],
      num_decode: int,
      num_pages: int,
  ) -> Batch:
    """Arrays of one dispatch, padded to its buckets.

    Args:
      rows: from `split`.
      fresh: what each row writes.
      num_decode: room for responses, 0 to read only.
      num_pages: size of the pool; as an id it means 'write nowhere'.
    """
    num_new = max(row.num_new for row in rows)
    num_prefix = max(row.state.cached // self.page_size for row in rows)
    count = self._width(rows) * self.num_shards
    batch = self.blank(num_new, num_prefix, num_decode, num_pages, count)
    places = self.places(rows)
    batch.active[places] = True
    for place, row, written in zip(places, rows, fresh, strict=True):
      _fill_row(batch, place, row, written, self.page_size)
      if batch.near is not None:
        _fill_near(batch.near, place, row, written, self)
    if num_decode:
      return batch._replace(drawing=_drawing(rows, places, count))
    return batch

  def blank(
      self,
      num_new: int,
      num_prefix: int,
      num_decode: int,
      num_pages: int,
      rows: int = 0,
  ) -> Batch:
    """A dispatch without rows: it reads padding and writes nowhere.

    Args:
      num_new: most new tokens of a row.
      num_prefix: most full pages of a prefix.
      num_decode: room for responses, 0 to read only.
      num_pages: size of the pool.
      rows: one of `row_sizes`; 0: the most.
    """
    rows, page = rows or self.rows, self.page_size
    width = _bucket(num_new, self.new_tokens)
    length = _bucket(num_prefix * page, self.lengths)
    num_write = -(-(page - 1 + width + num_decode) // page)
    arrays: dict[str, Any] = dict(
        prefix_pages=np.zeros((rows, length // page), np.int32),
        prefix_length=np.zeros(rows, np.int32),
        tail_page=np.zeros(rows, np.int32),
        offset=np.zeros(rows, np.int32),
        tokens=np.zeros((rows, width), np.int32),
        num_new=np.ones(rows, np.int32),
        write_pages=np.full((rows, num_write), num_pages, np.int32),
        active=np.zeros(rows, bool),
        memory=np.full(rows, _NOWHERE, np.int32) if self.recurrent else None,
        write_memory=np.full(rows, _NOWHERE, np.int32) if self.recurrent else None,
    )
    if self.window:
      reached = min(length, self._round_up(self.window - 1)) // page
      near: dict[str, Any] = dict(
          pages=np.zeros((rows, reached), np.int32),
          length=np.zeros(rows, np.int32),
          tail_page=np.zeros(rows, np.int32),
          write_pages=np.full((rows, num_write), _NOWHERE, np.int32),
      )
      arrays['near'] = Held(**near)
    drawing = _drawing([Row(0, State(0), 1)], [0], rows) if num_decode else None
    return Batch(**arrays, drawing=drawing)


def _fill_row(
    batch: Batch, place: int, row: Row, fresh: Fresh, page_size: int
) -> None:
  state = row.state
  full, offset = divmod(state.cached, page_size)
  nodes = state.lease.path() if state.lease is not None else ()
  ids = [node.page.id for node in nodes if node.page is not None]
  if full:
    batch.prefix_pages[place, :full] = ids[:full]
    batch.prefix_length[place] = full * page_size
  if offset:
    batch.tail_page[place] = ids[full]
    batch.offset[place] = offset
  batch.tokens[place, : row.num_new] = state.pending[: row.num_new]
  batch.num_new[place] = row.num_new
  batch.write_pages[place, : len(fresh.pages)] = [page.id for page in fresh.pages]
  if batch.memory is not None and batch.write_memory is not None:
    known = state.lease.node.memory if state.lease is not None else None
    assert fresh.memory is not None  # taken with the pages
    batch.write_memory[place] = fresh.memory.id
    if known is not None:
      batch.memory[place] = known.id


def _fill_near(
    near: Held, place: int, row: Row, fresh: Fresh, buckets: Buckets
) -> None:
  """The pages that a row's window reaches, and those it writes."""
  state, size = row.state, buckets.page_size
  full, offset = divmod(state.cached, size)
  first = max(0, state.cached - buckets.window + 1) // size
  nodes = state.lease.path() if state.lease is not None else ()
  # Those that are reached have their pages: a row whose lease is not ready waits.
  ids = [node.near.id for node in nodes[first : full + (offset > 0)] if node.near]
  near.pages[place, : full - first] = ids[: full - first]
  near.length[place] = (full - first) * size
  if offset:
    near.tail_page[place] = ids[full - first]
  near.write_pages[place, : len(fresh.near)] = [page.id for page in fresh.near]


def _drawing(rows: Sequence[Row], places: Sequence[int], count: int) -> Drawing:
  """How the rows draw, at their places of `count`; they agree on what is on."""
  rules = [row.rules for row in rows]
  alike = all(one is rules[0] for one in rules)

  def column(values: Any, kind: type, *shape: int) -> Any:
    array = np.zeros((count, *shape), kind)
    array[places] = values
    return array

  def ruled(value: Callable[[Rules], Any], kind: type, *shape: int) -> Any:
    values = value(rules[0]) if alike else [value(one) for one in rules]
    return column(values, kind, *shape)

  drawing: dict[str, Any] = dict(
      temperature=ruled(lambda rules: rules.temperature, np.float32),
      max_tokens=column([row.max_tokens for row in rows], np.int32),
      first=column([row.first for row in rows], np.int32),
      stop_ids=ruled(_padded_stop_ids, np.int32, MAX_STOP_IDS),
      keys=column([row.key for row in rows], np.uint32, 2),
      filters=None, edges=None, node=None,
  )
  if rules[0].filtered:
    drawing['filters'] = Filters(
        ruled(lambda rules: rules.top_k, np.int32),
        ruled(lambda rules: rules.top_p, np.float32),
        ruled(lambda rules: rules.min_p, np.float32),
    )
  tries = [row.trie for row in rows if row.trie is not None]
  if tries:
    padded = [trie.padded() for trie in tries]
    drawing['edges'] = column(padded, np.int32, tries[0].room, 3)
    drawing['node'] = column([row.node for row in rows], np.int32)
  return Drawing(**drawing)


def _padded_stop_ids(rules: Rules) -> tuple[int, ...]:
  return (*rules.stop_ids, *_NO_STOPS[len(rules.stop_ids) :])


def _bucket(size: int, buckets: tuple[int, ...]) -> int:
  for bucket in buckets:
    if size <= bucket:
      return bucket
  raise ValueError(f'{size} exceeds the largest bucket of {buckets}')
