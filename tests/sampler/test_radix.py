"""Pages by their tokens: found again, counted exactly, taken back in order."""

import hypothesis.stateful as stateful
from hypothesis import strategies as st

from leafe_jax.sampler.pages import Fresh, PagePool
from leafe_jax.sampler.radix import Lease, RadixTree

PAGE, PAGES = 2, 12


def grow(tree, pool, lease, length, tokens):
  """Writes tokens after a transcript, as a dispatch does."""
  offset = length % PAGE
  count = -(-(offset + len(tokens)) // PAGE)
  return tree.insert(lease, length, tuple(tokens), Fresh(pool.take(count)))


def build(keep=True):
  pool = PagePool(PAGES)
  return pool, RadixTree(pool, PAGE, keep)


def test_the_longest_beginning_is_found_page_by_page_and_within_the_last():
  pool, tree = build()
  lease = grow(tree, pool, None, 0, [1, 2, 3, 4, 5])
  for text, found in (
      ([1, 2, 3, 4, 5, 6], 5), ([1, 2, 3, 9], 3), ([1, 9], 1), ([9], 0), ([], 0),
  ):
    match, length = tree.match(text)
    assert length == found
    assert (match is None) == (found == 0)
  assert [node.tokens for node in lease.path()] == [(1, 2), (3, 4), (5,)]


def test_what_two_rows_read_alike_is_kept_once():
  pool, tree = build()
  first = grow(tree, pool, None, 0, [1, 2, 3])
  second = grow(tree, pool, None, 0, [1, 2, 3])
  assert first.node is second.node
  assert pool.num_free == PAGES - 2


def test_a_half_filled_page_is_copied_not_changed():
  pool, tree = build()
  root = grow(tree, pool, None, 0, [1, 2, 3])
  grown = grow(tree, pool, root, 3, [4, 5])
  assert [node.tokens for node in grown.path()] == [(1, 2), (3, 4), (5,)]
  assert root.node.tokens == (3,) and root.node.page is not None
  assert root.path()[0] is grown.path()[0]


def test_unused_pages_stay_until_the_pool_needs_them_oldest_first():
  pool, tree = build()
  old = grow(tree, pool, None, 0, [1, 2, 3, 4])
  new = grow(tree, pool, None, 0, [5, 6])
  del old
  del new
  assert pool.num_free == PAGES - 3 and tree.num_idle() == 3
  assert tree.make_room(PAGES - 2)
  assert tree.match([1, 2, 3, 4])[1] == 2 and tree.match([5, 6])[1] == 2
  assert tree.make_room(PAGES - 1)
  assert tree.match([1, 2])[1] == 0 and tree.match([5, 6])[1] == 2


def test_states_that_wait_are_put_back_but_for_the_pinned_and_keep_their_tokens():
  pool, tree = build()
  shared = grow(tree, pool, None, 0, [1, 2])
  old = grow(tree, pool, shared, 2, [3, 4])
  tree.clock += 1
  new = grow(tree, pool, shared, 2, [5, 6])
  assert not tree.make_room(PAGES - 1)
  assert tree.put_back(PAGES - 2, {new.node}) == 1
  assert old.node.page is None and new.node.page is not None
  assert [node.tokens for node in old.path()] == [(1, 2), (3, 4)]
  assert tree.put_back(PAGES, {new.node}) == 0  # pins hold what is before them
  assert pool.num_free == PAGES - 2


def test_without_reuse_a_page_is_free_with_its_last_lease():
  pool, tree = build(keep=False)
  root = grow(tree, pool, None, 0, [1, 2])
  branch = grow(tree, pool, root, 2, [3])
  del root
  assert pool.num_free == PAGES - 2
  del branch
  assert pool.num_free == PAGES


class TreeMachine(stateful.RuleBasedStateMachine):
  """Random growth, forks, drops, evictions against a model of transcripts."""

  def __init__(self):
    super().__init__()
    self.pool, self.tree = build()
    self.live: list[tuple[Lease | None, tuple[int, ...]]] = [(None, ())]

  def _usable(self):
    return [
        (lease, text)
        for lease, text in self.live
        if lease is None or lease.node.page is not None
    ]

  @stateful.rule(
      pick=st.integers(0, 99),
      tokens=st.lists(st.integers(0, 2), min_size=1, max_size=5),
  )
  def grow(self, pick, tokens):
    usable = self._usable()
    lease, text = usable[pick % len(usable)]
    pages = -(-(len(text) % PAGE + len(tokens)) // PAGE)
    self.tree.clock += 1
    pinned = {lease.node} if lease is not None else set()
    if not self.tree.make_room(pages):
      self.tree.put_back(pages, pinned)
    if self.pool.num_free >= pages:
      grown = grow(self.tree, self.pool, lease, len(text), tokens)
      self.live.append((grown, text + tuple(tokens)))

  @stateful.rule(pick=st.integers(0, 99))
  def fork(self, pick):
    self.live.append(self.live[pick % len(self.live)])

  @stateful.rule(pick=st.integers(0, 99))
  def drop(self, pick):
    if len(self.live) > 1:
      self.live.pop(1 + pick % (len(self.live) - 1))

  @stateful.rule(text=st.lists(st.integers(0, 2), max_size=7))
  def find(self, text):
    lease, length = self.tree.match(text)
    if lease is not None:
      self.live.append((lease, tuple(text[:length])))

  @stateful.rule(count=st.integers(0, PAGES))
  def evict(self, count):
    self.tree.make_room(count)

  @stateful.rule(count=st.integers(0, PAGES), pick=st.integers(0, 99))
  def put_back(self, count, pick):
    lease, _ = self.live[pick % len(self.live)]
    pinned = {lease.node} if lease is not None and lease.node.page else set()
    self.tree.put_back(count, pinned)
    assert all(node.page is not None for node in pinned)

  @stateful.rule()
  def clear(self):
    self.tree.clear()
    assert self.pool.num_free == PAGES

  @stateful.invariant()
  def pages_have_one_owner_and_none_leaks(self):
    nodes = list(self.tree.nodes())
    ids = [node.page.id for node in nodes]
    assert len(set(ids)) == len(ids)
    assert len(ids) + self.pool.num_free == PAGES

  @stateful.invariant()
  def users_are_counted_exactly(self):
    leases = {id(lease): lease for lease, _ in self.live if lease is not None}
    for node in self.tree.nodes():
      assert node.users == sum(lease.node is node for lease in leases.values())
      idle = not node.users and not node.children
      assert (node in self.tree.idle) == idle
      assert not node.children or len(node.tokens) == PAGE
    assert all(node.page is not None for node in self.tree.idle)

  @stateful.invariant()
  def states_keep_their_tokens(self):
    for lease, text in self.live:
      path = lease.path() if lease is not None else []
      spelt = [token for node in path for token in node.tokens]
      assert tuple(spelt[: len(text)]) == text


TestTree = TreeMachine.TestCase


def test_a_full_pool_is_not_searched_anew_for_every_page():
  pool = PagePool(1000)
  tree = RadixTree(pool, 1)
  leases = [tree.insert(None, 0, (i,), Fresh(pool.take(1))) for i in range(1000)]
  looks, nodes = [], tree.nodes
  tree.nodes = lambda: looks.append(1) or nodes()
  for count in range(1, 1001):
    assert tree.put_back(count, set()) == 1
  assert len(looks) == 1 and pool.num_free == 1000
  assert all(lease.node.page is None for lease in leases)


def test_what_was_used_since_the_last_search_is_not_among_the_oldest():
  pool = PagePool(3)
  tree = RadixTree(pool, 1)
  leases = []
  for token in range(3):
    tree.clock += 1
    leases.append(tree.insert(None, 0, (token,), Fresh(pool.take(1))))
  assert tree.put_back(1, set()) == 1
  tree.clock += 1
  again, _ = tree.match((1,))
  assert tree.put_back(2, set()) == 1
  assert [lease.node.page is None for lease in leases] == [True, False, True]
  assert again.node is leases[1].node
