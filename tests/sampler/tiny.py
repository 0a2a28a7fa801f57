"""A policy and pool small enough to compile in seconds."""

import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.sampler import Request, Rules

VOCAB = 17
POLICY = config_lib.Policy(
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=24,
    qk_norm=True,
    max_length=48,
)
SAMPLER = config_lib.Sampler(
    page_size=4,
    num_pages=96,
    max_rows=8,
    dispatch_rows=4,
    prefill_buckets=(8,),
    length_buckets=(48,),
)


def play(sampler, turns=3):
  """Ragged transcripts, each branched in two and grown for some turns."""
  rng = np.random.default_rng(0)
  texts = [rng.integers(0, VOCAB, n).tolist() for n in (1, 4, 7, 13, 21)]
  states = [sampler.extend(sampler.empty(), text) for text in texts]
  seen = []
  for turn in range(turns):
    requests = [
        Request(sampler.fork(state), (turn, 2 * i + twin))
        for i, state in enumerate(states) for twin in (0, 1)
    ]
    samples = sampler.sample(requests, Rules(max_tokens=5, stop_ids=(3,)))
    seen += samples
    # Of two branches with the same half-filled page, the later one goes on.
    states = [
        sampler.extend(sample.state, rng.integers(0, VOCAB, 2 + turn).tolist())
        for sample in samples[1::2]
    ]
  return seen
