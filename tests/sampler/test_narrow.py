"""Dispatches of few rows, and pages of halves, change nothing that is sampled."""

import dataclasses

import numpy as np
import pytest

from leafe_jax.sampler import Request, Rules, Sampler, engine
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.state import State
from tests.sampler.tiny import POLICY, SAMPLER, play

# Rows of both widths: narrow dispatches take up to two.
WIDE = dataclasses.replace(SAMPLER, max_rows=16, dispatch_rows=8, num_pages=192)


def rows_of(*shards):
  return [Row(i, State(0, pending=(1,)), 1, shard=s) for i, s in enumerate(shards)]


def test_few_rows_have_narrow_places_on_every_shard():
  buckets = Buckets(WIDE, 48, num_shards=2, few_rows=True)
  assert buckets.row_sizes == (4, 8)
  assert buckets.places(rows_of(0, 1, 1)) == [0, 2, 3]
  assert buckets.places(rows_of(0, 1, 1, 1)) == [0, 4, 5, 6]
  assert Buckets(WIDE, 48, num_shards=2).places(rows_of(0, 1)) == [0, 4]


def test_a_dispatch_that_cannot_be_narrower_has_one_width():
  config = dataclasses.replace(SAMPLER, dispatch_rows=2)
  assert Buckets(config, 48, few_rows=True).row_sizes == (2,)


def test_narrow_dispatches_sample_what_wide_ones_do(monkeypatch, params, mesh):
  seen = []
  for most in (10**9, 0):  # weights of what is not large
    monkeypatch.setattr(engine, '_LARGE', most)
    sampler = Sampler(POLICY, WIDE, mesh)
    sampler.load(params, 7)
    launch, widths = sampler._engine._run, set()

    def run(batch, num_decode, launch=launch, widths=widths):
      widths.add(batch.tokens.shape[0])
      return launch(batch, num_decode)

    monkeypatch.setattr(sampler._engine, '_run', run)
    samples = [*play(sampler), *play_one(sampler)]
    seen.append(([(s.tokens, s.stopped) for s in samples], widths))
  assert seen[0][1] == {8} and seen[1][1] == {2, 8}
  assert seen[0][0] == seen[1][0]


def play_one(sampler):
  state = sampler.extend(sampler.empty(), [5, 6, 7])
  return sampler.sample([Request(state, (9, 9))], Rules(max_tokens=5))


@pytest.mark.parametrize('scan', [
    pytest.param(False, marks=pytest.mark.slow('as scanned layers')), True,
])
def test_halves_are_sampled_as_they_are_trained(scan, params, mesh, scored):
  policy = dataclasses.replace(POLICY, dtype='bfloat16', scan_layers=scan)
  sampler = Sampler(policy, SAMPLER, mesh)
  sampler.load(params, 7)
  apart, rounding = [], []
  for sample in play(sampler):
    halves, whole = (
        scored(shape, sample.state.tokens)[-len(sample.tokens) :]
        for shape in (policy, POLICY)
    )
    # From pages, some of them written by others, against one fresh forward pass.
    apart.append(np.abs(sample.logprobs - halves))
    rounding.append(np.abs(halves - whole))
  apart, rounding = np.concatenate(apart), np.concatenate(rounding)
  # Halves alone do more to such a sharp policy.
  assert apart.mean() < rounding.mean() and apart.max() < rounding.max()
