"""KV pages on the host: who owns which page of the device pool.

The memories of recurrent layers (`memories`), and the pages of layers with a window
(`windows`), are pages of pools of their own.

Invariants:
  1. A page id is either free or held by exactly one living `Page`.
  2. A `Page` is shared by reference: states that share a prefix hold the same
     objects, and Python's reference count is the page's reference count. When
     the last holder goes, the id is free again.
  3. A page is written by the one dispatch that took it, never again: what an
     old state can see never changes. A state that grows past a half-filled
     page copies it to a fresh one (copy on write).
"""

from __future__ import annotations

from typing import NamedTuple


class OutOfPages(RuntimeError):
  """More pages are alive than the pool holds."""


class Page:
  """One page of the pool; returns its id when the last reference goes."""

  __slots__ = ('_free', 'id')

  def __init__(self, page_id: int, free: list[int]):
    self.id = page_id
    self._free = free

  # Thousands of pages come and go per second: `__del__` on a leaf object costs
  # a tenth of weakref.finalize and runs at the same moment.
  def __del__(self) -> None:
    self._free.append(self.id)


class Fresh(NamedTuple):
  """What a row of a dispatch writes.

  Attributes:
    pages: with its keys and values.
    memory: of its recurrent layers after the last token; None without such layers.
    near: pages of its layers with a window, one beside each page; none without them.
  """

  pages: tuple[Page, ...]
  memory: Page | None = None
  near: tuple[Page, ...] = ()


class PagePool:
  """The ids first .. first + num_pages - 1.

  Args:
    num_pages: of the pool.
    first: id.
    name: of what a page holds, and of the option that says how many there are.
  """

  def __init__(
      self,
      num_pages: int,
      first: int = 0,
      name: tuple[str, str] = ('KV pages', 'num_pages'),
  ):
    self.num_pages = num_pages
    self._name = name
    self._free = list(range(first + num_pages - 1, first - 1, -1))

  @property
  def num_free(self) -> int:
    return len(self._free)

  def require(self, count: int) -> None:
    """Raises OutOfPages unless `count` pages are free."""
    if count > len(self._free):
      what, option = self._name
      raise OutOfPages(
          f'{count} {what} wanted, {len(self._free)} of {self.num_pages} free:'
          f' drop states, sample fewer rows at a time or raise sampler.{option}'
      )

  def take(self, count: int) -> tuple[Page, ...]:
    """`count` fresh pages. Raises OutOfPages."""
    self.require(count)
    free = self._free
    return tuple(Page(free.pop(), free) for _ in range(count))
