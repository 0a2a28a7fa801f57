"""Pages behind a window are given back, and nothing that is sampled tells."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leafe_jax.sampler import OutOfPages, Request, Rules, Sampler, windows
from tests.sampler.test_windows import MIXED, SAMPLER, VOCAB, forward, weights
from tests.sampler.tiny import POLICY

FEW = 6  # window pages, the fewest; a chat of 44 tokens has 11 pages, its window two
RULES = Rules(max_tokens=3)
SPARSE = dataclasses.replace(SAMPLER, num_window_pages=FEW, decode_chunk=4)
REACHED = windows.nodes_reached(MIXED.window, SAMPLER.page_size)


@pytest.fixture(scope='module')
def shared(mesh):
  return Sampler(MIXED, SPARSE, mesh)


@pytest.fixture(scope='module')
def params():
  return weights(MIXED)


@pytest.fixture
def sampler(shared, params):
  shared.load(params, 7)
  assert shared.num_free_window_pages == FEW
  return shared


@pytest.fixture(scope='module')
def logprobs_of(params):
  return forward(params, MIXED)


def draw(length, *seed):
  return np.random.default_rng([length, *seed]).integers(0, VOCAB, length).tolist()


def ask(sampler, state, *key, rules=RULES):
  return sampler.sample([Request(state, key or (0, 0))], rules)[0]


def chat(sampler, turns=7, start=5):
  """A transcript of some turns: the states before each of them, and the samples."""
  state, states, samples = sampler.extend(sampler.empty(), draw(start)), [], []
  for turn in range(turns):
    states.append(state)
    samples.append(ask(sampler, state, turn, 0))
    state = sampler.extend(samples[-1].state, draw(3, turn))
  return states, samples


def check(sample, logprobs_of):
  """Whether it has the probabilities of a forward pass over its transcript."""
  tokens = sample.state.tokens
  expected = logprobs_of(tokens)[len(tokens) - len(sample.tokens) :]
  np.testing.assert_allclose(sample.logprobs, expected, atol=2e-4)


def test_a_long_chat_lives_on_a_few_window_pages(sampler, logprobs_of):
  states, samples = chat(sampler)
  for sample in samples:
    check(sample, logprobs_of)
  assert len(samples[-1].state.tokens) > 40
  # Every token has a page of the layers that see all, and few of the others'.
  live = SAMPLER.num_pages - sampler.num_free_pages
  assert live >= len(samples[-1].state.tokens) // SAMPLER.page_size > FEW - 1
  assert sampler.stats.put_back == 0
  assert sampler.stats.prompt_tokens == 5 + 6 * (3 + 1)  # nothing was read again
  assert not states[0].lease and states[-1].lease.ready and not states[1].lease.ready


def test_a_branch_may_begin_before_any_turn(sampler, logprobs_of):
  """Where its window is gone it is read again from the last place that has one."""
  states, samples = chat(sampler)
  known = {turn: states[turn].lease.ready for turn in range(1, 7)}
  assert {*known.values()} == {True, False}
  for turn in (6, 1, 4, 0, 2):
    again = ask(sampler, states[turn], turn, 0)
    assert again.tokens == samples[turn].tokens
    other = ask(sampler, sampler.extend(states[turn], draw(2, turn)), turn, 1)
    check(again, logprobs_of)
    check(other, logprobs_of)
  sampler.forget()
  for turn in (0, 3, 6):  # a rollback after every page is gone, likewise
    assert ask(sampler, states[turn], turn, 0).tokens == samples[turn].tokens


def test_what_is_near_is_not_read_again(sampler):
  states, _ = chat(sampler)
  read = sampler.stats.prompt_tokens
  ask(sampler, sampler.extend(states[6], [1, 2]), 9, 9)
  assert sampler.stats.prompt_tokens - read == len(states[6].pending) + 2
  read = sampler.stats.prompt_tokens
  far = ask(sampler, states[1], 9, 9)
  assert sampler.stats.prompt_tokens - read == states[1].length
  read = sampler.stats.prompt_tokens
  ask(sampler, sampler.extend(far.state, [1]), 9, 9)
  assert sampler.stats.prompt_tokens - read == 2  # it has its window again


def test_many_rows_at_a_time_share_too_few_pages(sampler, logprobs_of):
  """Rows wait and are put back; the same calls give the same bits again."""
  texts = [draw(length, 5) for length in (1, 9, 14, 22, 22, 30)]
  texts[4][:20] = texts[3][:20]

  def play():
    states = [sampler.extend(sampler.empty(), text) for text in texts]
    found = []
    for turn in range(2):
      requests = [
          Request(state, (turn, 2 * i + twin))
          for i, state in enumerate(states) for twin in (0, 1)
      ]
      samples = sampler.sample(requests, Rules(max_tokens=6, stop_ids=(3,)))
      found += samples
      states = [sampler.extend(sample.state, draw(2)) for sample in samples[::2]]
    return found

  first = play()
  assert sampler.stats.waits > 0
  for sample in first:
    check(sample, logprobs_of)
  sampler.forget()  # as a journal does at its points
  again = play()
  assert [s.tokens for s in again] == [s.tokens for s in first]
  assert [s.logprobs for s in again] == [s.logprobs for s in first]


@settings(
    max_examples=10, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    shared_tokens=st.integers(0, 20),
    seed=st.integers(0, 9),
)
def test_pages_for_one_row_are_enough_for_any_run(
    sampler, logprobs_of, lengths, shared_tokens, seed
):
  sampler.forget()
  rng = np.random.default_rng(seed)
  start = rng.integers(0, VOCAB, shared_tokens).tolist()
  states = [
      sampler.extend(sampler.empty(), start + rng.integers(0, VOCAB, n).tolist())
      for n in lengths
  ]
  [sample] = sampler.sample(
      [Request(states[0], (0, 0))], Rules(max_tokens=int(rng.integers(1, 9)))
  )
  states.append(sample.state)
  for turn in range(2):
    # Places of branches far apart, all alive, gone on from in any order.
    order = rng.permutation(len(states))[:5]
    samples = sampler.sample(
        [Request(sampler.extend(states[i], [turn]), (turn, int(i))) for i in order],
        Rules(max_tokens=int(rng.integers(1, 9))),
    )
    for sample in samples:
      if not sample.overlong:
        check(sample, logprobs_of)
    states += [sample.state for sample in samples]


def test_without_reuse_only_windows_stay(mesh, params):
  config = dataclasses.replace(SPARSE, prefix_reuse=False)
  sampler = Sampler(MIXED, config, mesh)
  sampler.load(params, 7)
  sample = ask(sampler, sampler.extend(sampler.empty(), draw(30)))
  pages = -(-sample.state.cached // SAMPLER.page_size)
  assert SAMPLER.num_pages - sampler.num_free_pages == pages == 8
  assert FEW - sampler.num_free_window_pages == REACHED == 2
  del sample
  assert sampler.num_free_window_pages == FEW


def test_a_row_that_does_not_fit_names_the_option(mesh, params):
  config = dataclasses.replace(SPARSE, num_window_pages=5, decode_chunk=0)
  sampler = Sampler(MIXED, config, mesh)
  sampler.load(params, 7)
  with pytest.raises(OutOfPages, match='window .* raise sampler.num_window_pages'):
    ask(sampler, sampler.extend(sampler.empty(), draw(8)), rules=Rules(max_tokens=20))


def test_a_policy_without_windows_has_no_such_pages(mesh):
  assert Sampler(POLICY, SAMPLER, mesh).num_free_window_pages == 0
