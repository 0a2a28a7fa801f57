"""What came of a draw: refusals are heeded, results compared with the reference's."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from leafe_jax import heartbeat
from leafe_jax.learner import checkpoints
from tools.soak.faults import Scene
from tools.soak.play import Ending

SURVIVED, REGENERATED = 'survived', 'regenerated'
REFUSED, WRONG = 'refused', 'WRONG'
OUTCOMES = (SURVIVED, REGENERATED, REFUSED, WRONG)
MOST_REMEDIES = 4
# Tell of starts and times, so they are other in every run.
_OWN = ('seal.json', 'attempts.jsonl', heartbeat.FILE)
_TIMES = ('wall_s', 'speed', 'resumed', 'seal')
_AGAIN = re.compile(
    '(?<!what is )made again|made anew|explored again|written again|played again'
)
_REMOVE = re.compile(r'remove ((?:/[^\s,;:]+)|it\b)')


class Wrong(Exception):
  """A draw that came out as it may not; says how."""


def judge(scene: Scene, codes: tuple[int, ...]) -> str:
  """Goes on with a disturbed run until it is finished; the outcome.

  Args:
    scene: after the fault.
    codes: exit codes that the disturbed start may have.

  Raises:
    Wrong: says what is.
  """
  for ending in scene.endings:
    _check_ending(ending, codes)
  refused = False
  for _ in range(MOST_REMEDIES):
    ending = scene.start()
    _check_ending(ending, (0, 1, 2))
    said = _unreadable(scene) if ending.whole else ending.text
    if not said:
      break
    refused = True
    _heed(scene, said)
  else:
    raise Wrong(f'not finished after {MOST_REMEDIES} remedies')
  for difference in differences(scene.reference, scene.player.workdir):
    raise Wrong(difference)
  if refused:
    return REFUSED
  again = any(_AGAIN.search(ending.text) for ending in scene.endings)
  return REGENERATED if again and scene.files else SURVIVED


def _check_ending(ending: Ending, codes: tuple[int, ...]) -> None:
  """Wrong for a hang, a traceback, or another exit code than expected."""
  if ending.hung:
    raise Wrong(f'no end within {ending.seconds:.0f} s')
  if 'Traceback' in ending.text or 'not foreseen' in ending.text:
    lines = ending.text.strip().splitlines()
    found = [line for line in lines if 'not foreseen' in line]
    raise Wrong(f'a traceback: {(found or lines)[-1][:200]}')
  for code in ending.codes:
    # A process whose peer is lost ends with 1.
    if code not in codes and not (code == 1 and len(ending.codes) > 1):
      raise Wrong(f'exit code {code}: {_last_line(ending)[:200]}')
    if code in (1, 2) and 'leafe_jax: ' not in ending.text:
      raise Wrong(f'exit code {code} without a reason')


def _unreadable(scene: Scene) -> str:
  """What whoever reads the weights is told, where they are damaged; else nothing.

  A run that is finished reads them no more, so it may not see that bits changed.
  """
  for place in _weights(scene.reference):
    try:
      checkpoints.load_params(scene.player.workdir / place)
    except checkpoints.DamagedCheckpoint as error:
      return f'leafe_jax: {error}'
    except OSError:  # missing: told by `differences`
      continue
  return ''


def _weights(reference: pathlib.Path) -> list[pathlib.Path]:
  """Where an undisturbed run keeps weights, in its directory."""
  seals = sorted(reference.glob('**/params/seal.json'))
  return [seal.parent.relative_to(reference) for seal in seals]


def _heed(scene: Scene, text: str) -> None:
  """Does what a refusal asks for. Wrong if it names no damaged file or remedy."""
  said = text[text.rindex('leafe_jax: '):]
  damaged = list(scene.files)
  names = [path.name for path in damaged]
  named = [n for path in damaged for n in (path.name, path.parent.name) if n in said]
  if damaged and not named:
    raise Wrong(f'a refusal that does not name {names[0]}: {said[:300]}')
  workdir = scene.player.workdir
  found = _REMOVE.search(said)
  if found:
    place = damaged[0] if found[1] == 'it' and damaged else pathlib.Path(found[1])
    if not place.is_relative_to(workdir) or place == workdir:
      raise Wrong(f'a refusal whose remedy is elsewhere: {said[:300]}')
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
  elif damaged and 'put' in said and 'back' in said:
    for path, content in scene.files.items():
      path.write_bytes(content)
  else:
    raise Wrong(f'a refusal without a remedy: {said[:300]}')


def _last_line(ending: Ending) -> str:
  lines = ending.text.strip().splitlines()
  return lines[-1] if lines else 'nothing was said'


def differences(reference: pathlib.Path, workdir: pathlib.Path) -> list[str]:
  """What is missing in, or other than in, an undisturbed run."""
  found = []
  for name in results(reference):
    path = workdir / name
    if not path.is_file():
      found.append(f'{name} is missing')
    elif _content(path) != _content(reference / name):
      found.append(f'{name} has other bits')
  for name in sorted({*results(workdir)} - {*results(reference)}):
    found.append(f'{name} is left over')
  for name in _weights(reference):
    if not _same_arrays(reference / name, workdir / name):
      found.append(f'{name} holds other numbers')
  return found


def results(directory: pathlib.Path) -> list[str]:
  """The files whose bytes are the same in every run."""
  kept = []
  for path in sorted(directory.rglob('*')):
    name = path.relative_to(directory)
    bits = path.suffix in ('.json', '.jsonl') or '.array_record-' in path.name
    apart = {'params', 'checkpoints', 'tensorboard', 'trackers'} & set(name.parts)
    own = path.name in _OWN or path.name.startswith('.')
    if path.is_file() and (bits or name.parts[0] == 'report') and not apart and not own:
      kept.append(str(name))
  return kept


def _content(path: pathlib.Path) -> Any:
  """Of a file, without what was measured."""
  if path.name in ('DONE.json', 'results.json'):
    try:
      return _untimed(json.loads(path.read_bytes()))
    except ValueError:
      return path.read_bytes()
  # The page tells of times.
  return path.name if path.parent.name == 'report' else path.read_bytes()


def _untimed(value: Any) -> Any:
  if isinstance(value, dict):
    return {k: _untimed(v) for k, v in value.items() if k not in _TIMES}
  return value


def _same_arrays(one: pathlib.Path, other: pathlib.Path) -> bool:
  try:
    ours, theirs = (checkpoints.load_params(place) for place in (one, other))
  except (checkpoints.DamagedCheckpoint, OSError):
    return False
  return ours.keys() == theirs.keys() and all(
      np.asarray(ours[key]).tobytes() == np.asarray(theirs[key]).tobytes()
      for key in ours
  )
