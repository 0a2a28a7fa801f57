"""A policy without weights, and a world without rules, for runs of any size.

What a slice does between two steps of the host stands still here: the engine says
at once what was to be sampled, and only adds up how long a device would have taken
for it. All else is a run's own: scheduler, pages, episodes, trees, ledger, files.
Everything is a function of the row's random key and the task, so a run has the same
bits every time.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs import api
from leafe_jax import config as config_lib
from leafe_jax.rollout.episode import Player
from leafe_jax.sampler import Sampler
from leafe_jax.sampler.batching import Buckets, Row
from leafe_jax.sampler.engine import Dispatch
from leafe_jax.sampler.pages import Fresh
from leafe_jax.sampler.scheduler import Scheduler
from leafe_jax.sampler.shards import Shards
from leafe_jax.sampler.state import Stats
from leafe_jax.sampler.turn import Response
from leafe_jax.text import tokenizers as tok
from leafe_jax.text.transcript import WordTranscript

WORDS = tuple(f'w{number}' for number in range(2000))


@dataclasses.dataclass(frozen=True)
class Device:
  """How fast the device is that is not there.

  Attributes:
    read_tokens: prompt tokens per second.
    draw_seconds: per token of the longest response of a dispatch.
    launch_seconds: per dispatch.
  """

  read_tokens: float = 50_000.0
  draw_seconds: float = 0.01
  launch_seconds: float = 0.002


class Session(api.TextEnv):
  """Answers with words that its actions so far determine."""

  def __init__(self, size: int, wait: float):
    self._size, self._wait = size, wait
    self._state: tuple[str, str, bool] | None = None

  def _answer(self, past: str, over: bool = False, success: bool = False) -> api.Step:
    rng = random.Random(past)
    words = ' '.join(rng.choices(WORDS, k=rng.randint(self._size // 2, self._size)))
    info = {'success': success, 'score': float(success)} if over else {}
    return api.Step(words, float(success), over, info=info)

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    self._state = (task.id, task.id, False)
    return self._answer(task.id)

  def step(self, action: str) -> api.Step:
    if self._state is None or self._state[2]:
      raise api.EpisodeOver('no episode')
    task_id, past, _ = self._state
    if self._wait:
      time.sleep(self._wait)
    past = api.observation_hash(f'{past} {action}')
    chance = int(past, 16) % 1000
    over = chance < 80
    self._state = (task_id, past, over)
    return self._answer(past, over, chance < 20)

  def snapshot(self) -> api.Snapshot:
    if self._state is None:
      raise api.EpisodeOver('no episode')
    return api.Snapshot('weightless', self._state, 200)

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check('weightless', tuple)
    self._state = snapshot.state


class World(api.World):
  """`count` tasks; observations of up to `size` words; steps of `wait` seconds."""

  name = 'weightless'

  def __init__(self, count: int, size: int, wait: float = 0.0):
    self._count, self._size, self._wait = count, size, wait

  def tasks(self, split: str) -> Sequence[api.Task]:
    api.check_split(split)
    return [api.Task(f'{split}-{i}', split, f'task {i}') for i in range(self._count)]

  def session(self) -> api.TextEnv:
    return Session(self._size, self._wait)

  def vocabulary(self) -> Sequence[str]:
    return WORDS


class Engine:
  """As `sampler.engine.Engine`, for a policy that needs no device.

  Attributes:
    buckets, stats: as there.
    device_seconds: what a device would have taken.
  """

  def __init__(
      self, policy: config_lib.Policy, sampler: config_lib.Sampler,
      transcript: WordTranscript, device: Device, horizon: int,
  ):
    self.buckets = Buckets(sampler, policy.max_length)
    self.stats = Stats()
    self.device_seconds = 0.0
    self._num_pages = sampler.num_pages
    self._device = device
    ids = transcript.tokenizer.get_vocab()
    self._words = [ids[word] for word in WORDS]
    self._marks = [ids[tok.turn_mark(turn)] for turn in range(1, horizon + 1)]
    self._asked = frozenset((ids[tok.FAILED], ids[tok.GOING]))
    self._end = ids[tok.END]

  def wipe(self) -> None:
    """There is no pool."""

  def launch(
      self, rows: Sequence[Row], fresh: Sequence[Fresh], num_decode: int
  ) -> Dispatch:
    """Fills a batch as for a device, and says what its rows say."""
    start = time.perf_counter()
    self.buckets.fill(rows, fresh, num_decode, self._num_pages)
    self.stats.host_seconds += time.perf_counter() - start
    read = sum(row.num_new for row in rows)
    self.stats.dispatches += 1
    self.stats.rows += len(rows)
    self.stats.prompt_tokens += read
    response = self._respond(rows, num_decode) if num_decode else None
    drawn = int(response.lengths.max()) if response is not None else 0
    device = self._device
    self.device_seconds += (
        device.launch_seconds + read / device.read_tokens + drawn * device.draw_seconds
    )
    return Dispatch(rows, fresh, None, response)

  def fetch(self, dispatch: Dispatch) -> Response | None:
    """What `launch` has said already."""
    return dispatch.response

  def _respond(self, rows: Sequence[Row], room: int) -> Response:
    # As the scheduler gets them from a device: numpy arrays.
    tokens: Any = np.zeros((len(rows), room), np.int32)
    lengths: Any = np.zeros(len(rows), np.int32)
    stopped: Any = np.zeros(len(rows), bool)
    logprobs: Any = np.full(tokens.shape, -1.0, np.float32)
    for place, row in enumerate(rows):
      said = self._say(row)[row.first : row.first + row.max_tokens]
      tokens[place, : len(said)] = said
      lengths[place], stopped[place] = len(said), said[-1] == self._end
    return Response(tokens, logprobs, lengths, stopped, routes=None)

  def _say(self, row: Row) -> list[int]:
    """A whole response; a turn and words where a reflection is asked for."""
    rng = random.Random(repr(row.key))
    most = row.rules.max_tokens - 1
    length = max(2, min(most, round(rng.lognormvariate(0, 0.5) * most / 2)))
    said = rng.choices(self._words, k=length)
    if not self._asked.isdisjoint(row.state.pending):
      said[0] = rng.choice(self._marks)
    return [*said, self._end]


class WeightlessSampler(Sampler):
  """A `Sampler` over that engine."""

  def __init__(  # pyright: ignore[reportMissingSuperCall]
      self, policy: config_lib.Policy, sampler: config_lib.Sampler, engine: Engine
  ):
    self.version = 0
    self._max_length = policy.max_length
    self._table = self._drawable = None
    instead: Any = engine
    self._engine = instead
    reuse = sampler.prefix_reuse
    self._shards = Shards(engine.buckets, sampler.num_pages, reuse)
    self._scheduler = Scheduler(self._engine, self._shards, reuse, None)


def make_player(config: config_lib.Experiment, count: int, device: Device) -> Player:
  """A player of `count` tasks, sized by a config's policy, sampler and horizon.

  An observation has at most half as many words as a turn may add.
  """
  room = config.policy.max_length // (config.env.horizon + 2)
  world = World(count, max(2, room - config.explore.max_response_tokens))
  horizon = config.env.horizon
  transcript = WordTranscript(tok.build_word_tokenizer(WORDS, horizon))
  engine = Engine(config.policy, config.sampler, transcript, device, horizon)
  sampler = WeightlessSampler(config.policy, config.sampler, engine)
  return Player(sampler, transcript, world, horizon, config.seed, 0)
