"""What going back costs, against playing the past again."""

from __future__ import annotations

import random
import time

from envs import registry
from leafe_jax.sampler import State
from tools.benchmarks import machine
from tools.benchmarks.ours import Ours, wait
from tools.benchmarks.workloads import conversation

_TURNS = 14
_ROLLBACKS = 2000
_SOKOBAN = dict(
    view='compact', max_steps=-1, height=10, width=10, boxes=4, train_levels=20,
    validation_levels=0, test_levels=0,
)  # fmt: skip


def measure(
    ours: Ours, history: int, vocab_size: int, clock: str, repeats: int
) -> dict[str, float]:
  """Milliseconds of both ways back to a decision, and their ratio.

  Args:
    ours: the sampler.
    history: tokens before the decision.
    vocab_size: of the policy.
    clock: 'wall' or 'cpu'.
    repeats: of which the fastest counts, for both.
  """
  workload = conversation(1, 1, history, 1, vocab_size)
  [[tokens]] = workload.observations
  sampler = ours.sampler(workload, reuse=False)  # a replay reads everything again
  world = registry.make('sokoban', **_SOKOBAN)
  session, task = world.session(), world.tasks('train')[0]
  rng = random.Random(0)
  moves = [rng.choice(('up', 'down', 'left', 'right')) for _ in range(_TURNS)]

  def replay() -> State:
    session.reset(task)
    for move in moves:
      session.step(move)
    [state] = sampler.prefill([sampler.extend(sampler.empty(), tokens)])
    wait()
    return state

  state = replay()
  snapshot = session.snapshot()

  def go_back() -> None:
    for _ in range(_ROLLBACKS):
      session.restore(snapshot)
      sampler.fork(state)

  again = machine.best(replay, clock, repeats)
  back = machine.best(go_back, clock, repeats) / _ROLLBACKS
  start = time.perf_counter()
  session.reset(task)
  for move in moves:
    session.step(move)
  return {
      'history_tokens': history,
      'rollback_ms': 1e3 * back,
      'replay_and_prefill_ms': 1e3 * again,
      'of_which_environment_ms': 1e3 * (time.perf_counter() - start),
      'times_cheaper': again / back,
  }
