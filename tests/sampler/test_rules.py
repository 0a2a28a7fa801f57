"""What may be drawn: filters against a reference, choices, stops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.sampler import Request, Rules, Sampler
from leafe_jax.sampler.choices import DONE, build_trie
from leafe_jax.sampler.drawing import Filters, draw, invert, kept
from tests.sampler.tiny import POLICY, SAMPLER

CHOICES = ((3, 1), (3, 2, 1), (5, 1), (7, 7, 7, 1))


def reference(weights, top_k, top_p, min_p):
  """Tokens that pass, one by one, in float64."""
  order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
  order = order[: top_k or len(order)]
  total, reached, passing = sum(weights[i] for i in order), 0.0, set()
  for i in order:
    if passing and (top_p < 1 and reached >= top_p * total):
      break
    reached += weights[i]
    if not passing or weights[i] >= min_p * weights[order[0]]:
      passing.add(i)
  return passing


@given(
    # Sixteenths, so that sums and shares are exact in float32.
    weights=st.lists(st.integers(0, 16), min_size=6, max_size=6),
    top_k=st.integers(0, 7),
    top_p=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    min_p=st.sampled_from([0.0, 0.125, 0.5, 1.0]),
)
def test_filters_keep_what_the_reference_keeps(weights, top_k, top_p, min_p):
  weights[0] = 16  # the heaviest weighs 1, as in `draw`
  weights = np.asarray(weights, np.float32) / 16
  filters = Filters(*(jnp.asarray([value]) for value in (top_k, top_p, min_p)))
  mask = kept(jnp.asarray(weights)[None], filters)[0]
  assert set(np.flatnonzero(mask)) == reference(weights.tolist(), top_k, top_p, min_p)


@given(
    # Whole numbers and shares of 1/256: all sums and products are exact.
    weights=st.lists(
        st.sampled_from([0, 0, 0, 1, 3, 1000]), min_size=150, max_size=150
    ),
    empty=st.integers(0, 149),
    shares=st.lists(st.integers(0, 255), min_size=4, max_size=4),
)
def test_a_share_is_found_where_the_running_sum_first_exceeds_it(
    weights, empty, shares
):
  weights[:empty] = [0] * empty  # whole blocks without weight
  weights[-1] += not any(weights)
  uniform = np.asarray(shares, np.float32) / 256
  found = invert(jnp.tile(jnp.asarray(weights, jnp.float32), (4, 1)), uniform)
  running = np.cumsum(weights)
  marks = np.asarray(shares) * running[-1] / 256
  np.testing.assert_array_equal(found, np.searchsorted(running, marks, side='right'))


@pytest.mark.parametrize('size', [5, 64, 1000])
def test_what_weighs_nothing_is_never_drawn(size):
  rng = np.random.default_rng(size)
  weights = rng.exponential(size=(64, size)) * (rng.random((64, size)) < 0.1)
  weights[:, rng.integers(size)] = 1e-30
  weights = jnp.asarray(weights, jnp.float32)
  for share in (0.0, 0.5, 1 - 2**-24):
    places = invert(weights, jnp.full(64, share, jnp.float32))
    assert jnp.take_along_axis(weights, places[:, None], axis=1).min() > 0


def test_draws_follow_the_filtered_and_renormalised_distribution():
  logits = jnp.asarray([0.3, -1.0, 2.0, 0.0])
  count = 4000
  grid = (jnp.arange(count) + 0.5) / count
  columns = [jnp.full(count, value) for value in (2, 1.0, 0.0)]
  tokens, logprobs = draw(
      jnp.tile(logits, (count, 1)), grid, jnp.float32(0.5), Filters(*columns)
  )
  weights = np.exp(np.asarray(logits) / 0.5) * np.array([1, 0, 1, 0])
  shares = np.bincount(tokens, minlength=4) / count
  np.testing.assert_allclose(shares, weights / weights.sum(), atol=1e-3)
  # What is recorded is the policy's own, unfiltered and at temperature 1.
  np.testing.assert_allclose(logprobs, jax.nn.log_softmax(logits)[tokens], atol=1e-6)


@pytest.mark.parametrize(
    'value', [{'top_k': -1}, {'top_p': 0.0}, {'min_p': 1.5}, {'stop_strings': ('',)}]
)
def test_filters_that_make_no_sense_are_refused(value):
  with pytest.raises(ValueError, match=next(iter(value))):
    Rules(**value)


def test_filters_are_free_when_off_and_their_own_program_when_on(sampler):
  state = sampler.extend(sampler.empty(), [1, 2, 3])
  for _ in range(2):  # the second stores what the first wrote
    sampler.sample([Request(state, (0, 0))], Rules())
  before = sampler.num_programs
  plain = sampler.sample([Request(state, (0, 0))], Rules(top_k=0, top_p=1.0))[0]
  assert sampler.num_programs == before
  greedy = sampler.sample([Request(state, (0, 0))], Rules(top_k=1))[0]
  assert sampler.num_programs == before + 1
  best = sampler.sample([Request(state, (0, 0))], Rules(temperature=0.0))[0]
  assert greedy.tokens == best.tokens != plain.tokens


def test_a_trie_names_its_choices():
  trie = build_trie(CHOICES)
  assert trie.longest == 4 and len(trie.edges) == 10
  assert [trie.node_after(choice) for choice in CHOICES] == [DONE] * 4
  assert trie.node_after((3,)) == trie.node_after([3]) > 0


@pytest.mark.parametrize('choices', [(), ((),), ((1, 2), (1,)), ((1,), (1, 2))])
def test_choices_without_an_end_are_refused(choices):
  with pytest.raises(ValueError, match='choice'):
    build_trie(choices)


def test_a_constrained_response_is_one_of_the_list(sampler, logprobs_of):
  text = [1, 2, 3, 4, 5]
  state = sampler.extend(sampler.empty(), text)
  requests = [Request(state, (9, i)) for i in range(200)]
  samples = sampler.sample(requests, Rules(max_tokens=4, choices=CHOICES))
  assert all(sample.stopped for sample in samples)
  counts = dict.fromkeys(CHOICES, 0)
  for sample in samples:
    counts[tuple(sample.tokens)] += 1
  expected = chances(logprobs_of, text)
  for choice, count in counts.items():
    spread = 4 * np.sqrt(expected[choice] * (1 - expected[choice]) / 200)
    assert abs(count / 200 - expected[choice]) < spread + 1e-6
  for sample in samples[:4]:
    expected = logprobs_of(text + sample.tokens)[len(text) :]
    np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4)


def chances(logprobs_of, text):
  """Probability of each choice, the policy restricted to the trie's children."""
  result = {}
  for choice in CHOICES:
    chance = 1.0
    for i in range(len(choice)):
      siblings = sorted({c[i] for c in CHOICES if c[:i] == choice[:i] and len(c) > i})
      weights = {
          token: np.exp(logprobs_of([*text, *choice[:i], token])[-1])
          for token in siblings
      }
      chance *= weights[choice[i]] / sum(weights.values())
    result[choice] = chance
  assert abs(sum(result.values()) - 1) < 1e-5
  return result


