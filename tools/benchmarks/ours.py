"""This project's sampler on the workloads, with and without its past kept."""

from __future__ import annotations

from collections.abc import Callable

import jax

from leafe_jax import config as config_lib
from leafe_jax.policy import model, sharding
from leafe_jax.sampler import Request, Rules, Sampler, State
from tools.benchmarks import machine
from tools.benchmarks.presets import Preset
from tools.benchmarks.workloads import Conversation, Tree

_PAGE = 16
_STEP = 256
_MOST_ROWS = 64  # of one dispatch

Row = tuple[State, list[int]]  # what was read, and the whole transcript


class Ours:
  """Runs workloads on samplers made for them.

  Args:
    preset: the policy.
    params: its weights.
  """

  def __init__(self, preset: Preset, params: model.Params):
    self._preset = preset
    self._params = params
    self._mesh = sharding.make_mesh(config_lib.Mesh())

  def sampler(self, workload: Conversation | Tree, reuse: bool = True) -> Sampler:
    """A sampler whose buckets suit a workload, with the weights loaded.

    Args:
      workload: what it is for; its rows end together, so responses are decoded
        in one piece.
      reuse: whether prompts find what was read before.
    """
    rows = workload.num_rows
    per_row = -(-workload.length // _PAGE) + 1
    # What is alive, and the fresh pages of the dispatches under way.
    pages = (workload.num_alive + min(rows, 4 * _MOST_ROWS)) * per_row
    steps = range(_STEP, workload.length + _STEP, _STEP)
    config = config_lib.Sampler(
        page_size=_PAGE,
        num_pages=pages,
        num_memories=2 * (workload.num_alive + rows),
        max_rows=rows,
        dispatch_rows=min(rows, _MOST_ROWS),
        prefill_buckets=(64, 256),
        length_buckets=(0, *steps),
        decode_chunk=0,
        prefix_reuse=reuse,
    )
    preset = self._preset
    sampler = Sampler(preset.policy, config, self._mesh)
    sampler.load(self._params, 0)
    return sampler

  def runner(
      self, workload: Conversation | Tree, reuse: bool
  ) -> Callable[[Conversation | Tree], machine.Seconds]:
    """A call that runs a workload once, this one or a part of it.

    Args:
      workload: the largest to come.
      reuse: False: every request reads its whole transcript from scratch.
    """
    sampler = self.sampler(workload, reuse)

    def play(workload: Conversation | Tree) -> int:
      if isinstance(workload, Tree):
        return _grow(sampler, workload, reuse)
      return _converse(sampler, workload, reuse)

    def run(workload: Conversation | Tree) -> machine.Seconds:
      sampler.forget()  # the repeat before read the same prompts
      seconds, sampled = machine.timed(lambda: play(workload))
      if sampled != workload.num_sampled:
        raise ValueError(f'sampled {sampled} tokens, not {workload.num_sampled}')
      return seconds

    return run


class _Play:
  """Takes episodes from turn to turn; counts what it samples."""

  def __init__(self, sampler: Sampler, new_tokens: int, reuse: bool):
    self._sampler = sampler
    self._rules = Rules(max_tokens=new_tokens)
    self._reuse = reuse
    self.sampled = 0

  def step(self, rows: list[Row], observations: list[list[int]]) -> list[Row]:
    """The rows after an observation and a response each."""
    sampler = self._sampler
    prompts = [past + new for (_, past), new in zip(rows, observations)]
    requests = [
        Request(
            sampler.extend(state, new if self._reuse else prompt),
            (self.sampled, index),
        )
        for index, ((state, _), new, prompt) in enumerate(
            zip(rows, observations, prompts)
        )
    ]
    samples = sampler.sample(requests, self._rules)
    self.sampled += sum(len(sample.tokens) for sample in samples)
    return [
        (sample.state if self._reuse else sampler.empty(), prompt + sample.tokens)
        for sample, prompt in zip(samples, prompts)
    ]


def _converse(sampler: Sampler, workload: Conversation, reuse: bool) -> int:
  play = _Play(sampler, workload.new_tokens, reuse)
  rows: list[Row] = [(sampler.empty(), [])] * workload.num_rows
  for observations in workload.observations:
    rows = play.step(rows, observations)
  return play.sampled


def _grow(sampler: Sampler, workload: Tree, reuse: bool) -> int:
  play = _Play(sampler, workload.roots.new_tokens, reuse)
  # before[t][task] is the root of the task before turn t + 1.
  before: list[list[Row]] = [[(sampler.empty(), [])] * workload.roots.num_rows]
  for observations in workload.roots.observations:
    before.append(play.step(before[-1], observations))
  branches = [
      before[turn - 1][parent]
      for turn, parent in zip(workload.turns, workload.parents)
  ]
  left = [list(episode) for episode in workload.observations]
  while any(left):
    playing = [i for i, episode in enumerate(left) if episode]
    observations = [left[i].pop(0) for i in playing]
    rows = play.step([branches[i] for i in playing], observations)
    for i, row in zip(playing, rows):
      branches[i] = row
  return play.sampled


def wait() -> None:
  """Until the devices have done all that was asked of them."""
  jax.block_until_ready(jax.live_arrays())
