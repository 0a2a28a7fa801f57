"""An episode of verifiers, held still between two turns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from envs import api, plain
from envs.adapters import adapted
from envs.adapters.verifiers.backstage import Backstage, EpisodeFailed, Line


class VerifiersGame(adapted.Game):
  """Plays the task that a seed means; cannot be copied, only played again."""

  def __init__(
      self, backstage: Backstage, tasks: Mapping[int, Any], success_reward: float,
      max_steps: int,
  ):
    super().__init__(max_steps)
    self._backstage, self._tasks = backstage, tasks
    self._success_reward = success_reward
    self._line: Line | None = None
    self._episode: asyncio.Task[None] | None = None
    self._told = 0  # messages that the agent knows of

  def _start(self, seed: int) -> str:
    self.close()
    self._line, self._episode = self._backstage.begin(self._tasks[seed])
    self._told = 0
    heard = self._listen()
    if not isinstance(heard, list):
      raise EpisodeFailed(f'task {self.task!r} is over before the first turn')
    return self._read(heard)

  def _listen(self) -> Any:
    assert self._line is not None
    try:
      heard = self._backstage.listen(self._line)
    except api.EnvError:
      self.close()
      raise
    if not isinstance(heard, list) and not heard.ok:
      errors = [*heard.errors, *(e for trace in heard.traces for e in trace.errors)]
      said = '; '.join(f'{error.type}: {error.message}' for error in errors)
      raise EpisodeFailed(f'task {self.task!r}: {" ".join(said.split())[:2000]}')
    return heard

  def _read(self, messages: Sequence[Mapping[str, Any]]) -> str:
    """What was said since the last time, but for what the player and the rules say."""
    new, self._told = messages[self._told :], len(messages)
    return '\n\n'.join(
        _text(message.get('content'))
        for message in new
        if message.get('role') not in ('assistant', 'system')
    )

  def _act(self, action: str) -> api.Step:
    assert self._line is not None
    # Halves of surrogate pairs cannot be sent.
    self._backstage.answer(self._line, action.encode(errors='replace').decode())
    heard = self._listen()
    if isinstance(heard, list):
      return api.Step(self._read(heard), info={'valid': True})
    return self._end(heard)

  def _end(self, episode: Any) -> api.Step:
    trace = episode.traces[-1]
    try:
      reward = plain.number('reward', trace.reward)
    except ValueError as error:
      raise api.BadStep(f'task {self.task!r}: {error}') from error
    share = reward / self._success_reward
    info = {
        'success': share >= 1.0, 'score': min(max(share, 0.0), 1.0), 'valid': True,
        'reward': {name: r.value for name, r in trace.rewards.items() if r is not None},
    }
    limited = bool(trace.is_truncated)
    return api.Step('', reward, not limited, limited, info)

  def close(self) -> None:
    episode, self._episode = self._episode, None
    if episode is not None:
      self._backstage.drop(episode)


def _text(content: Any) -> str:
  """The text of a message. BadStep for pictures and sounds."""
  if isinstance(content, str):
    return content
  parts = content or []
  for part in parts:
    if part.get('type') != 'text':
      raise adapted.NoText(f'a message holds {part.get("type")!r}, which is not text')
  return '\n'.join(part['text'] for part in parts)
