"""How fast the default policy trains and samples here.

    python -m tools.bench_policy --rows=256 --cached=90 --new_tokens=14

Prints the wall and CPU time of a loss with gradient, of a call of the sampler,
and of the device programs it is made of. On a shared machine CPU time is the
steadier figure: work that two cores share takes half of it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from leafe_jax import command_line
from leafe_jax import config as config_lib
from leafe_jax.policy import model, runtime, sharding
from leafe_jax.sampler import Request, Rules, Sampler, cache, turn
from leafe_jax.sampler.batch import Batch, Drawing
from leafe_jax.sampler.batching import Buckets

_ROWS = flags.DEFINE_integer('rows', 256, 'transcripts sampled per call', lower_bound=1)
_CACHED = flags.DEFINE_integer(
    'cached', 90, 'longest cached prefix in tokens', lower_bound=1
)
_NEW = flags.DEFINE_integer(
    'new_tokens', 14, 'most new prompt tokens per turn', lower_bound=1
)
_RESPONSE = flags.DEFINE_integer('response', 8, 'tokens per response', lower_bound=1)
_VOCAB = flags.DEFINE_integer('vocab', 110, 'vocabulary', lower_bound=1)
_REPEATS = flags.DEFINE_integer(
    'repeats', 10, 'timed runs; the fastest counts', lower_bound=1
)


def measure(call: Callable[[], Any]) -> tuple[float, float]:
  """Least wall and CPU milliseconds of a call, after a first one to compile."""
  jax.block_until_ready(call())
  walls, cpus = [], []
  for _ in range(_REPEATS.value):
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    walls.append(time.perf_counter() - wall)
    cpus.append(time.process_time() - cpu)
  return 1e3 * min(walls), 1e3 * min(cpus)


def report(name: str, times: tuple[float, float], count: int, unit: str) -> None:
  wall, cpu = times
  rate = count / wall * 1e3
  print(f'{name:<34}{wall:9.1f} ms wall{cpu:9.1f} ms CPU{rate:12.0f} {unit}/s')


def bench_training(config: config_lib.Experiment, params: model.Params) -> None:
  shape = (config.warm_start.batch_rows, config.warm_start.row_length)
  tokens = jax.random.randint(jax.random.key(1), shape, 0, _VOCAB.value)
  places = jnp.broadcast_to(jnp.arange(shape[1]), shape)
  rows = (tokens, places % (shape[1] // 2), 1 + places // (shape[1] // 2))

  def loss(params: model.Params) -> jax.Array:
    return -model.token_logprobs(params, config.policy, *rows).mean()

  step = jax.jit(jax.value_and_grad(loss))
  times = measure(lambda: step(params))
  report(f'loss and gradient {shape[0]}x{shape[1]}', times, tokens.size, 'tokens')


def bench_sampler(sampler: Sampler, rng: np.random.Generator) -> None:
  def text(most: int) -> list[int]:
    return rng.integers(0, _VOCAB.value, rng.integers(most // 2, most + 1)).tolist()

  count = _ROWS.value
  roots = [sampler.extend(sampler.empty(), text(_CACHED.value)) for _ in range(count)]
  roots = sampler.prefill(roots)
  states = [sampler.extend(root, text(_NEW.value)) for root in roots]
  requests = [Request(state, (0, i)) for i, state in enumerate(states)]
  rules = Rules(max_tokens=_RESPONSE.value)
  times = measure(lambda: [s.logprobs for s in sampler.sample(requests, rules)])
  report(f'sample() of {count} rows', times, count, 'turns')


def bench_programs(
    config: config_lib.Experiment, params: model.Params, rng: np.random.Generator
) -> None:
  """The parts of one dispatch, each as a program of its own."""
  policy, page = config.policy, config.sampler.page_size
  batch = _random_batch(config, rng)
  shape = (1024, policy.num_layers, 2, policy.num_kv_heads, policy.head_dim * page)
  pool = jnp.zeros(shape, cache.stored(policy.dtype))
  rows = batch.tokens.shape[0]
  program = jax.jit(functools.partial(turn.turn, policy, page), static_argnums=0)
  gather = jax.jit(lambda pool, ids: cache.gather(pool, ids, policy.head_dim))
  report('  gather', measure(lambda: gather(pool, batch.prefix_pages)), rows, 'rows')
  read = measure(lambda: program(0, params, {0: pool}, batch))
  report('  gather, read', read, rows, 'rows')
  full = measure(lambda: program(8, params, {0: pool}, batch))
  report('  gather, read, decode', full, rows, 'rows')
  pages = program(8, params, {0: pool}, batch)[0][0]
  write = jax.jit(cache.write, donate_argnums=0)

  def store() -> jax.Array:
    nonlocal pool
    pool = write(pool, batch.write_pages, pages)
    return pool

  report('  write', measure(store), rows, 'rows')


def _random_batch(
    config: config_lib.Experiment, rng: np.random.Generator
) -> Batch:
  """A full dispatch whose rows have the longest prefix that was asked for."""
  page, buckets = config.sampler.page_size, Buckets(config.sampler, 1 << 14)
  width = next(size for size in buckets.new_tokens if size >= _NEW.value)
  length = next(size for size in buckets.lengths if size >= _CACHED.value)
  rows, num_write = buckets.rows, -(-(page - 1 + width + 8) // page)
  ids = rng.permutation(1024)
  full = np.full(rows, _CACHED.value // page * page)
  arrays = [
      rng.choice(ids[:512], (rows, length // page)), full, ids[:rows],
      rng.integers(0, page, rows), rng.integers(0, _VOCAB.value, (rows, width)),
      np.full(rows, _NEW.value), ids[-rows * num_write :].reshape(rows, num_write),
  ]  # fmt: skip
  arrays = [jnp.asarray(array, jnp.int32) for array in arrays]
  rules = Drawing(
      temperature=jnp.ones(rows),
      max_tokens=jnp.full(rows, _RESPONSE.value),
      first=jnp.zeros(rows, jnp.int32),
      stop_ids=jnp.full((rows, 8), -1),
      keys=jnp.asarray(rng.integers(0, 2**32, (rows, 2)), jnp.uint32),
      filters=None, edges=None, node=None,
  )
  return Batch(*arrays, active=jnp.ones(rows, bool), drawing=rules)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  runtime.keep_freed_memory()
  config = config_lib.Experiment()
  mesh = sharding.make_mesh(config.mesh)
  rng = np.random.default_rng(0)
  params = model.init_params(config.policy, _VOCAB.value, jax.random.key(0), mesh)
  bench_training(config, params)
  sampler = Sampler(config.policy, config.sampler, mesh)
  sampler.load(params, 0)
  bench_sampler(sampler, rng)
  bench_programs(config, params, rng)


if __name__ == '__main__':
  command_line.run(main)
