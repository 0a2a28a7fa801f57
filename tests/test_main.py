"""The command line, as a user meets it."""

from __future__ import annotations

import json
import logging as python_logging
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags, logging

from configs import webshop
from leafe_jax import claims, launch, settings
from leafe_jax.endings import RunStopped
from leafe_jax.rundir import RunDirectory
from leafe_jax.standing import WHOLE_RUN, Inputs

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = '--config=configs/webshop.py:debug'
INPUTS = {
    'base': Inputs(('seed',)), 'distill': Inputs(('distill',), ('base',)),
    'report': Inputs((WHOLE_RUN,)),
}


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
      [sys.executable, '-m', 'leafe_jax.main', *arguments],
      cwd=ROOT, capture_output=True, text=True, check=False,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def parse(monkeypatch, *arguments: str) -> flags.FlagValues:
  """Parses in this process, with flags of its own."""
  argv = ['main', *arguments]
  monkeypatch.setattr(sys, 'argv', argv)
  monkeypatch.chdir(ROOT)
  values = flags.FlagValues()
  launch.define_flags(values)
  launch.parse_flags(values, argv)
  return values


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
  return RunDirectory(tmp_path / 'run')


def experiment(**options):
  config = webshop.get_config('debug')
  config.update(options)
  return settings.from_config_dict(config)


def test_help_reads_well_and_hides_library_flags():
  result = call('--help')
  assert result.returncode == 0
  assert 'python -m leafe_jax.main --config=' in result.stdout
  assert 'distill.beta: float = 1.0' in result.stdout
  assert 'jax_' not in result.stdout
  assert not result.stderr


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
  result = call(CONFIG, f'--workdir={tmp_path}/w', '--config.explore.num_task=3')
  assert result.returncode == 2
  assert result.stderr.count('\n') == 1
  assert 'explore.num_task; did you mean explore.num_tasks?' in result.stderr
  assert not (tmp_path / 'w').exists()


def test_an_unknown_arm_is_refused_before_anything_is_written(tmp_path):
  result = call(CONFIG, f'--workdir={tmp_path}/w', '--config.arms=base,laefe')
  assert result.returncode == 2
  assert "unknown arm 'laefe'" in result.stderr.splitlines()[-1]
  assert 'Traceback' not in result.stderr
  assert not (tmp_path / 'w').exists()


def test_an_unknown_phase_is_refused_with_the_choices(tmp_path):
  result = call(CONFIG, f'--workdir={tmp_path}/w', '--until=explor')
  assert result.returncode == 2
  assert result.stderr.count('\n') == 1
  assert '--until=explor: no phase of this run' in result.stderr
  assert 'warm_start, gate, explore, sample, distill/rft' in result.stderr
  assert not (tmp_path / 'w').exists()


def test_a_mesh_that_does_not_fit_is_one_line_with_the_remedy(tmp_path):
  workdir = tmp_path / 'w'
  result = call(CONFIG, f'--workdir={workdir}', '--config.mesh.tensor=3')
  assert result.returncode == 2
  line = result.stderr.splitlines()[-1]
  assert 'mesh.tensor=3 does not fit 1 device; set --config.mesh.tensor=1' in line
  assert '--config=configs/webshop.py:qwen2_5_1_5b_gpu1, :qwen3_4b_gpu1' in line
  assert 'Traceback' not in result.stderr
  assert RunDirectory(workdir).is_blank()  # takes the config that fits


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], '--config=FILE[:VARIANT] is missing'),
        ([CONFIG], '--workdir=DIR is missing'),
        (['--config=none.py', '--workdir=w'], "no file 'none.py'"),
        (['--config=configs/webshop.py:x', '--workdir=w'], "'study', 'smollm2'"),
        ([CONFIG, '--workdir=w', '--wrokdir=w'], "'wrokdir'"),
        ([CONFIG, '--workdir=w', '--config.seed=x'], '--config.seed=x: invalid'),
        ([CONFIG, '--workdir=w', '--config.explore=3'], 'explore is a section'),
        ([CONFIG, '--workdir=w', '--noconfig.restart'], 'explore.restart'),
        ([CONFIG, '--workdir=w', '--config.env.options.veiw=x'], 'env.options.view'),
    ],
)
def test_a_bad_flag_is_named(monkeypatch, arguments, message):
  with pytest.raises(launch.UsageError) as error:
    parse(monkeypatch, *arguments)
  assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_flags_override_the_config_file_in_the_types_of_the_options(monkeypatch):
  values = parse(
      monkeypatch, CONFIG, '--workdir=w', '--config.distill.beta=4',
      '--config.arms=base,leafe', '--config.sampler.length_buckets=(64, 128)',
      '--noconfig.explore.restart', '--config.env.options.page_size', '4',
  )
  config = launch.check(values.config)
  assert config.distill.beta == 4.0
  assert config.arms == ('base', 'leafe')
  assert config.sampler.length_buckets == (64, 128)
  assert config.explore.restart is False
  assert config.env.options['page_size'] == 4


def test_an_unknown_environment_is_refused_with_the_choices():
  config = webshop.get_config()
  config.env.name = 'shop'
  with pytest.raises(settings.ConfigError, match="'shop'.*webshop"):
    launch.check(config)


def test_a_bad_option_of_the_world_is_refused_and_nothing_saved(directory):
  config = experiment(env={'options': {'view': 'video'}})
  with pytest.raises(launch.UsageError, match="'video'.*compact"):
    claims.claim(directory, config, '', INPUTS)
  assert directory.config() is None


