"""A world and a policy small enough to say exactly what must happen.

The corridor has cells 0, 1, 2, ...; 'right' moves on, 'left' moves back,
'open' ends the episode and succeeds in cell `payload['door']`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from envs import api
from leafe_jax.rollout.episode import Player
from leafe_jax.sampler import Request, Rules, Sample, Stats
from leafe_jax.text import tokenizers as tok
from leafe_jax.text.transcript import WordTranscript

WORDS = ('cell', 'opened', 'wall', *'01234567', 'left', 'right', 'open', 'crash', 'go')


class Corridor(api.TextEnv):

  def __init__(self):
    self._task, self._cell, self._over = None, 0, True
    self.closed = 0

  def reset(self, task, seed=0):
    self._task, self._cell, self._over = task, 0, False
    return api.Step('cell 0')

  def step(self, action):
    if self._over:
      raise api.EpisodeOver('no episode')
    if action == 'crash':
      raise RuntimeError('the corridor caved in')
    if action == 'open':
      self._over = True
      success = self._cell == self._task.payload['door']
      info = {'success': success, 'score': float(success)}
      return api.Step('opened', float(success), True, info=info)
    moves = {'right': 1, 'left': -1}
    if action not in moves or self._cell + moves[action] < 0:
      return api.Step('wall', info={'valid': False})
    self._cell += moves[action]
    return api.Step(f'cell {self._cell}')

  def snapshot(self):
    return api.Snapshot('corridor', (self._task, self._cell, self._over), 64)

  def restore(self, snapshot):
    self._task, self._cell, self._over = snapshot.state

  def close(self):
    self.closed += 1


class CorridorWorld(api.World):
  name = 'corridor'

  def tasks(self, split):
    return [
        api.Task(f'door-{door}', split, f'door {door}', {'door': door})
        for door in range(4)
    ]

  def session(self):
    return Corridor()

  def vocabulary(self):
    return WORDS


@dataclasses.dataclass
class ScriptedSampler:
  """Stands in for weights: answers a transcript's text by a function."""

  transcript: WordTranscript
  answer: Callable[[str, Request], str]
  batches: list[int] = dataclasses.field(default_factory=list)
  max_length: int = 10_000
  stats: Stats = dataclasses.field(default_factory=Stats)
  waiting: list[Request] = dataclasses.field(default_factory=list)

  def empty(self):
    return ()

  def extend(self, state, tokens):
    return (*state, *tokens)

  def last(self, state, count):
    return list(state[len(state) - count :])

  def fits(self, state, room=0):
    return len(state) + room <= self.max_length

  def prefill(self, states):
    assert all(map(self.fits, states))
    return list(states)

  def sample(
      self, requests: Sequence[Request], rules: Rules, between=lambda: None
  ) -> list[Sample]:
    between()
    if requests:
      self.batches.append(len(requests))
    return [self._one(request) for request in requests]

  def forget(self):
    assert not self.waiting

  def submit(self, request: Request, rules: Rules) -> int:
    self.waiting.append(request)
    return len(self.waiting)

  def poll(self) -> dict[int, Sample]:
    polled, self.waiting = self.waiting, []
    return dict(enumerate(self.sample(polled, Rules()), 1))

  def _one(self, request):
    if len(request.state) > self.max_length:
      return Sample(request.state, [], [], False, True)
    tokenizer = self.transcript.tokenizer
    text = ' '.join(tokenizer.convert_ids_to_tokens(list(request.state)))
    ids = self.transcript.response(self.answer(text, request))
    return Sample((*request.state, *ids), ids, [-0.5] * len(ids), True, False)


def player(answer: Callable[[str, Request], str], horizon: int = 6) -> Player:
  transcript = WordTranscript(tok.build_word_tokenizer(WORDS, horizon))
  sampler = ScriptedSampler(transcript, answer)
  return Player(sampler, transcript, CorridorWorld(), horizon, 0, 0)
