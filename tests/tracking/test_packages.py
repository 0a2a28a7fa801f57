"""What is told arrives in the packages' own stores, without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sqlite3
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest

from leafe_jax.config import Experiment
from leafe_jax.tracking import opening
from leafe_jax.tracking.choice import Choice
from tests.tracking import wandb_log

CONFIG = Experiment(seed=7)
COLUMNS = ['arm', 'k', 'mean', 'lo', 'hi']
ROWS = [['base', 1, 0.25, 0.1, 0.4], ['leafe', 1, 0.5, 0.3, 0.7]]


INSTALLED = [n for n in ('wandb', 'trackio') if importlib.util.find_spec(n)]
_START = """
import pathlib, sys
from tests.tracking.test_packages import tell
tell(pathlib.Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
"""


def tell(root: pathlib.Path, steps: range) -> None:
  """A run in `root` that is told of to all trackers that are installed."""
  page, picture = root / 'index.html', root / 'passk.png'
  page.write_text('<p>report</p>')
  plt.imsave(picture, [[0.0, 1.0]])
  with opening.opened(Choice(INSTALLED), root, CONFIG) as tracker:
    for step in steps:
      tracker.scalars('distill_leafe', step, {'loss': 1 / step})
    tracker.scalars('explore', 1, {'success': 0.5})
    tracker.table('pass_at_k', COLUMNS, ROWS)
    tracker.files('report', [page, picture])


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  """The directory of a run that was started twice; step 3 was told twice."""
  if not INSTALLED:
    pytest.skip('neither wandb nor trackio is installed')
  found = tmp_path_factory.mktemp('run')
  left_out = ('TRACKIO_', 'WANDB_', 'HF_TOKEN')
  known = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
  (found / 'home').mkdir()
  own = {
      'TRACKIO_DIR': str(found / 'store'), 'NETRC': str(found / 'no_netrc'),
      'HOME': str(found / 'home'), 'MPLCONFIGDIR': str(found / 'matplotlib'),
  }  # fmt: skip
  for begin, end in ((1, 4), (3, 5)):
    run = subprocess.run(
        [sys.executable, '-c', _START, str(found), str(begin), str(end)],
        text=True, capture_output=True, env={**known, **own}, check=True,
    )
    for word in ('Traceback', 'Warning', 'WARNING', 'rror'):
      assert word not in run.stderr.replace('WARNING: Logging before', ''), run.stderr
    assert not run.stdout
  return found


def test_wandb_keeps_a_run_offline_and_goes_on_with_it(root):
  pytest.importorskip('wandb')
  run_id = json.loads((root / 'trackers' / 'id.json').read_text())['id']
  starts = sorted((root / 'trackers' / 'wandb').glob(f'offline-run-*-{run_id}'))
  assert len(starts) == 2
  found = [wandb_log.records(place / f'run-{run_id}.wandb') for place in starts]
  losses = [_column(records, 'distill_leafe/loss') for records in found]
  assert losses == [[1.0, 0.5, 1 / 3], [1 / 3, 0.25]]
  assert _column(found[1], 'distill_leafe/step') == [3, 4]
  for records in found:
    (run,) = (r.run for r in records if r.WhichOneof('record_type') == 'run')
    assert (run.run_id, run.project) == (run_id, 'leafe_jax')
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config['seed'] == 7 and config['env']['name'] == CONFIG.env.name
  kept = {c.path for r in found[0] for c in r.artifact.manifest.contents}
  assert {'index.html', 'passk.png', 'pass_at_k.table.json'} <= kept
  (place,) = (starts[0] / 'files').rglob('pass_at_k*.table.json')
  table = json.loads(place.read_text())
  assert (table['columns'], table['data']) == (COLUMNS, ROWS)


def test_what_wandb_uploads_later_lies_with_the_run(root):
  pytest.importorskip('wandb')
  staged = [path for path in root.rglob('staging/*') if path.is_file()]
  assert staged and all(root / 'trackers' in path.parents for path in staged)


def test_wandb_has_no_command_line_and_no_packages_of_the_machine(root):
  """They may hold secrets."""
  pytest.importorskip('wandb')
  names = {path.name for path in (root / 'trackers').rglob('*') if path.is_file()}
  assert not {'wandb-metadata.json', 'requirements.txt', 'diff.patch'} & names


def _column(records: list, name: str) -> list[float]:
  return [
      json.loads(item.value_json)
      for record in records if record.WhichOneof('record_type') == 'history'
      for item in record.history.item
      if (item.key or '/'.join(item.nested_key)) == name
  ]  # fmt: skip


@pytest.mark.parametrize(
    ('text', 'found'),
    [('machine api.wandb.ai login user password x\n', True),
     ('machine api.other.ai login user password x\n', False), ('nonsense', False)],
)
def test_a_key_is_looked_for_where_wandb_does(text, found, tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  from leafe_jax.tracking import weights_and_biases

  place = tmp_path / 'netrc'
  place.write_text(text)
  place.chmod(0o600)
  monkeypatch.setenv('NETRC', str(place))
  for name in ('WANDB_API_KEY', 'WANDB_BASE_URL', 'WANDB_IDENTITY_TOKEN_FILE'):
    monkeypatch.delenv(name, raising=False)
  assert weights_and_biases.has_key() == found
  monkeypatch.setenv('WANDB_API_KEY', 'x')
  assert weights_and_biases.has_key()


def test_trackio_keeps_one_run_in_its_database(root):
  pytest.importorskip('trackio')
  store = root / 'store'
  base = sqlite3.connect(store / 'leafe_jax.db')
  rows = base.execute('select run_name, step, metrics from metrics').fetchall()
  assert len({name for name, _, _ in rows}) == 1
  told = [(step, json.loads(metrics)) for _, step, metrics in rows]
  steps = [step for step, metrics in told if 'distill_leafe/loss' in metrics]
  assert sorted(steps) == [1, 2, 3, 3, 4]
  table = next(m['pass_at_k'] for _, m in told if 'pass_at_k' in m)
  assert table['_value'][1] == dict(zip(COLUMNS, ROWS[1]))
  configs = base.execute('select config from configs').fetchall()
  assert {json.loads(config)['seed'] for (config,) in configs} == {7}
  assert base.execute('select type from artifacts').fetchall() == [('report',)]
  assert any(path.suffix == '.png' for path in (store / 'media').rglob('*'))