def test_a_choice_longer_than_the_response_is_refused(sampler):
  state = sampler.extend(sampler.empty(), [1])
  with pytest.raises(ValueError, match='4 tokens; max_tokens is 3'):
    sampler.sample([Request(state, (0, 0))], Rules(max_tokens=3, choices=CHOICES))
  assert sampler.poll() == {}


def test_a_stop_string_ends_a_response_with_the_token_that_completes_it(
    mesh, params, sampler
):
  speaking = Sampler(
      POLICY, SAMPLER, mesh, decode=lambda ids: ''.join(chr(97 + i) for i in ids)
  )
  speaking.load(params, 0)
  state = speaking.extend(speaking.empty(), [1, 2, 3])
  free = speaking.sample([Request(state, (3, 0))], Rules())[0]
  string = ''.join(chr(97 + i) for i in free.tokens[2:4])
  rules = Rules(stop_strings=('no such text', string))
  sample = speaking.sample([Request(state, (3, 0))], rules)[0]
  text = ''.join(chr(97 + i) for i in sample.tokens)
  assert text.endswith(string) and text.count(string) == 1 and sample.stopped
  assert sample.tokens == free.tokens[: len(sample.tokens)]
  assert sample.state.length == state.length + len(sample.tokens)
  more = [4, 5]
  [after] = speaking.sample(
      [Request(speaking.extend(sample.state, more), (1, 1))], Rules()
  )
  fresh = sampler.extend(sampler.empty(), [1, 2, 3, *sample.tokens, *more])
  assert after.tokens == sampler.sample([Request(fresh, (1, 1))], Rules())[0].tokens
  with pytest.raises(ValueError, match='decode'):
    sampler.sample([Request(fresh, (0, 0))], rules)
