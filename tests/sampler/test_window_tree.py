"""Window pages on the host: where a transcript can be gone on from, what goes first."""

import dataclasses

import hypothesis.stateful as stateful
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.sampler import State, windows
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.memories import Memories
from leafe_jax.sampler.pages import Fresh, PagePool
from leafe_jax.sampler.radix import Lease, RadixTree
from leafe_jax.sampler.shards import Shards
from leafe_jax.sampler.windows import Windows
from tests.sampler.tiny import POLICY, SAMPLER

PAGE, PAGES, NEAR, REACHED = 2, 16, 7, 2  # a window of three or four tokens


def build(keep=True, near=NEAR, pages=PAGES, reached=REACHED):
  pool, near_pool = PagePool(pages), PagePool(near)
  kept = Windows(near_pool, reached, keep)
  return pool, near_pool, RadixTree(pool, PAGE, keep, windows=kept)


def grow(tree, pool, near, lease, length, tokens):
  """Writes tokens after a transcript, as a dispatch does."""
  count = -(-(length % PAGE + len(tokens)) // PAGE)
  fresh = Fresh(pool.take(count), near=near.take(count))
  return tree.insert(lease, length, tuple(tokens), fresh)


def test_what_is_found_ends_where_a_window_is_whole():
  pool, near, tree = build()
  lease = grow(tree, pool, near, None, 0, range(11))
  assert lease.ready and near.num_free == NEAR - 6
  gone = lease.path()[1]
  tree.windows.drop(gone)
  for text, found in (
      (range(11), 11),  # the last two pages have theirs
      ([*range(7), 99], 7),
      ([*range(5), 99], 2),  # the window of token 5 begins in the page that has none
      ([0, 99], 1), ([99], 0),
  ):
    found_lease, length = tree.match([*text])
    assert length == found
    assert found_lease is None or found_lease.ready
  again = grow(tree, pool, near, tree.match([0, 1])[0], 2, [2, 3, 4])
  assert gone.near is not None and again.path()[1] is gone  # healed, its page its own
  assert tree.match([*range(5), 99])[1] == 5


def test_with_memories_a_place_needs_both():
  pool, near, memories = PagePool(9), PagePool(9), PagePool(3)
  tree = RadixTree(pool, PAGE, True, 0, Memories(memories), Windows(near, REACHED))
  fresh = Fresh(pool.take(2), memories.take(1)[0], near.take(2))
  lease = tree.insert(None, 0, (1, 2, 3), fresh)
  assert lease.ready and tree.match([1, 2, 3, 4])[1] == 3
  tree.windows.drop(lease.path()[0])
  assert not lease.ready and tree.match([1, 2, 3, 4]) == (None, 0)


def test_idle_pages_go_first_then_places_of_branches_as_a_whole_oldest_first():
  pool, near, tree = build(near=10)
  long = grow(tree, pool, near, None, 0, range(8))  # four pages, two in its window
  other = grow(tree, pool, near, None, 0, [9, 9, 9])
  last = grow(tree, pool, near, None, 0, [8, 8, 8, 8])
  assert tree.windows.num_idle == 2
  assert tree.windows.make_room(4) and not tree.windows.make_room(5)
  assert long.ready and other.ready and last.ready
  assert tree.windows.put_back(5, {last.node}) == 1
  assert not long.ready and other.ready  # one page of a place is as bad as both
  assert tree.windows.put_back(6, {last.node}) == 1 and other.ready
  # What is held stays, however much is asked for.
  assert tree.windows.put_back(9, {last.node, other.node}) == 0
  assert tree.windows.put_back(8, {last.node}) == 2
  assert last.ready and not other.ready and near.num_free == 8
  assert pool.num_free == PAGES - 8  # the pages themselves stay


def test_without_reuse_pages_behind_every_window_are_free_at_once():
  pool, near, tree = build(keep=False, near=9)
  lease = grow(tree, pool, near, None, 0, range(9))
  assert near.num_free == 9 - REACHED and pool.num_free == PAGES - 5
  grown = grow(tree, pool, near, lease, 9, range(7))
  assert near.num_free == 9 - 2 * REACHED  # the place of a branch, and the end
  del lease
  assert near.num_free == 9 - REACHED
  assert grown.ready


class TreeMachine(stateful.RuleBasedStateMachine):
  """Growth, branches, drops and evictions against a model of what pages hold."""

  def __init__(self):
    super().__init__()
    self.pool, self.near, self.tree = build()
    self.live: list[tuple[Lease | None, tuple[int, ...]]] = [(None, ())]

  def _place(self, pick):
    """A transcript to go on from: as it is, or from where it can be read again."""
    lease, text = self.live[pick % len(self.live)]
    if lease is None or lease.ready:
      return lease, text, ()
    found, length = self.tree.match(text)
    return found, text[:length], text[length:]

  @stateful.rule(
      pick=st.integers(0, 99),
      tokens=st.lists(st.integers(0, 2), min_size=1, max_size=5),
  )
  def grow(self, pick, tokens):
    lease, text, again = self._place(pick)
    tokens = (*again, *tokens)[: 2 * PAGE]
    count = -(-(len(text) % PAGE + len(tokens)) // PAGE)
    held = {lease.node} if lease is not None else set()
    self.tree.clock += 1
    if not self.tree.make_room(count):
      self.tree.put_back(count, held)
    self.tree.windows.put_back(count, held)
    if self.pool.num_free >= count:
      # Whatever else is alive, one row can go on: its window stays and there is room.
      assert self.near.num_free >= count
      assert lease is None or lease.ready
      found = grow(self.tree, self.pool, self.near, lease, len(text), tokens)
      assert found.ready
      self.live.append((found, text + tokens))

  @stateful.rule(pick=st.integers(0, 99))
  def drop(self, pick):
    if len(self.live) > 1:
      self.live.pop(1 + pick % (len(self.live) - 1))

  @stateful.rule(text=st.lists(st.integers(0, 2), max_size=9))
  def find(self, text):
    lease, length = self.tree.match(text)
    if lease is not None:
      assert lease.ready
      self.live.append((lease, tuple(text[:length])))

  @stateful.rule(count=st.integers(0, PAGES), pick=st.integers(0, 99))
  def put_back(self, count, pick):
    lease, _ = self.live[pick % len(self.live)]
    self.tree.put_back(count, {lease.node} if lease is not None else set())

  @stateful.rule(count=st.integers(0, NEAR), pick=st.integers(0, 99))
  def make_room(self, count, pick):
    lease, _ = self.live[pick % len(self.live)]
    held = {lease.node} if lease is not None else set()
    whole = lease is not None and lease.ready
    self.tree.windows.put_back(count, held)
    assert not whole or lease.ready

  @stateful.rule()
  def clear(self):
    self.tree.clear()
    assert (self.pool.num_free, self.near.num_free) == (PAGES, NEAR)

  @stateful.invariant()
  def window_pages_have_one_owner_beside_a_page_and_none_leaks(self):
    nodes = [node for node in self.tree.nodes() if node.near is not None]
    assert len({node.near.id for node in nodes}) == len(nodes)
    assert len(nodes) + self.near.num_free == NEAR
    assert all(node.page is not None for node in nodes)

  @stateful.invariant()
  def it_is_known_whose_window_reaches_what(self):
    leased = {lease.node for lease, _ in self.live if lease is not None}
    wanted = {}
    for node in leased:
      for near in self.tree.windows.reach(node):
        wanted[near] = wanted.get(near, 0) + 1
    found = [node for node in self.tree.nodes() if node.near is not None]
    assert all(node.reached == wanted.get(node, 0) for node in found)
    kept = self.tree.windows
    assert {*kept._wanted} == {node for node in found if node in wanted}
    assert {*kept._idle} == {node for node in found if node not in wanted}


TestTree = TreeMachine.TestCase


@given(
    window=st.integers(1, 19), page=st.integers(1, 8), cached=st.integers(1, 60),
    ahead=st.integers(0, 9),
)
def test_a_row_is_given_the_pages_that_its_window_reaches_and_no_others(
    window, page, cached, ahead
):
  """At borders of pages, windows smaller than a page, equal to it, and larger."""
  sampler = dataclasses.replace(
      SAMPLER, page_size=page, prefill_buckets=(10,), length_buckets=(70,)
  )
  buckets = Buckets(sampler, 70, window=window)
  shards = Shards(buckets, 99, True, num_window_pages=99)
  text = tuple(range(cached + ahead))
  row = Row(0, State(0, pending=text), len(text))
  long = shards.insert(row, text, shards.take(row))
  lease, length = shards.match(0, text[:cached])
  assert length == cached
  nodes, first = lease.path(), max(0, cached - window + 1)
  reached = windows.nodes_reached(window, page)
  assert cached // page - first // page <= reached
  for node in nodes[:-reached]:  # what no window reaches may be gone
    node.near = None
  state = State(0, lease, cached, (1, 2))
  assert lease.ready and long is not None
  row = Row(0, state, 2)
  batch = buckets.fill([row], [shards.take(row)], 0, 99)
  near, full = batch.near, cached // page
  count = int(near.length[0]) // page
  assert int(batch.prefix_length[0] - near.length[0]) == first // page * page
  assert near.pages[0, :count].tolist() == [
      node.near.id for node in nodes[first // page : full]
  ]
  assert count <= near.pages.shape[1] <= -(-max(window - 1, 0) // page)
  if cached % page:
    assert near.tail_page[0] == nodes[full].near.id


def test_the_pool_has_two_windows_a_row_or_what_is_asked_for(mesh):
  policy = dataclasses.replace(POLICY, layer_kinds=('sliding', 'full'), window=6)
  many = dataclasses.replace(SAMPLER, num_pages=4096, decode_chunk=4)

  def count(policy=policy, **changes):
    return windows.num_pages(policy, dataclasses.replace(many, **changes), mesh)

  written = -(-(3 + 8 + 4) // 4)
  assert count() == 8 * 2 * 2 + 4 * written
  assert count(num_window_pages=50) == 50 and count(num_pages=40) == 40
  assert count(POLICY) == 0
  with pytest.raises(ValueError, match='num_window_pages is 4: a row reads 2 .* 5 or'):
    count(num_window_pages=4)


def test_shards_hand_out_window_pages_of_their_own():
  shards = Shards(Buckets(SAMPLER, 48, num_shards=3, window=6), 96, True, 0, 30)
  row = Row(0, State(0, pending=(1, 2, 3)), 3, shard=2)
  fresh = shards.take(row)
  assert [20 <= page.id < 30 for page in fresh.near] == [True]
  assert shards.num_free_near == 29
