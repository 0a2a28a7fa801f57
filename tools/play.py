"""Play an environment by hand.

  python -m tools.play --env=webshop --options='{"view": "text"}'

Prints the observation and reads an action a line; 'undo' goes back one step,
an empty line or the end of the input leaves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from absl import app, flags

from envs import api, registry

_ENV = flags.DEFINE_enum('env', 'webshop', registry.names(), 'Environment.')
_OPTIONS = flags.DEFINE_string('options', '{}', 'Options of the world, as JSON.')
_SPLIT = flags.DEFINE_enum('split', 'train', api.SPLITS, 'Split of the tasks.')
_TASK = flags.DEFINE_integer('task', 0, 'Number of the task in its split.')


def play(world: api.World, task: api.Task) -> None:
  """Plays one episode between standard input and output."""
  session = world.session()
  step = session.reset(task)
  print(world.instructions(), task.instruction, sep='\n\n', end='\n\n')
  past = []
  while True:
    print(step.observation)
    if step.terminated or step.truncated:
      print(f'score {step.score} success {step.success}')
      return
    print('> ', end='', flush=True)
    response = sys.stdin.readline().strip()
    if not response:
      return
    if response == 'undo':
      if past:
        snapshot, step = past.pop()
        session.restore(snapshot)
      continue
    try:
      action = world.parse_response(response)
    except api.InvalidAction as error:
      print(error)
      continue
    past.append((session.snapshot(), step))
    step = session.step(action)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  world = registry.make(_ENV.value, **json.loads(_OPTIONS.value))
  play(world, world.tasks(_SPLIT.value)[_TASK.value])


if __name__ == '__main__':
  app.run(main)
