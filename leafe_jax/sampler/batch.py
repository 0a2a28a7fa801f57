"""The arrays of a dispatch: which rows, what they have in pages, how they draw."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array

from leafe_jax.sampler import drawing


class Drawing(NamedTuple):
  """How each row draws; B rows.

  Attributes:
    temperature: [B] divides the logits.
    max_tokens: [B] most tokens in this dispatch.
    first: [B] place in the response of the first of them; earlier dispatches
      drew those before.
    stop_ids: [B, 8] padded with -1.
    keys: [B, 2] random key data.
    filters: top-k, top-p, min-p; None: off.
    edges: [B, E, 3] tries of what may be said (see `choices`); None: anything.
    node: [B] place in the trie; None: without tries.
  """

  temperature: Array
  max_tokens: Array
  first: Array
  stop_ids: Array
  keys: Array
  filters: drawing.Filters | None
  edges: Array | None
  node: Array | None


class Held(NamedTuple):
  """What some rows have in the pool of a group of layers, and where they write.

  Attributes:
    pages: [B, S/P] ids of full pages; padding is any valid id.
    length: [B] tokens in them.
    tail_page: [B] id of the half-filled page; any valid id without one.
    write_pages: [B, N/P] ids that receive the buffer; out of range: dropped.
  """

  pages: Array
  length: Array
  tail_page: Array
  write_pages: Array


class Batch(NamedTuple):
  """Rows of one dispatch; B rows, T new tokens, S prefix tokens, N buffer.

  Attributes:
    prefix_pages: [B, S/P] ids of the full pages; padding is any valid id.
    prefix_length: [B] tokens in them.
    tail_page: [B] id of the half-filled page; any valid id without one.
    offset: [B] tokens in it.
    tokens: [B, T] new prompt tokens, padded on the right.
    num_new: [B] how many are real; at least 1.
    write_pages: [B, N/P] ids that receive the buffer; out of range: dropped.
    active: [B] whether the row is real.
    drawing: how to draw; None where nothing is drawn.
    memory: [B] id of what recurrent layers know; out of range: nothing yet.
    write_memory: [B] id that receives what they know in the end, likewise.
    near: of layers with a window the last full pages, which windows reach; None
      for a policy without windows.

  The memories are None for a policy without recurrent layers.
  """

  prefix_pages: Array
  prefix_length: Array
  tail_page: Array
  offset: Array
  tokens: Array
  num_new: Array
  write_pages: Array
  active: Array
  drawing: Drawing | None
  memory: Array | None = None
  write_memory: Array | None = None
  near: Held | None = None

  def held(self, window: int) -> Held:
    """What the layers with a window have; 0: those without."""
    if window:
      assert self.near is not None  # given where there are windows
      return self.near
    return Held(
        self.prefix_pages, self.prefix_length, self.tail_page, self.write_pages
    )