def test_the_same_config_is_resumed(directory):
  for _ in range(2):
    claims.claim(directory, experiment(), '', INPUTS)
  assert directory.config() == settings.to_dict(experiment())


def test_a_changed_config_is_refused_with_the_difference(directory):
  claims.claim(directory, experiment(), '', INPUTS)
  directory.phase('base').complete({})
  with pytest.raises(launch.UsageError) as error:
    claims.claim(directory, experiment(seed=7), '', INPUTS)
  assert 'seed: 0 -> 7' in str(error.value)
  assert f'--fork_from={directory.path}' in str(error.value)
  assert (directory.config() or {})['seed'] == 0


def test_a_directory_without_results_takes_a_new_config(directory):
  claims.claim(directory, experiment(), '', INPUTS)
  claims.claim(directory, experiment(seed=7), '', INPUTS)
  assert (directory.config() or {})['seed'] == 7


def test_a_fork_has_the_new_config_and_the_unaffected_phases(directory, tmp_path):
  claims.claim(directory, experiment(), '', INPUTS)
  for name in INPUTS:
    directory.phase(name).complete({})
  target = RunDirectory(tmp_path / 'fork')
  config = experiment(distill={'beta': 4.0})
  claims.claim(target, config, str(directory.path), INPUTS)
  assert target.config() == settings.to_dict(config)
  assert [name for name in INPUTS if target.phase(name).done()] == ['base']


def test_a_fork_needs_another_run(directory, tmp_path):
  for source in (directory.path, tmp_path / 'none'):
    with pytest.raises(launch.UsageError, match='not the directory of another run'):
      claims.claim(directory, experiment(), str(source), INPUTS)
  assert not (tmp_path / 'none').exists()


def used(directory, config):
  """A directory in which a start with a config has finished a phase."""
  claims.claim(directory, config, '', INPUTS)
  launch.record(directory, ['main'], settings.sha256(config))
  directory.phase('base').complete({})
  return directory.path / 'config.json'


def test_a_lost_config_is_written_again_for_the_config_that_was(directory, caplog):
  path = used(directory, experiment())
  path.unlink()
  with pytest.raises(launch.UsageError, match='config.json is lost.*another config'):
    claims.claim(directory, experiment(seed=7), '', INPUTS)
  assert not path.exists()
  claims.claim(directory, experiment(), '', INPUTS)
  assert directory.config() == settings.to_dict(experiment())
  assert 'config.json was lost' in caplog.text


def test_a_lost_config_of_which_nothing_tells_is_refused(directory):
  used(directory, experiment()).unlink()
  (directory.path / 'attempts.jsonl').unlink()
  with pytest.raises(launch.UsageError, match='neither attempts.jsonl nor results'):
    claims.claim(directory, experiment(), '', INPUTS)


def test_a_config_that_was_changed_by_hand_is_refused(directory):
  path = used(directory, experiment())
  path.write_text(json.dumps({**json.loads(path.read_text()), 'seed': 7}))
  with pytest.raises(launch.UsageError, match='config.json was changed'):
    claims.claim(directory, experiment(seed=7), '', INPUTS)


def test_a_config_that_was_cut_short_is_named(directory):
  path = used(directory, experiment())
  path.write_text(path.read_text()[:50])
  with pytest.raises(RunStopped, match='config.json is not JSON .*remove it'):
    claims.claim(directory, experiment(), '', INPUTS)


def test_a_dry_run_says_what_would_be_kept_and_writes_nothing(directory, tmp_path):
  used(directory, experiment())
  said = claims.preview(directory, experiment(), '', INPUTS)
  assert [line.split()[:2] for line in said.splitlines()] == [
      ['base', 'keep'], ['distill', 'do'], ['report', 'do']
  ]
  target = RunDirectory(tmp_path / 'fork', make=False)
  changed = experiment(distill={'beta': 4.0})
  said = claims.preview(target, changed, str(directory.path), INPUTS)
  assert 'reads distill.beta' in said and not target.path.exists()
  with pytest.raises(launch.UsageError, match='belongs to another config'):
    claims.preview(directory, changed, '', INPUTS)


def test_a_start_is_recorded_with_what_it_ran(directory):
  launch.record(directory, ['main', '--workdir=w'], 'abc')
  attempt = json.loads((directory.path / 'attempts.jsonl').read_text())
  assert attempt['argv'] == ['main', '--workdir=w']
  assert attempt['config_sha256'] == 'abc'
  assert attempt['pid'] == os.getpid()
  assert {'time', 'git', 'host'} <= attempt.keys()


def test_the_log_has_our_news_and_only_the_warnings_of_libraries(directory):
  root = python_logging.getLogger()
  before = list(root.handlers)
  filters = list(logging.get_absl_handler().filters)
  level, verbosity = root.level, logging.get_verbosity()
  launch.start_logging(directory)
  try:
    logging.info('news of ours')
    for level_name, text in ((python_logging.INFO, 'chat'), (30, 'trouble')):
      root.handle(python_logging.LogRecord(
          'lib', level_name, '/lib/site-packages/lib.py', 1, text, (), None
      ))
  finally:
    for handler in set(root.handlers) - set(before):
      root.removeHandler(handler)
      if isinstance(handler, python_logging.FileHandler):
        handler.close()
    logging.get_absl_handler().filters[:] = filters
    logging.set_verbosity(verbosity)
    root.setLevel(level)
  text = (directory.path / 'log.txt').read_text()
  assert 'news of ours' in text
  assert 'trouble' in text
  assert 'chat' not in text
