"""Rows that join and leave, shared prompts, a pool that is too small."""

import dataclasses

import numpy as np
import pytest

from leafe_jax.sampler import OutOfPages, Request, Rules, Sampler
from tests.sampler.tiny import POLICY, SAMPLER, VOCAB


def prompt(length, seed=0):
  return np.random.default_rng([length, seed]).integers(0, VOCAB, length).tolist()


def make(mesh, params, **options):
  sampler = Sampler(POLICY, dataclasses.replace(SAMPLER, **options), mesh)
  sampler.load(params, 7)
  return sampler


def ask(sampler, texts, rules, seed=0):
  states = [sampler.extend(sampler.empty(), text) for text in texts]
  requests = [Request(state, (seed, i)) for i, state in enumerate(states)]
  return sampler.sample(requests, rules)


def same(one, other):
  assert [s.tokens for s in one] == [s.tokens for s in other]
  assert [s.stopped for s in one] == [s.stopped for s in other]
  for left, right in zip(one, other, strict=True):
    np.testing.assert_allclose(left.logprobs, right.logprobs, atol=5e-5)
    assert left.state.tokens == right.state.tokens


def test_a_response_in_chunks_equals_one_in_a_whole(mesh, params, sampler):
  texts = [prompt(n) for n in (1, 4, 7, 12, 17, 3)]
  rules = Rules(max_tokens=20, stop_ids=(2,))
  chunked = make(mesh, params, decode_chunk=8)
  same(ask(chunked, texts, rules), ask(sampler, texts, rules))
  assert chunked.stats.dispatches >= 3  # 20 tokens, 8 at a time


def test_64_ragged_rows_equal_64_single_rows(sampler):
  texts = [prompt(1 + i % 23, i) for i in range(64)]
  together = ask(sampler, texts, Rules(max_tokens=3))
  sampler.forget()
  alone = []
  for i, text in enumerate(texts):
    state = sampler.extend(sampler.empty(), text)
    alone += sampler.sample([Request(state, (0, i))], Rules(max_tokens=3))
  same(together, alone)


def test_short_rows_leave_and_waiting_rows_join_while_a_long_one_goes_on(
    mesh, params
):
  sampler = make(mesh, params, decode_chunk=8)
  start = sampler.extend(sampler.empty(), prompt(4))
  long = sampler.submit(Request(start, (0, 0)), Rules(max_tokens=32))
  short = {
      sampler.submit(Request(start, (1, i)), Rules(max_tokens=4)) for i in range(9)
  }
  order = []
  while long not in order:
    order += sampler.poll()
  assert set(order) == short | {long}
  assert order[-1] == long
  assert sampler.poll() == {}


def test_polling_depends_on_the_order_of_calls_alone(mesh, params, sampler):
  def course():
    sampler.forget()
    said = []
    tickets = {}
    for i in range(11):
      state = sampler.extend(sampler.empty(), prompt(1 + i % 5, i))
      tickets[sampler.submit(Request(state, (0, i)), Rules(max_tokens=4))] = (i, 0)
    while tickets:
      for ticket, sample in sampler.poll().items():
        i, turn = tickets.pop(ticket)
        said.append((i, turn, sample.tokens, sample.logprobs))
        if turn < 2:
          state = sampler.extend(sample.state, prompt(2, i))
          again = sampler.submit(Request(state, (turn + 1, i)), Rules(max_tokens=4))
          tickets[again] = (i, turn + 1)
    return said

  first = course()
  assert len(first) == 33
  assert course() == first  # the same bits


def test_a_group_of_one_prompt_reads_it_once(mesh, params):
  sampler = make(mesh, params)
  text = prompt(21)
  samples = ask(sampler, [text] * 8, Rules(max_tokens=2))
  assert len({tuple(sample.tokens) for sample in samples}) > 1
  assert sampler.stats.prompt_tokens == 20 + 8  # each row reads the last token
  assert sampler.stats.matched_tokens == 8 * 20
  assert len({sample.state.pages[:5] for sample in samples}) == 1


