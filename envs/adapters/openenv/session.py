"""A session on an OpenEnv server, and how to come back to where it stands."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from envs import api, plain
from envs.adapters.openenv import client
from envs.adapters.openenv.language import Language
from envs.serving import wire

_LOST = (client.ServerLost, client.NoServer)


class Served(Protocol):
  """What a session asks of its world.

  Attributes:
    name: of the world.
    language: of the server.
    keeps: whether the server keeps snapshots.
  """

  name: str
  language: Language
  keeps: bool

  def server(self) -> client.Server:
    """The server as it is now. Raises NoServer."""
    ...

  def wanted(self, task: api.Task, seed: int) -> Mapping[str, Any]:
    """What a reset asks for."""
    ...

  def read(self, task: api.Task, reply: client.Reply, total: float) -> api.Step:
    """A reply as a step, after rewards of that sum. Raises BadReply."""
    ...


@dataclasses.dataclass(frozen=True)
class Past:
  """How to come to a state: by its name at the server, or from the reset.

  Attributes:
    task, seed: of the episode.
    actions, hashes: since the reset, and of the observations from it on.
    total: of the rewards.
    over: whether the episode has ended.
    name: of the state at the server; '' where it has none.
  """

  task: api.Task
  seed: int
  actions: tuple[str, ...] = ()
  hashes: tuple[str, ...] = ()
  total: float = 0.0
  over: bool = False
  name: str = ''

  def num_bytes(self) -> int:
    return sum(map(sys.getsizeof, (*self.actions, *self.hashes, self.name)))


class ServedSession(api.TextEnv):
  """A session on the server, and how to come back to where it stands.

  Attributes:
    replayed_steps: taken again, since construction.
  """

  def __init__(self, world: Served):
    self._world = world
    self._connection: client.Connection | None = None
    self._past: Past | None = None
    self.replayed_steps = 0

  def reset(self, task: api.Task, seed: int = 0) -> api.Step:
    self._past = None
    reply = self._begin(task, seed)
    step = self._world.read(task, reply, 0.0)
    hashes = (api.observation_hash(step.observation),)
    self._past = Past(task, seed, (), hashes, step.reward, reply.done)
    return step

  def _begin(self, task: api.Task, seed: int) -> client.Reply:
    wanted = self._world.wanted(task, seed)
    if self._connection is not None:
      try:
        return self._ask('reset', wanted)
      except (*_LOST, client.ServerError):  # of a session before
        pass
    self._connection, reply = self._world.server().begin(wanted)
    return reply

  def _ask(self, kind: str, data: Mapping[str, Any]) -> client.Reply:
    """A reply of the present session, which is left where it fails."""
    assert self._connection is not None
    try:
      return self._connection.ask(kind, data)
    except api.EnvError:
      self._leave()
      raise

  def _leave(self) -> None:
    connection, self._connection = self._connection, None
    if connection is not None:
      connection.close()

  def step(self, action: str) -> api.Step:
    past = self._come_back()
    if past.over:
      raise api.EpisodeOver('the episode is over')
    step, self._past = self._take(past, action)
    return step

  def _take(self, past: Past, action: str) -> tuple[api.Step, Past]:
    text = action.encode(errors='replace').decode()  # half a surrogate pair cannot go
    try:
      data = self._world.language.act(text)
    except ValueError as error:
      refused = api.Step(f'No action: {error}', info={'valid': False})
      return refused, self._after(past, action, refused, past.total, False)
    reply = self._ask('step', data)
    step = self._world.read(past.task, reply, past.total)
    total = past.total + step.reward
    return step, self._after(past, action, step, total, reply.done)

  def _after(
      self, past: Past, action: str, step: api.Step, total: float, over: bool
  ) -> Past:
    hashes = (*past.hashes, api.observation_hash(step.observation))
    return Past(past.task, past.seed, (*past.actions, action), hashes, total, over)

  def _come_back(self) -> Past:
    """Its past, in a session that stands there. Raises EpisodeOver."""
    if self._past is None:
      raise api.EpisodeOver('no episode: reset or restore the session first')
    if self._connection is None and not self._past.over:
      self._bring(self._past)
    return self._past

  def snapshot(self) -> api.Snapshot:
    past = self._come_back()
    num_bytes = past.num_bytes()
    if self._world.keeps and not past.over and not past.name:
      kept = self._ask('step', {'text': '', 'call': wire.SNAPSHOT}).observation
      name = plain.text('snapshot', kept.get('snapshot'))
      past = self._past = dataclasses.replace(past, name=name)
      num_bytes = int(plain.number('num_bytes', kept.get('num_bytes'), 0))
    return api.Snapshot(self._world.name, past, max(num_bytes, 1))

  def restore(self, snapshot: api.Snapshot) -> None:
    snapshot.check(self._world.name, Past)
    if not snapshot.state.over:
      self._bring(snapshot.state)
    self._past = snapshot.state

  def _bring(self, past: Past) -> None:
    """Leads a session to a past."""
    if past.name and self._recall(past):
      return
    step = self._world.read(past.task, self._begin(past.task, past.seed), 0.0)
    self._compare(1, past.hashes[0], step)
    now = Past(past.task, past.seed, (), past.hashes[:1], step.reward)
    for turn, action in enumerate(past.actions, start=2):
      step, now = self._take(now, action)
      self._compare(turn, past.hashes[turn - 1], step)
      self.replayed_steps += 1

  def _recall(self, past: Past) -> bool:
    """Whether the server still knows the state and has gone there."""
    wanted = {'text': '', 'call': wire.RESTORE, 'snapshot': past.name}
    for _ in range(2):  # the second time in a new session
      if self._connection is None:
        self._connection = self._world.server().connect()
      try:
        self._ask('step', wanted)
        return True
      except client.ServerFull:
        return False
      except client.ServerError as error:
        if wire.UnknownSnapshot.__name__ in str(error):
          return False
        raise
      except client.ServerLost:
        continue
    return False

  def _compare(self, turn: int, expected: str, step: api.Step) -> None:
    actual = api.observation_hash(step.observation)
    if actual != expected:
      raise api.ReplayDiverged(turn, expected, actual)

  def admissible(self) -> Sequence[str]:
    if not self._world.keeps or self._past is None or self._past.over:
      return ()
    self._come_back()
    return self._ask('step', {'text': '', 'call': wire.CHOICES}).observation['choices']

  def close(self) -> None:
    self._past = None
    self._leave()

  def __del__(self) -> None:
    self._leave()
