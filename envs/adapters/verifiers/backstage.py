"""Their loop of events in a thread, and the model that they believe to talk to.

verifiers calls a model and waits for it; a session of ours waits for an action and
then answers. So the model here is an endpoint on this machine that holds a call
still until the session has its action. The model's name tells whose call it is.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Coroutine
from typing import Any

from envs import api


class NoAnswer(api.EnvError):
  """The environment took longer than it may, and its episode was ended."""


class EpisodeFailed(api.EnvError):
  """The episode ended by an error of the environment; says which."""


class Line:
  """Between one episode and its session.

  Attributes:
    name: of the model, for this session alone.
    heard: what the episode says: the messages of a call, or the finished episode.
  """

  def __init__(self, name: str):
    self.name = name
    self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self.answer: asyncio.Future[str] | None = None


class Backstage:
  """Runs episodes of one environment of verifiers until it is closed.

  Args:
    env: a `verifiers.v1.Env`.
    limit: seconds that it may take for a turn; 0: any.
  """

  def __init__(self, env: Any, limit: float):
    self._env, self._limit = env, limit
    self._lines: dict[str, Line] = {}
    self._numbers = itertools.count()
    self._loop = asyncio.new_event_loop()
    self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
    self._thread.start()
    self._over: asyncio.Event | None = None
    self._port = self._call(self._open())
    self._end = weakref.finalize(self, _stop, self._loop, self._thread)

  def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, self._loop).result()

  async def _open(self) -> int:
    """Starts the endpoint and what the environment serves; the port."""
    web: Any = importlib.import_module('aiohttp.web')
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post('/v1/chat/completions', self._complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0)
    await site.start()
    self._over = asyncio.Event()
    ready = asyncio.Event()
    self._serving = asyncio.create_task(self._serve(ready, runner))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([self._serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    if self._serving.done():
      self._serving.result()  # raises what went wrong
    return site._server.sockets[0].getsockname()[1]

  async def _serve(self, ready: asyncio.Event, runner: Any) -> None:
    assert self._over is not None
    try:
      async with self._env.serving():
        ready.set()
        await self._over.wait()
    finally:
      await runner.cleanup()

  async def _complete(self, request: Any) -> Any:
    """A call of the model, answered when its session acts."""
    web: Any = importlib.import_module('aiohttp.web')
    body = await request.json()
    line = self._lines.get(body.get('model'))
    if line is None:
      return web.json_response({'error': {'message': 'no such session'}}, status=404)
    line.answer = asyncio.get_running_loop().create_future()
    line.heard.put(body['messages'])
    text = await line.answer
    return web.json_response(_completion(body['model'], text))

  def begin(self, task: Any) -> tuple[Line, asyncio.Task[None]]:
    """Starts an episode; the line to it."""
    line = Line(f'session-{next(self._numbers)}')
    self._lines[line.name] = line
    return line, self._call(self._start(task, line))

  async def _start(self, task: Any, line: Line) -> asyncio.Task[None]:
    return asyncio.create_task(self._play(task, line))

  async def _play(self, task: Any, line: Line) -> None:
    vf: Any = importlib.import_module('verifiers.v1')
    client = vf.EvalClientConfig(
        base_url=f'http://127.0.0.1:{self._port}/v1', api_key_var='LEAFE_NO_KEY'
    )
    context = vf.ModelContext(model=line.name, client=client)
    try:
      line.heard.put(await self._env.run_episode(task, context))
    finally:
      self._lines.pop(line.name, None)

  def listen(self, line: Line) -> Any:
    """What the episode says next. Raises NoAnswer."""
    deadline = time.monotonic() + self._limit if self._limit else None
    try:
      return line.heard.get(
          timeout=None if deadline is None else deadline - time.monotonic()
      )
    except queue.Empty:
      raise NoAnswer(f'no answer within {self._limit:g} s') from None

  def answer(self, line: Line, text: str) -> None:
    """Gives the waiting call its answer."""
    waiting = line.answer
    assert waiting is not None
    self._loop.call_soon_threadsafe(waiting.set_result, text)

  def drop(self, episode: asyncio.Task[None]) -> None:
    """Ends an episode that nobody plays any more."""
    if not self._loop.is_closed():
      self._loop.call_soon_threadsafe(episode.cancel)

  def close(self) -> None:
    """Ends everything; may be called twice."""
    if self._end.alive:
      self._call(self._shut())
      self._end()

  async def _shut(self) -> None:
    assert self._over is not None
    self._over.set()
    others = asyncio.all_tasks() - {asyncio.current_task(), self._serving}
    for task in others:
      task.cancel()
    await asyncio.gather(self._serving, *others, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
  loop.call_soon_threadsafe(loop.stop)
  thread.join(10)


def _completion(model: str, text: str) -> dict[str, Any]:
  """As an endpoint of chat completions answers."""
  message = {'role': 'assistant', 'content': text}
  usage = {'prompt_tokens': 0, 'completion_tokens': 0, 'total_tokens': 0}
  choice = {'index': 0, 'message': message, 'finish_reason': 'stop'}
  return {
      'id': 'leafe', 'object': 'chat.completion', 'created': 0, 'model': model,
      'choices': [choice], 'usage': usage,
  }  # fmt: skip