def test_prompts_that_begin_alike_share_their_beginning(mesh, params, sampler):
  shared = make(mesh, params)
  rules, common = prompt(12), prompt(9, 1)
  texts = [rules + common + [i] for i in range(3)] + [rules + prompt(5, 2)]
  texts.append(prompt(6, 3))
  apart = make(mesh, params, prefix_reuse=False)
  same(ask(shared, texts, Rules()), ask(apart, texts, Rules()))
  assert shared.stats.prompt_tokens == 12 + 9 + 3 + 5 + 6
  assert apart.stats.prompt_tokens == sum(map(len, texts))
  again = ask(shared, texts, Rules())
  same(again, ask(apart, texts, Rules()))
  assert shared.stats.prompt_tokens == 12 + 9 + 3 + 5 + 6 + len(texts)
  del again
  assert apart.num_free_pages == SAMPLER.num_pages


def test_states_of_others_make_room_and_come_back(mesh, params, sampler):
  small = make(mesh, params, num_pages=24)
  texts = [prompt(20 + i, i) for i in range(8)]  # 5 to 7 pages each
  rules = Rules(max_tokens=6)
  some, all_fit = ask(small, texts, rules), ask(sampler, texts, rules)
  same(some, all_fit)
  assert small.stats.put_back > 0
  for turn in range(2):
    some, all_fit = (
        s.sample(
            [
                Request(s.extend(sample.state, prompt(3, i)), (turn, i))
                for i, sample in enumerate(samples)
            ],
            rules,
        )
        for s, samples in ((small, some), (sampler, all_fit))
    )
    same(some, all_fit)


def test_only_a_transcript_that_does_not_fit_alone_is_refused(mesh, params):
  sampler = make(mesh, params, num_pages=6)
  with pytest.raises(OutOfPages, match='of 6 free'):
    ask(sampler, [prompt(5), prompt(30)], Rules())
  [sample] = ask(sampler, [prompt(5)], Rules())
  assert len(sample.tokens) == 8
  assert sampler.num_free_pages + len(sample.state.pages) <= 6


def test_a_refused_batch_leaves_nothing_behind(mesh, params):
  sampler = make(mesh, params, num_pages=6)
  common = prompt(5)
  with pytest.raises(OutOfPages):
    ask(sampler, [common + [1], common + [2], common + prompt(30)], Rules())
  assert sampler.poll() == {}
  sampler.forget()
  assert sampler.num_free_pages == 6


def test_forgetting_frees_every_page_and_states_are_read_again(sampler):
  text = prompt(9)
  [root] = sampler.prefill([sampler.extend(sampler.empty(), text)])
  before = ask(sampler, [[*text, 1]], Rules())
  sampler.forget()
  assert sampler.num_free_pages == SAMPLER.num_pages and root.pages == ()
  again = sampler.sample([Request(sampler.extend(root, [1]), (0, 0))], Rules())
  same(before, again)


def test_weights_and_pages_stay_while_rows_are_under_way(sampler, params):
  state = sampler.extend(sampler.empty(), prompt(3))
  sampler.submit(Request(state, (0, 0)), Rules())
  for change in (sampler.forget, lambda: sampler.load(params, 8)):
    with pytest.raises(ValueError, match='under way'):
      change()
  assert len(sampler.poll()) == 1


def test_compiling_first_leaves_nothing_to_compile(mesh, params):
  sampler = make(mesh, params, prefill_buckets=(4, 8))
  sampler.compile([4, 8])
  programs = sampler.num_programs
  rules = Rules(max_tokens=4)
  samples = ask(sampler, [prompt(n) for n in (1, 3, 7, 11, 26)], rules)
  states = [sampler.extend(s.state, prompt(5)) for s in samples]
  sampler.sample([Request(s, (1, 0)) for s in states], Rules(max_tokens=8))
  assert sampler.num_programs == programs
