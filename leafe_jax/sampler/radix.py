"""The radix tree: which tokens are in which KV pages, found by the tokens.

A node is one page of one transcript: the tokens in it, under the node of the
tokens before. A prompt given as a list of tokens finds the longest beginning
that is there already, whoever read it; pages stay after the last state that
needs them is gone, until the pool wants them back.

Invariants:
  1. A node is in the tree if and only if it has a page, and then its ancestors
     have theirs: pages are taken back from the leaves.
  2. Only full pages have children. A transcript that grows past a half-filled
     page gets a longer sibling on a fresh page (copy on write); what is in a
     page never changes.
  3. `users` counts the leases on a node, and `idle` holds exactly the leaves
     without users, least recently used first. These go first. Leaves that
     states still point to may be taken too (`put_back`): tokens and parents
     stay with the node, so such a state is read again when it is needed.
  4. With recurrent layers a transcript is gone on from where a memory is
     (`memories`): what is found ends with a node that has one, whole.
  5. With windows a transcript is gone on from where all nodes that the window
     reaches have their window pages (`windows`): what is found ends there.
  6. What is found depends on what was read before. A caller that must come out
     with the same bits again calls `clear` first: from there on everything
     here is a function of the calls made, never of time.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence

from leafe_jax.sampler.memories import Memories
from leafe_jax.sampler.pages import Fresh, Page, PagePool
from leafe_jax.sampler.windows import Windows

Tokens = tuple[int, ...]


class Node:
  """One page of a transcript.

  Attributes:
    parent: the page before; None for the root.
    tokens: at most a page of them.
    page: None after it was taken back.
    memory: of recurrent layers after its last token; None without one.
    near: page of the layers with a window; None without one.
    reached: how many leased nodes have it in their window.
    children: by their tokens.
    users: living leases.
    used: when it was last leased or read, in launches.
  """

  __slots__ = (
      'children', 'memory', 'near', 'page', 'parent', 'reached', 'tokens', 'used',
      'users',
  )  # fmt: skip

  def __init__(self, parent: Node | None, tokens: Tokens, page: Page | None):
    self.parent = parent
    self.tokens = tokens
    self.page = page
    self.memory: Page | None = None
    self.near: Page | None = None
    self.reached = 0
    self.children: dict[Tokens, Node] = {}
    self.users = 0
    self.used = 0


class Lease:
  """A claim on a node and the nodes before it; ends with its last holder."""

  __slots__ = ('_tree', 'node')

  def __init__(self, tree: RadixTree, node: Node):
    node.users += 1
    node.used = tree.clock
    tree.idle.pop(node, None)
    if tree.memories is not None:
      tree.memories.touch(node)
    if tree.windows is not None:
      tree.windows.lease(node, first=node.users == 1)
    self._tree = tree
    self.node = node

  # On a leaf object this is ten times cheaper than weakref.finalize.
  def __del__(self) -> None:
    self._tree.release(self.node)

  @property
  def shard(self) -> int:
    """Of the pool that the pages are in."""
    return self._tree.shard

  @property
  def ready(self) -> bool:
    """Whether the transcript can be gone on from as it is."""
    return self.node.page is not None and self._tree.goes_on(self.node)

  @property
  def lives(self) -> bool:
    """Whether any page of the transcript is left: the first goes last."""
    return self.node.page is not None or self.path()[0].page is not None

  def path(self) -> list[Node]:
    """The nodes from the first page to this one."""
    nodes, node = [], self.node
    while node.parent is not None:
      nodes.append(node)
      node = node.parent
    nodes.reverse()
    return nodes


class RadixTree:
  """All transcripts of one policy version that are in a shard of the pool.

  Attributes:
    shard: its number.
    clock: counts launches, for `used`.
    idle: leaves without users, oldest first (a dict as an ordered set).
    memories: of recurrent layers; None without such layers.
    windows: pages of layers with a window; None without such layers.
  """

  def __init__(
      self,
      pool: PagePool,
      page_size: int,
      keep: bool = True,
      shard: int = 0,
      memories: Memories | None = None,
      windows: Windows | None = None,
  ):
    """Args: pages; tokens a page; whether unused pages stay; see the attributes."""
    self.shard = shard
    self.memories = memories
    self.windows = windows
    self._pool = pool
    self._page_size = page_size
    self._keep = keep
    self._root = Node(None, (), None)
    self.clock = 0
    self.idle: collections.OrderedDict[Node, None] = collections.OrderedDict()
    # Leaves as `put_back` last found them: a full pool is short of pages at every
    # launch, and looking at all nodes each time would cost more than the launch.
    self._oldest: collections.deque[tuple[int, Node]] = collections.deque()

  def nodes(self) -> Iterator[Node]:
    """All nodes with pages."""
    stack = list(self._root.children.values())
    while stack:
      node = stack.pop()
      yield node
      stack.extend(node.children.values())

  def num_idle(self) -> int:
    """Pages that no lease needs: those without a leased node behind them."""
    needed = {node for leased in self.nodes() if leased.users for node in _up(leased)}
    return sum(1 for _ in self.nodes()) - len(needed)

  def goes_on(self, node: Node) -> bool:
    """Whether layers that keep more than pages have what they need after a node."""
    if self.memories is not None and node.memory is None:
      return False
    return self.windows is None or self.windows.whole(node)

  def match(self, tokens: Sequence[int]) -> tuple[Lease | None, int]:
    """The longest beginning of `tokens` that is in pages, and its length.

    The last page may hold more than what was found of it.
    """
    if self.memories is not None or self.windows is not None:
      return self._match_going_on(tokens)
    node, length = self._walk(tokens)
    rest = tokens[length : length + self._page_size]
    best, reach = node, 0
    for child in node.children.values() if rest else ():
      common = common_length(child.tokens, rest)
      if common > reach:
        best, reach = child, common
    if best is self._root:
      return None, 0
    return Lease(self, best), length + reach

  def _walk(self, tokens: Sequence[int]) -> tuple[Node, int]:
    """The last of the full pages that `tokens` begin with, and where it ends."""
    size, node, length = self._page_size, self._root, 0
    while length + size <= len(tokens):
      child = node.children.get(tuple(tokens[length : length + size]))
      if child is None:
        break
      node, length = child, length + size
    return node, length

  def _match_going_on(self, tokens: Sequence[int]) -> tuple[Lease | None, int]:
    """The longest beginning that ends where a transcript can be gone on from.

    With memories that is the end of a node, as they serve one length alone.
    """
    node, length = self._walk(tokens)
    while True:
      rest = tuple(tokens[length : length + self._page_size])
      reach = {
          child: common_length(child.tokens, rest) for child in node.children.values()
      }
      found = [
          child for child, common in reach.items()
          if common and self.goes_on(child)
          and (self.memories is None or common == len(child.tokens))
      ]
      if found:
        best = max(found, key=lambda child: reach[child])
        return Lease(self, best), length + reach[best]
      if node.parent is None:
        return None, 0
      node, length = node.parent, length - len(node.tokens)

  def insert(
      self,
      lease: Lease | None,
      length: int,
      tokens: Tokens,
      fresh: Fresh,
  ) -> Lease | None:
    """What a row wrote: `tokens` after the first `length` of a transcript.

    Args:
      lease: on the page of token `length`, or the last full page before it.
      length: tokens of the transcript that were in pages before.
      tokens: that are in pages now.
      fresh: where; the first page holds the tokens of a half-filled one again, and
        the memory is that after the last of the tokens.
    """
    size, node = self._page_size, self._root
    if lease is not None:
      node, kept = lease.node, length % size
      if kept:
        tokens = node.tokens[:kept] + tokens
        assert node.parent is not None  # the root is never leased
        node = node.parent
    starts = range(0, len(tokens), size)
    beside = fresh.near or itertools.repeat(None)
    for start, page, near in zip(starts, fresh.pages, beside):
      node = self._child(node, tokens[start : start + size], page)
      if self.windows is not None and near is not None:
        self.windows.put(node, near)
    if node is self._root:
      return None
    if self.memories is not None and fresh.memory is not None:
      self.memories.keep(node, fresh.memory)
    lease = Lease(self, node)
    if self.windows is not None:
      self.windows.tidy()
    return lease

  def _child(self, parent: Node, tokens: Tokens, page: Page) -> Node:
    known = parent.children.get(tokens)
    if known is not None:  # another row read the same: one copy is enough
      return known
    node = Node(parent, tokens, page)
    parent.children[tokens] = node
    self.idle.pop(parent, None)
    return node

  def release(self, node: Node) -> None:
    """A lease on the node has ended."""
    node.users -= 1
    if self.windows is not None and not node.users:
      self.windows.release(node)
    if node.users or node.children or node.page is None:
      return
    self.idle[node] = None
    if not self._keep:
      self.make_room(self._pool.num_pages)

  def make_room(self, count: int) -> bool:
    """Frees idle pages until `count` are free; whether there are."""
    while self._pool.num_free < count and self.idle:
      self._evict(next(iter(self.idle)))
    return self._pool.num_free >= count

  def put_back(self, count: int, pinned: set[Node]) -> int:
    """Takes pages of states that wait, least recently used first.

    Args:
      count: pages to be free afterwards, if there are as many.
      pinned: nodes to leave alone, and with them all before them.

    Returns:
      The number of leases whose page was taken.
    """
    taken = 0
    while not self.make_room(count):
      if not self._oldest:
        self._oldest = self._leaves(pinned)
        if not self._oldest:
          break
      used, node = self._oldest.popleft()
      changed = node.page is None or node.children or node.used != used
      if not changed and node not in pinned:
        taken += node.users
        self._evict(node)
    return taken

  def _leaves(self, pinned: set[Node]) -> collections.deque[tuple[int, Node]]:
    """When each leaf was used and the leaf, least recently used first."""
    leaves = [n for n in self.nodes() if not n.children and n not in pinned]
    leaves.sort(key=lambda node: node.used)
    return collections.deque((node.used, node) for node in leaves)

  def _evict(self, leaf: Node) -> None:
    self.idle.pop(leaf, None)
    self._empty(leaf)
    parent = leaf.parent
    assert parent is not None
    del parent.children[leaf.tokens]
    if parent.page is not None and not parent.children and not parent.users:
      # As old as its youngest child, which was the oldest leaf until now.
      self.idle[parent] = None
      self.idle.move_to_end(parent, last=False)

  def _empty(self, node: Node) -> None:
    node.page = None
    if self.memories is not None:
      self.memories.drop(node)
    if self.windows is not None:
      self.windows.drop(node)

  def clear(self) -> None:
    """Frees every page; states keep their tokens and are read again."""
    for node in list(self.nodes()):
      self._empty(node)
      node.children = {}
    self._root.children = {}
    self.idle.clear()
    self._oldest.clear()


def _up(node: Node) -> Iterator[Node]:
  """The node and those before it, but for the root."""
  while node.parent is not None:
    yield node
    node = node.parent


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
  """Length of the common beginning."""
  count = 0
  for one, other in zip(left, right):
    if one != other:
      break
    count += 1
  return count
