"""A policy and pool small enough to compile in seconds."""

from leafe_jax import config as config_lib

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
