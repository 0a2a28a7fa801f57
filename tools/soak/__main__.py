"""Runs a config again and again under faults drawn at random, and judges what comes.

    python -m tools.soak --config=configs/webshop.py:debug --hours=2 --out=/tmp/soak

The config is first played to its end once undisturbed. Then every draw plays it in
a fresh directory, lets one fault happen (a signal at a random time, a full disk, a
damaged file, a world that hangs, a lost process ...) and starts the same command
again until the run is finished. Each draw comes out as one of

  survived      the same bits as the undisturbed run
  regenerated   the same bits, after the run said that it makes something again
  refused       one line that names the damaged file and a remedy, which was taken,
                and then the same bits
  WRONG         anything else: its directory and log are kept, and the command that
                makes the same draw again is shown

The same --seed gives the same draws. The same --out goes on where it stopped, with
the next draws. A look of some minutes draws every kind of fault once, on a run that
is as small as a run can be (`make soak`):

    python -m tools.soak --config=tools/soak/small.py --rounds=1 --out=/tmp/soak

The exit code is 1 if anything was wrong.
"""

from __future__ import annotations

import math
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence

from absl import flags

from leafe_jax import command_line
from tools.soak import judge, report
from tools.soak.faults import FAULTS, Fault, NotPossible, Scene, unmount
from tools.soak.play import Player


def define_flags() -> None:
  command_line.define_config()
  flags.DEFINE_float('hours', 0.0, 'Hours to go on.', lower_bound=0.0)
  flags.DEFINE_float('minutes', 0.0, 'Minutes to go on.', lower_bound=0.0)
  flags.DEFINE_integer(
      'rounds', 0, 'Draws of each kind of fault, if the time is not over before; 0: '
      'as many as there is time for.', lower_bound=0,
  )
  flags.DEFINE_integer('seed', 0, 'Of the draws.')
  flags.DEFINE_integer('draw', -1, 'Make this draw alone; -1: the next ones.')
  flags.DEFINE_list('faults', [], 'Names of the kinds of fault; empty: all.')
  flags.DEFINE_float(
      'patience', 600.0, 'Seconds that a start of the run may take.', lower_bound=1.0
  )
  command_line.define_path('out', '', 'Directory for runs, logs and soak.json.')


class Soak:
  """Draws of one config and seed.

  Args:
    options: --config=... and overrides.
    out: directory of references, draws and soak.json.
    seed: of the draws.
    patience: seconds that a start may take.
    faults: that may be drawn.
  """

  def __init__(
      self, options: Sequence[str], out: pathlib.Path, seed: int, patience: float,
      faults: Sequence[Fault] = FAULTS,
  ):
    self._options, self._out = list(options), out.absolute()
    self._seed, self._patience = seed, patience
    self._faults = tuple(faults)
    self._owner = {
        'options': self._options, 'seed': seed, 'faults': [f.name for f in faults]
    }
    self._path = self._out / 'soak.json'
    self._out.mkdir(parents=True, exist_ok=True)
    self.entries = report.load(self._path, self._owner)

  def draw(self, number: int) -> report.Entry:
    """Plays one draw and adds it to soak.json."""
    rng = random.Random(f'{self._seed}/{number}')
    fault = self._fault(number)
    place = self._out / f'draw_{number:05d}'
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    start = time.monotonic()
    player = self._player(fault, place / 'run', place / 'log.txt')
    try:
      scene = Scene(player, *self._reference(fault), rng)
    except judge.Wrong as error:  # a finding too, and no reason to stop
      scene, outcome, why = None, judge.WRONG, str(error)
    else:
      outcome, why = _outcome(fault, scene)
    if outcome != judge.WRONG:
      shutil.rmtree(place)
    entry = report.Entry(
        number, fault.name, scene.detail if scene else '', outcome, why,
        round(time.monotonic() - start, 1), self._replay(number),
    )
    self.entries = [e for e in self.entries if e.number != number] + [entry]
    report.save(self._path, self._owner, self.entries)
    return entry

  def next_number(self) -> int:
    """The first draw that was not made."""
    return max((entry.number for entry in self.entries), default=-1) + 1

  def numbers(self, seconds: float, rounds: int) -> Iterator[int]:
    """The draws that are to be made next.

    Args:
      seconds: no draw begins later; 0: at any time if there are rounds, else none.
      rounds: draws of each kind, those that were made before included; 0: any.
    """
    end = time.monotonic() + seconds if seconds or not rounds else math.inf
    last = rounds * len(self._faults) or math.inf
    while time.monotonic() < end and self.next_number() < last:
      yield self.next_number()

  def _fault(self, number: int) -> Fault:
    """Each kind once in every round, in another order each time."""
    turn, place = divmod(number, len(self._faults))
    return random.Random(f'{self._seed}/round {turn}').sample(
        self._faults, len(self._faults))[place]

  def _player(self, fault: Fault, run: pathlib.Path, log: pathlib.Path) -> Player:
    options = self._options
    if fault.variant:
      options = [_troubled(option, fault.variant) for option in options]
    return Player(run, options, log, self._patience, fault.processes)

  def _reference(self, fault: Fault) -> tuple[pathlib.Path, float]:
    """The directory of the undisturbed run, and its seconds; played where missing."""
    name = f'{fault.variant or "plain"}_{fault.processes}'
    place = self._out / 'reference' / name
    note = place / 'seconds'
    if not note.exists():
      shutil.rmtree(place, ignore_errors=True)
      place.mkdir(parents=True)
      ending = self._player(fault, place / 'run', place / 'log.txt').start()
      if not ending.whole:
        raise judge.Wrong(
            f'the undisturbed run did not end well; see {place / "log.txt"}'
        )
      note.write_text(f'{ending.seconds:.1f}', 'ascii')
    return place / 'run', float(note.read_text('ascii'))

  def _replay(self, number: int) -> str:
    chosen = ','.join(self._owner['faults'])
    faults = [] if self._faults == FAULTS else [f"--faults='{chosen}'"]
    return ' '.join([
        'python -m tools.soak', *(f"'{option}'" for option in self._options), *faults,
        f'--seed={self._seed} --draw={number} --out={self._out}',
    ])


