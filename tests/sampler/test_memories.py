"""Memories of recurrent layers on the host: each serves one beginning alone."""

from hypothesis import given, settings
from hypothesis import strategies as st

from leafe_jax.sampler.memories import Memories
from leafe_jax.sampler.pages import Fresh, PagePool
from leafe_jax.sampler.radix import RadixTree

PAGE = 2


def build(num_pages=40, num_memories=6):
  pool, memories = PagePool(num_pages), PagePool(num_memories)
  return pool, memories, RadixTree(pool, PAGE, memories=Memories(memories))


def grow(tree, pool, memories, lease, length, tokens, keep=True):
  """Writes tokens after a transcript, as a dispatch does."""
  count = -(-(length % PAGE + len(tokens)) // PAGE)
  assert tree.make_room(count)
  tree.memories.put_back(1, {lease.node} if lease is not None else set())
  [memory] = memories.take(1)
  fresh = Fresh(pool.take(count), memory if keep else None)
  return tree.insert(lease, length, tuple(tokens), fresh)


def test_a_beginning_is_found_where_a_memory_is_not_where_pages_are():
  pool, memories, tree = build()
  first = grow(tree, pool, memories, None, 0, [1, 2, 3])
  last = grow(tree, pool, memories, first, 3, [4, 5, 6, 7])
  for text, found in (
      ([1, 2, 3, 4, 5, 6, 7, 8], 7), ([1, 2, 3, 4, 5, 6], 3), ([1, 2, 3], 3),
      ([1, 2], 0), ([9], 0), ([], 0),
  ):
    lease, length = tree.match(text)
    assert length == found
    assert (lease is None) == (found == 0)
    assert lease is None or lease.ready
  assert first.ready and last.ready


def test_what_was_decoded_too_far_leaves_no_memory():
  pool, memories, tree = build()
  lease = grow(tree, pool, memories, None, 0, [1, 2, 3], keep=False)
  assert not lease.ready and lease.node.page is not None
  assert tree.match([1, 2, 3, 4]) == (None, 0)
  assert memories.num_free == memories.num_pages


def test_memories_of_no_state_go_first_then_those_that_wait_but_for_the_pinned():
  pool, memories, tree = build(num_memories=3)
  old, kept, new = (
      grow(tree, pool, memories, None, 0, [token, 5]) for token in (1, 2, 3)
  )
  tree.match([1, 5])  # found, and let go of at once: used last
  node = new.node
  del new
  assert tree.memories.make_room(1)
  assert node.memory is None and node.page is not None
  assert not tree.memories.make_room(2)  # the rest belongs to states
  assert tree.memories.put_back(2, {old.node}) == 1
  assert old.ready and not kept.ready
  assert tree.memories.put_back(3, {old.node}) == 0 and old.ready


def test_a_page_takes_its_memory_with_it():
  pool, memories, tree = build()
  lease = grow(tree, pool, memories, None, 0, [1, 2, 3])
  tree.clear()
  assert not lease.ready
  assert (memories.num_free, pool.num_free) == (memories.num_pages, pool.num_pages)


@settings(deadline=None, max_examples=80)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 9), st.lists(st.integers(0, 1), min_size=1, max_size=5),
            st.booleans(), st.booleans(),
        ),
        max_size=25,
    )
)
def test_a_memory_that_is_found_has_seen_these_tokens_and_no_others(steps):
  pool, memories, tree = build(num_pages=120, num_memories=4)
  seen, live = {}, [(None, ())]  # id of a memory -> what it has seen
  for pick, tokens, keep, drop in steps:
    lease, text = live[pick % len(live)]
    if lease is not None and not lease.ready:
      lease, length = tree.match(text)
      assert lease is None or seen[lease.node.memory.id] == text[:length]
      tokens, text = [*text[length:], *tokens], text[:length]
    grown = grow(tree, pool, memories, lease, len(text), tokens, keep)
    text = (*text, *tokens)
    if grown.node.memory is not None:
      seen.setdefault(grown.node.memory.id, text)
      seen[grown.node.memory.id] = text
    live.append((grown, text))
    if drop and len(live) > 2:
      live.pop(1 + pick % (len(live) - 1))
    taken = [n.memory.id for n in tree.nodes() if n.memory is not None]
    assert len(set(taken)) == len(taken) == memories.num_pages - memories.num_free
    for lease, text in live[1:]:
      if lease.ready:
        assert seen[lease.node.memory.id] == text
