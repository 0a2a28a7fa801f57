"""What a sampler promises: exact log-probabilities, free branches, no leaks."""

import jax
import numpy as np
import pytest

from leafe_jax.sampler import Request, Rules, Sampler, StaleState
from tests.sampler.tiny import POLICY, SAMPLER, VOCAB


def prompt(length, seed=0):
  return np.random.default_rng([length, seed]).integers(0, VOCAB, length).tolist()


RULES = Rules()


def ask(sampler, state, *key, rules=RULES):
  return sampler.sample([Request(state, key or (0, 0))], rules)[0]


def test_logprobs_of_samples_equal_the_training_forward(sampler, logprobs_of):
  texts = [prompt(n) for n in (1, 3, 4, 7, 9, 13, 21)]  # ragged, over page edges
  states = [sampler.extend(sampler.empty(), text) for text in texts]
  for turn in range(3):
    requests = [Request(state, (turn, i)) for i, state in enumerate(states)]
    samples = sampler.sample(requests, Rules(max_tokens=5))
    for i, sample in enumerate(samples):
      texts[i] = texts[i] + sample.tokens
      expected = logprobs_of(texts[i])[-len(sample.tokens) :]
      np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4)
      more = prompt(turn + i % 3, seed=turn)
      texts[i] = texts[i] + more
      states[i] = sampler.extend(sample.state, more)
      assert states[i].length == len(texts[i])


def test_a_sample_does_not_depend_on_its_batch(sampler):
  states = [sampler.extend(sampler.empty(), prompt(n)) for n in (2, 11, 5, 17, 8, 3)]
  requests = [Request(state, (5, i)) for i, state in enumerate(states)]
  together = sampler.sample(requests, Rules())
  backwards = sampler.sample(requests[::-1], Rules())[::-1]
  alone = [sampler.sample([request], Rules())[0] for request in requests]
  for others in (backwards, alone):
    assert [s.tokens for s in others] == [s.tokens for s in together]
    for other, sample in zip(others, together, strict=True):
      np.testing.assert_allclose(other.logprobs, sample.logprobs, atol=1e-5)


def test_different_keys_give_different_samples(sampler):
  state = sampler.extend(sampler.empty(), prompt(4))
  samples = sampler.sample([Request(state, (0, i)) for i in range(8)], Rules())
  assert len({tuple(sample.tokens) for sample in samples}) > 1


@pytest.mark.parametrize('length', [1, 6, 8, 13])
def test_a_fork_equals_a_fresh_prefill(sampler, length):
  text, more = prompt(length), prompt(5, seed=1)
  [root] = sampler.prefill([sampler.extend(sampler.empty(), text)])
  branch = sampler.extend(sampler.fork(root), more)
  other = sampler.extend(sampler.fork(root), prompt(6, seed=2))
  ask(sampler, other)  # writes beyond the shared prefix
  fresh = sampler.extend(sampler.empty(), text + more)
  forked, direct = ask(sampler, branch), ask(sampler, fresh)
  assert forked.tokens == direct.tokens
  np.testing.assert_allclose(forked.logprobs, direct.logprobs, atol=1e-5)


def test_old_states_stay_valid_after_branches_grew_from_them(sampler):
  [root] = sampler.prefill([sampler.extend(sampler.empty(), prompt(6))])
  state = sampler.extend(root, [1])
  first = ask(sampler, state)
  for turn in range(4):
    grown = ask(sampler, sampler.extend(first.state, prompt(3)), turn, 0).state
    ask(sampler, grown)
  again = ask(sampler, state)
  assert (again.tokens, again.logprobs) == (first.tokens, first.logprobs)


def test_a_shared_prefix_shares_its_full_pages(sampler):
  [root] = sampler.prefill([sampler.extend(sampler.empty(), prompt(10))])
  samples = sampler.sample(
      [Request(sampler.extend(root, [1]), (0, i)) for i in range(5)],
      Rules(max_tokens=2),
  )
  # 10 tokens are two full pages of 4, and 2 tokens that each branch copies.
  assert all(s.state.pages[:2] == root.pages[:2] for s in samples)
  own = {page for s in samples for page in s.state.pages[2:]}
  assert SAMPLER.num_pages - sampler.num_free_pages == len(root.pages) + len(own)