def _outcome(fault: Fault, scene: Scene) -> tuple[str, str]:
  try:
    return judge.judge(scene, fault.happen(scene)), ''
  except judge.Wrong as error:
    return judge.WRONG, str(error)
  except NotPossible as error:
    return report.NOT_POSSIBLE, str(error)
  finally:
    unmount(scene.player.workdir)


def _troubled(option: str, way: str) -> str:
  """The option that names the config, of one whose world is troubled."""
  name, equals, path = option.partition('=')
  if name.lstrip('-') != 'config':
    return option
  return f'{name}{equals}tools/soak/troubled.py:{way},{path}'


def _options(argv: Sequence[str]) -> list[str]:
  """The options that go to the run."""
  starts = ('--config=', '--config.', '--noconfig.')
  found = [argument for argument in argv[1:] if argument.startswith(starts)]
  if not any(option.startswith('--config=') for option in found):
    raise command_line.UsageError('give --config=FILE[:VARIANT], with an equals sign')
  return found


def _chosen(names: Sequence[str]) -> tuple[Fault, ...]:
  known = {fault.name: fault for fault in FAULTS}
  for name in names:
    if name not in known:
      raise command_line.UsageError(f'--faults={name}: choose from {", ".join(known)}')
  return tuple(known[name] for name in names) or FAULTS


def _say(soak: Soak, entry: report.Entry) -> None:
  wrong = sum(e.outcome == judge.WRONG for e in soak.entries)
  sys.stdout.write(
      f'draw {entry.number}: {entry.fault} ({entry.detail}): {entry.outcome}'
      f'{f", {entry.why}" if entry.why else ""}; {entry.seconds:.0f} s, '
      f'{wrong} wrong of {len(soak.entries)}\n'
  )
  if entry.outcome == judge.WRONG:
    sys.stdout.write(f'  {entry.replay}\n')
  sys.stdout.flush()


def _heed_signals() -> None:
  """What is ignored here (nohup, a shell's background) reaches the runs all the same.

  A program inherits that a signal is ignored, but no handler.
  """
  for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
      signal.signal(number, lambda *_: None)
    elif number != signal.SIGINT:  # ends with what was begun put away
      signal.signal(number, lambda number, _: sys.exit(128 + number))


def main(argv: Sequence[str]) -> int:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  values = flags.FLAGS
  seconds = 3600 * values.hours + 60 * values.minutes
  if not values.out or not (seconds or values.rounds or values.draw >= 0):
    raise command_line.UsageError(
        'give --out=DIR, and --hours, --minutes, --rounds or --draw'
    )
  try:
    soak = Soak(
        _options(sys.argv), pathlib.Path(values.out), values.seed, values.patience,
        _chosen(values.faults),
    )
  except ValueError as error:
    raise command_line.UsageError(str(error)) from error
  _heed_signals()
  if values.draw >= 0:
    _say(soak, soak.draw(values.draw))
  for number in soak.numbers(seconds, values.rounds):
    _say(soak, soak.draw(number))
  sys.stdout.write(report.table(soak.entries))
  return int(any(entry.outcome == judge.WRONG for entry in soak.entries))


if __name__ == '__main__':
  define_flags()
  command_line.run(main, config=True)
