"""A policy with recurrent layers is sampled from like others: exact, branched, free."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leafe_jax.policy import model
from leafe_jax.sampler import Request, Rules, Sampler
from tests.drawn import draw_params
from tests.sampler.tiny import POLICY as PLAIN
from tests.sampler.tiny import SAMPLER as PLAIN_SAMPLER
from tests.sampler.tiny import VOCAB

POLICY = dataclasses.replace(
    PLAIN, num_layers=3, layer_kinds=('delta', 'full'), norm_plus_one=True,
    output_gate=True, rope_share=0.5, delta_key_heads=1, delta_value_heads=2,
    delta_key_dim=4, delta_value_dim=6, delta_taps=3,
)
SAMPLER = dataclasses.replace(PLAIN_SAMPLER, num_memories=24)
RULES = Rules(max_tokens=5)


@pytest.fixture(scope='module')
def params(mesh):
  params = draw_params(POLICY, VOCAB, mesh)
  return {name: 2 * value for name, value in params.items()}  # sharper choices


@pytest.fixture(scope='module')
def shared(mesh):
  return Sampler(POLICY, SAMPLER, mesh)


@pytest.fixture
def sampler(shared, params):
  shared.load(params, 7)
  return shared


@pytest.fixture(scope='module')
def logprobs_of(params):
  compute = jax.jit(lambda *rows: model.token_logprobs(params, POLICY, *rows))

  def logprobs(tokens):
    padding = POLICY.max_length - len(tokens)
    row = jnp.asarray([list(tokens) + [0] * padding], jnp.int32)
    place = jnp.arange(POLICY.max_length)[None]
    segments = (place < len(tokens)).astype(jnp.int32)
    return np.asarray(compute(row, place, segments))[0, : len(tokens)]

  return logprobs


def prompt(length, seed=0):
  return np.random.default_rng([length, seed]).integers(0, VOCAB, length).tolist()


def ask(sampler, state, *key, rules=RULES):
  return sampler.sample([Request(state, key or (0, 0))], rules)[0]


def test_logprobs_of_samples_equal_the_training_forward(sampler, logprobs_of):
  """Ragged prompts over several turns; rows that stop early stop remembering."""
  texts = [prompt(n) for n in (1, 3, 4, 7, 13, 21)]
  states = [sampler.extend(sampler.empty(), text) for text in texts]
  rules = Rules(max_tokens=5, stop_ids=(3, 5, 8))
  lengths = set()
  for turn in range(3):
    requests = [Request(state, (turn, i)) for i, state in enumerate(states)]
    for i, sample in enumerate(sampler.sample(requests, rules)):
      lengths.add(len(sample.tokens))
      texts[i] = texts[i] + sample.tokens
      expected = logprobs_of(texts[i])[-len(sample.tokens) :]
      np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4)
      more = prompt(1 + (turn + i) % 3, seed=turn)
      texts[i] = texts[i] + more
      states[i] = sampler.extend(sample.state, more)
  assert len(lengths) > 2


@pytest.mark.parametrize('length', [1, 6, 8, 13])
def test_a_branch_equals_a_fresh_prefill_and_costs_none(sampler, length):
  text, more = prompt(length), prompt(5, seed=1)
  [root] = sampler.prefill([sampler.extend(sampler.empty(), text)])
  read = sampler.stats.prompt_tokens
  branch = sampler.extend(sampler.fork(root), more)
  other = sampler.extend(sampler.fork(root), prompt(6, seed=2))
  ask(sampler, other)
  forked = ask(sampler, branch)
  assert sampler.stats.prompt_tokens - read == 5 + 6  # what is new alone
  sampler.forget()
  direct = ask(sampler, sampler.extend(sampler.empty(), text + more))
  assert forked.tokens == direct.tokens
  np.testing.assert_allclose(forked.logprobs, direct.logprobs, atol=5e-5)


def test_a_rollback_reads_nothing_again(sampler):
  state, states = sampler.extend(sampler.empty(), prompt(9)), []
  for turn in range(4):
    states.append(state)
    sample = ask(sampler, state, turn, 0)
    state = sampler.extend(sample.state, prompt(2, seed=turn))
  again = sampler.stats.prompt_tokens
  first = [ask(sampler, states[turn], turn, 0) for turn in (3, 1, 0, 2)]
  # Only what was pending is read; of the first prompt all but a token was there.
  assert sampler.stats.prompt_tokens - again == 1 + 3 * (1 + 2)
  fresh = [
      ask(sampler, sampler.extend(sampler.empty(), list(states[turn].tokens)), turn, 0)
      for turn in (3, 1, 0, 2)
  ]
  assert [s.tokens for s in first] == [s.tokens for s in fresh]


def test_a_prompt_given_anew_goes_on_from_the_last_memory(sampler):
  text = prompt(20)
  sample = ask(sampler, sampler.extend(sampler.empty(), text))
  whole = text + sample.tokens + prompt(3, seed=4)
  before = sampler.stats.prompt_tokens
  found = ask(sampler, sampler.extend(sampler.empty(), whole))
  assert sampler.stats.prompt_tokens - before == 1 + 3  # the last token said, and new
  # From the middle of what was read there is no memory but the one after a bucket.
  before = sampler.stats.prompt_tokens
  cut = ask(sampler, sampler.extend(sampler.empty(), [*text[:18], 1]))
  assert sampler.stats.prompt_tokens - before == 18 + 1 - 16
  sampler.forget()
  for other, tokens in ((found, whole), (cut, [*text[:18], 1])):
    fresh = ask(sampler, sampler.extend(sampler.empty(), tokens))
    assert other.tokens == fresh.tokens
    np.testing.assert_allclose(other.logprobs, fresh.logprobs, atol=5e-5)


@pytest.mark.slow('the host part is in test_memories')
def test_few_memories_cost_reading_not_rightness(mesh, params, logprobs_of):
  few = Sampler(POLICY, dataclasses.replace(SAMPLER, num_memories=2), mesh)
  few.load(params, 1)
  texts = [prompt(n) for n in (5, 9, 12)]
  states = [few.extend(few.empty(), text) for text in texts]
  for turn in range(2):
    samples = few.sample([Request(s, (turn, i)) for i, s in enumerate(states)], RULES)
    for i, sample in enumerate(samples):
      texts[i] = texts[i] + sample.tokens
      expected = logprobs_of(texts[i])[-5:]
      np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4)
      texts[i] = [*texts[i], turn]
      states[i] = few.extend(sample.state, [turn])
  assert few.stats.put_back > 0 or few.stats.prompt_tokens > 26 + 2 * 3


def test_a_response_cut_by_a_text_is_remembered_up_to_there(mesh, params, logprobs_of):
  sampler = Sampler(
      POLICY, SAMPLER, mesh, decode=lambda tokens: ' '.join(map(str, tokens))
  )
  sampler.load(params, 2)
  text = prompt(6)
  free = ask(sampler, sampler.extend(sampler.empty(), text))
  end = str(free.tokens[1])
  cut = ask(
      sampler, sampler.extend(sampler.empty(), text),
      rules=Rules(max_tokens=5, stop_strings=(end,)),
  )
  assert cut.tokens == free.tokens[: len(cut.tokens)] and len(cut.tokens) < 5
  whole = text + cut.tokens + [1, 2]
  after = ask(sampler, sampler.extend(cut.state, [1, 2]))
  expected = logprobs_of(whole + after.tokens)[len(whole) :]
  np.testing.assert_allclose(after.logprobs, expected, atol=1e-4)


def test_scanned_layers_and_pages_in_place_sample_the_same(mesh, sampler, params):
  def play(sampler):
    state = sampler.extend(sampler.empty(), prompt(11))
    found = []
    for turn in range(2):
      sample = ask(sampler, state, turn, 1)
      found.append(sample)
      state = sampler.extend(sample.state, prompt(2, seed=turn))
    return found

  wanted = play(sampler)
  scanned = dataclasses.replace(POLICY, scan_layers=True)
  for form in ('dense', 'paged'):
    other = Sampler(scanned, dataclasses.replace(SAMPLER, attention=form), mesh)
    other.load(params, 3)
    for one, two in zip(play(other), wanted, strict=True):
      assert one.tokens == two.tokens
      np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-4)


def test_what_cannot_be_sampled_from_is_refused_at_the_start(mesh):
  with pytest.raises(ValueError, match='num_memories is 1: .* give 2 or more'):
    Sampler(POLICY, dataclasses.replace(SAMPLER, num_memories=1), mesh)
  alone = dataclasses.replace(POLICY, layer_kinds=('delta',))
  with pytest.raises(ValueError, match='needs a layer with attention'):
    Sampler(alone, SAMPLER, mesh)