def test_temperature_zero_takes_the_most_probable_token(sampler, logprobs_of):
  text = prompt(6)
  state = sampler.extend(sampler.empty(), text)
  sample = ask(sampler, state, rules=Rules(temperature=0.0, max_tokens=1))
  best = max(range(VOCAB), key=lambda token: logprobs_of([*text, token])[-1])
  assert sample.tokens == [best]


def test_logprobs_are_of_the_policy_not_of_the_temperature(sampler, logprobs_of):
  text = prompt(5)
  state = sampler.extend(sampler.empty(), text)
  sample = ask(sampler, state, rules=Rules(temperature=2.5, max_tokens=6))
  expected = logprobs_of(text + sample.tokens)[len(text) :]
  np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4)


def test_a_response_ends_with_its_first_stop_token(sampler):
  state = sampler.extend(sampler.empty(), prompt(4))
  free = ask(sampler, state)
  assert (len(free.tokens), free.stopped) == (8, False)
  stop = free.tokens[3]
  sample = ask(sampler, state, rules=Rules(stop_ids=(stop, VOCAB + 1)))
  cut = free.tokens.index(stop) + 1
  assert (sample.tokens, sample.stopped) == (free.tokens[:cut], True)
  assert len(sample.logprobs) == cut
  assert sample.state.length == state.length + cut


def test_an_overlong_row_is_reported_and_the_others_are_sampled(sampler):
  fits = sampler.extend(sampler.empty(), prompt(40))
  too_long = sampler.extend(sampler.empty(), prompt(41))
  samples = sampler.sample([Request(s, (0, 0)) for s in (too_long, fits)], Rules())
  assert [sample.overlong for sample in samples] == [True, False]
  assert samples[0].tokens == [] and samples[0].state.length == 41
  assert len(samples[1].tokens) == 8
  with pytest.raises(ValueError, match='max_length is 48'):
    sampler.prefill([sampler.extend(sampler.empty(), prompt(49))])


def test_new_weights_make_old_states_stale(sampler, params):
  state = sampler.extend(sampler.empty(), prompt(3))
  sampler.load(params, 8)
  for use in (
      lambda: sampler.extend(state, [1]),
      lambda: sampler.prefill([state]),
      lambda: ask(sampler, state),
      lambda: sampler.fork(state),
  ):
    with pytest.raises(StaleState, match='version 7; .* version 8'):
      use()


def test_a_state_without_a_pending_token_cannot_be_sampled(sampler):
  [state] = sampler.prefill([sampler.extend(sampler.empty(), prompt(3))])
  with pytest.raises(ValueError, match='3 tokens has none pending'):
    ask(sampler, state)


def test_the_same_shapes_compile_nothing_twice(mesh, params):
  sampler = Sampler(POLICY, SAMPLER, mesh)
  sampler.load(params, 0)

  def roll_out(seed):
    states = [sampler.extend(sampler.empty(), prompt(n, seed)) for n in (3, 12)]
    for turn in range(3):
      requests = [Request(s, (seed, turn)) for s in states]
      rules = Rules(temperature=1.0 + seed, max_tokens=4 + seed)
      samples = sampler.sample(requests, rules)
      states = [sampler.extend(s.state, prompt(2, seed)) for s in samples]

  roll_out(0)
  programs = sampler.num_programs
  sampler.load(jax.tree.map(lambda x: x + 0.01, params), 1)
  roll_out(1)
  assert sampler.num_programs == programs
  assert programs == 4  # reading and decoding, each with its writing


def test_the_pool_is_donated(sampler):
  [before] = sampler._engine._pool.values()
  for seed in range(2):  # what the first one wrote is stored before the second
    sampler.prefill([sampler.extend(sampler.empty(), prompt(3, seed))])
  assert before.is_deleted()


def test_stats_count_what_was_read_shared_and_sampled(mesh, params, sampler):
  start = sampler.stats.prompt_tokens, sampler.stats.cached_tokens
  sampled = sampler.stats.sampled_tokens
  [root] = sampler.prefill([sampler.extend(sampler.empty(), prompt(9))])
  requests = [Request(sampler.extend(root, [1, 2]), (0, i)) for i in range(3)]
  sampler.sample(requests, Rules(max_tokens=3))
  assert sampler.stats.prompt_tokens - start[0] == 9 + 3 * 2
  assert sampler.stats.cached_tokens - start[1] == 3 * 9
  assert sampler.stats.sampled_tokens - sampled == 9
