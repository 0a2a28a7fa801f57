"""Play an environment by hand, or replay what was played.

  python -m tools.play --env=webshop --options='{"view": "text"}' --index=3

shows the task and reads a response a line, as a policy would give it; a line in
double quotes is a JSON string, which may hold line breaks. Other commands:

  :undo [N]    goes back N actions, 1 unless said
  :reset       starts the task again
  :list        lists all responses that do something now
  :save FILE   writes the task and the actions so far as a script
  :quit        leaves, as does the end of the input

  python -m tools.play --script=FILE

replays a script and prints the transcript; exits with 1 and says why if it cannot.
Texts are shown with control characters escaped, as in tools.chat.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from envs import api, registry
from leafe_jax import command_line

_ENV = flags.DEFINE_string(
    'env', 'webshop',
    f'One of {", ".join(registry.names())}, or your own as package.module:function.',
)  # fmt: skip
_OPTIONS = flags.DEFINE_string('options', '{}', 'Options of the world, as JSON.')
_SPLIT = flags.DEFINE_enum('split', 'train', api.SPLITS, 'Split of the tasks.')
_INDEX = flags.DEFINE_integer(
    'index', 0, 'Number of the task in its split.', lower_bound=0
)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the episode.')
_SCRIPT = command_line.define_path('script', '', 'A script to replay.')

_SHOWN = 30


class BadScript(Exception):
  """A script that cannot be replayed; says where and why."""


@dataclasses.dataclass(frozen=True)
class Start:
  """What is played: all that a transcript needs to be repeated.

  Attributes:
    env, options: of the world.
    split, index: of the task.
    seed: of the episode.
    task: the task's id; empty for whichever it is.
  """

  env: str
  options: Mapping[str, Any]
  split: str
  index: int
  seed: int
  task: str = ''

  def open(self) -> tuple[api.World, api.Task]:
    """The world and the task. ValueError, or what the world raises."""
    world = registry.make(self.env, **self.options)
    tasks = world.tasks(self.split)
    if not 0 <= self.index < len(tasks):
      raise ValueError(
          f'index {self.index}: the {self.split} split has {len(tasks)} tasks'
      )
    task = tasks[self.index]
    if self.task not in ('', task.id):
      raise ValueError(
          f'task {self.index} of the {self.split} split is {task.id}, not {self.task}'
      )
    return world, task


class Game:
  """An episode that can go back.

  Attributes:
    session: of the world.
    step: the last answer.
    actions: taken so far.
  """

  def __init__(self, world: api.World, task: api.Task, seed: int):
    self._world, self._task, self._seed = world, task, seed
    self.session = world.session()
    self.reset()

  def reset(self) -> None:
    step = self.session.reset(self._task, self._seed)
    self.step = api.checked(step, self._world, self._task)
    self.actions: list[str] = []
    self._past: list[tuple[api.Snapshot, api.Step]] = []

  @property
  def over(self) -> bool:
    return self.step.terminated or self.step.truncated

  def take(self, action: str) -> None:
    """Takes an action. EpisodeOver after the end, BadStep for no step."""
    snapshot = self.session.snapshot()
    step = api.checked(self.session.step(action), self._world, self._task)
    self._past.append((snapshot, self.step))
    self.actions.append(action)
    self.step = step

  def undo(self, count: int) -> None:
    """Goes back. ValueError for further than there is."""
    if not 1 <= count <= len(self._past):
      raise ValueError(f'cannot undo {count} of {len(self._past)} actions')
    snapshot, self.step = self._past[-count]
    self.session.restore(snapshot)
    del self._past[-count:], self.actions[-count:]

  def verdict(self) -> str:
    """How the episode ended, or that it did not."""
    if not self.over:
      return f'not over after {len(self.actions)} actions'
    end = 'truncated' if self.step.truncated else 'terminated'
    return f'{end}: score {self.step.score:g}, success {self.step.success}'


def write_script(start: Start, actions: Sequence[str]) -> str:
  """A script: a header, and an action a line."""
  plain = all(
      a and a == a.strip() and a.isprintable() and a[0] not in '#"' for a in actions
  )
  lines = actions if plain else map(json.dumps, actions)
  return '\n'.join([f'# {json.dumps(dataclasses.asdict(start))}', *lines, ''])


def read_script(path: str, default: Start) -> tuple[Start, list[tuple[int, str]]]:
  """(what to play, line numbers and actions). Raises BadScript.

  The header is the first line, '# ' and the fields of `Start` that differ from
  `default` as JSON; it may be missing. Other lines that are empty or start with
  '#' are skipped; a line in double quotes is a JSON string.
  """
  try:
    lines = pathlib.Path(path).read_text(encoding='utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise BadScript(f'{path}: {error}') from error
  start, actions = default, []
  for number, line in enumerate(lines, start=1):
    try:
      if number == 1 and line.startswith('# {'):
        start = dataclasses.replace(default, **json.loads(line[2:]))
      elif line.strip() and not line.startswith('#'):
        actions.append((number, read_line(line.strip())))
    except (ValueError, TypeError) as error:
      raise BadScript(f'{path}:{number}: {error}') from error
  return start, actions


def read_line(line: str) -> str:
  """The text of a line. ValueError for a bad JSON string."""
  return json.loads(line) if line.startswith('"') else line


def say(text: str) -> None:
  """Prints a text of the world, or of a script, escaped: it writes to no terminal."""
  print(command_line.printable(text))


def show_head(start: Start, world: api.World, task: api.Task) -> None:
  head = dataclasses.replace(start, task=task.id)
  for name, value in dataclasses.asdict(head).items():
    say(f'{name}: {value if isinstance(value, str) else json.dumps(value)}')
  for text in (world.instructions(), task.instruction):
    if text:
      say(f'\n{text}')
  say('')


def replay(path: str, default: Start) -> None:
  """Prints the transcript of a script. Raises BadScript."""
  start, actions = read_script(path, default)
  try:
    world, task = start.open()
  except (ValueError, TypeError, OSError, ImportError, api.EnvError) as error:
    raise BadScript(f'{path}: {error}') from error
  show_head(start, world, task)
  try:
    game = Game(world, task, start.seed)
  except api.EnvError as error:
    raise BadScript(f'{path}: {error}') from error
  say(game.step.observation)
  for number, action in actions:
    try:
      game.take(action)
    except api.EnvError as error:
      raise BadScript(f'{path}:{number}: {action!r}: {error}') from error
    say(f'> {action}\n{game.step.observation}')
  say(f'\n{game.verdict()}')
  world.close()


def play(start: Start) -> None:
  """Plays between standard input and output."""
  world, task = start.open()
  show_head(start, world, task)
  game = Game(world, task, start.seed)
  show(game)
  for line in prompted_lines():
    try:
      if line == ':quit':
        break
      obey(line, game, world, dataclasses.replace(start, task=task.id))
    except (ValueError, OSError, api.EnvError) as error:
      say(str(error))
  world.close()


def prompted_lines():
  """Lines of the standard input, without what surrounds them."""
  while True:
    print('> ', end='', flush=True)
    line = sys.stdin.readline()
    if not line:
      return
    if line.strip():
      yield line.strip()


def obey(line: str, game: Game, world: api.World, start: Start) -> None:
  """Does what a line says. ValueError where it says nothing known."""
  match line.split():
    case [':undo', *count] if len(count) < 2:
      game.undo(int(count[0]) if count else 1)
    case [':reset']:
      game.reset()
    case [':list']:
      say('\n'.join(game.session.admissible()) or 'this world does not list them')
      return
    case [':save', path]:
      script = write_script(start, game.actions)
      pathlib.Path(path).write_text(script, encoding='utf-8')
      say(f'{len(game.actions)} actions in {path}')
      return
    case [word, *_] if word.startswith(':'):
      raise ValueError(f'{line}: use :undo [N], :reset, :list, :save FILE or :quit')
    case _:
      game.take(world.parse_response(read_line(line)))
  show(game)


def show(game: Game) -> None:
  say(game.step.observation)
  if game.over:
    say(f'\n{game.verdict()}; :undo, :reset, :save FILE or :quit')
    return
  responses = game.session.admissible()
  if responses:
    more = len(responses) - _SHOWN
    tail = f' | ... {more} more, see :list' if more > 0 else ''
    say(f'\n[{" | ".join(responses[:_SHOWN])}{tail}]')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  try:
    options = json.loads(_OPTIONS.value)
    start = Start(_ENV.value, options, _SPLIT.value, _INDEX.value, _SEED.value)
    if _SCRIPT.value:
      replay(_SCRIPT.value, start)
    else:
      play(start)
  except (
      BadScript, ValueError, TypeError, OSError, ImportError, api.EnvError
  ) as error:
    sys.exit(f'error: {command_line.printable(str(error))}')


if __name__ == '__main__':
  command_line.run(main)
