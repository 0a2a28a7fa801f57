"""Command lines of the tools, and troubles of the machine: one line each."""

from __future__ import annotations

import errno
import importlib
import io
import logging as python_logging
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from absl import flags, logging

from leafe_jax import claims, command_line, files, hosts, launch, main, rundir, settings
from leafe_jax.endings import RunStopped
from leafe_jax.learner.checkpoints import DamagedCheckpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = '--config=configs/webshop.py:debug'
TOOLS = sorted(
    path.stem
    for path in (ROOT / 'tools').glob('*.py')
    if '__main__' in path.read_text(encoding='utf-8')
)


def call(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
      [sys.executable, '-m', f'tools.{tool}', *arguments],
      cwd=ROOT, capture_output=True, text=True, check=False,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def parse(monkeypatch, *arguments: str, config: bool = False) -> str:
  """What is wrong with the arguments of a tool that has some flags."""
  monkeypatch.chdir(ROOT)
  argv = ['tool', *arguments]
  monkeypatch.setattr(sys, 'argv', argv)
  values = flags.FlagValues()
  if config:
    command_line.define_config(values)
  command_line.define_path('out', None, 'Directory.', required=True, values=values)
  flags.DEFINE_integer('count', 1, 'Things.', lower_bound=1, flag_values=values)
  with pytest.raises(command_line.UsageError) as error:
    command_line.parse(values, argv, config)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_every_tool_has_the_same_command_line():
  assert len(TOOLS) > 10
  for name in TOOLS:
    text = (ROOT / 'tools' / f'{name}.py').read_text(encoding='utf-8')
    assert '  command_line.run(main' in text, name
    assert 'app.run' not in text, name


def test_no_reader_is_advised_to_install_torch():
  """As transformers does when it is imported and finds none."""
  name = 'TRANSFORMERS_NO_ADVISORY_WARNINGS'
  done = subprocess.run(
      [sys.executable, '-c', f'import leafe_jax, os; print(os.environ["{name}"])'],
      cwd=ROOT, capture_output=True, text=True, check=True,
      env={key: value for key, value in os.environ.items() if key != name},
  )
  assert done.stdout == '1\n'


def test_a_tool_refuses_in_one_line():
  found = call('merge_results')
  assert (found.returncode, found.stderr) == (
      2, 'merge_results: --out is missing; see --help\n',
  )
  found = call('merge_results', '--runs=none', '--out=none')
  assert found.returncode == 2
  assert found.stderr == (
      'merge_results: none holds no finished run (config.json, results.json)\n'
  )


def test_the_help_of_a_tool_lists_its_flags():
  found = call('plan', '--help')
  assert found.returncode == 0
  assert '--config' in found.stdout and '--hbm_gb' in found.stdout
  assert not found.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], '--out is missing'),
        (['--out=o', '--cuont=3'], "'cuont'. Did you mean: count"),
        (['--out=o', '--count=x'], '--count=x'),
        (['--out=o', '--count=0'], '--count=0'),
        (['--out=gs://bucket/o'], '--out=gs://bucket/o: a URL; give a path'),
        (['--out=s3://bucket/o'], 'a URL'),
    ],
)
def test_a_bad_flag_of_a_tool_is_named(monkeypatch, arguments, message):
  assert message in parse(monkeypatch, *arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out=o'], '--config=FILE[:VARIANT] is missing'),
        (['--out=o', '--config=none.py'], "no file 'none.py'"),
        (['--out=o', '--config=configs/webshop.py:x'], "'study', 'smollm2'"),
        (['--out=o', CONFIG, '--config.mesh.tensr=2'], 'did you mean mesh.tensor?'),
        (['--out=o', CONFIG, '--config.mesh.tensor=x'], '--config.mesh.tensor=x'),
        (
            ['--out=o', CONFIG, '--config.arms=base', '--config.arms=base,leafe'],
            '--config.arms is given 2 times; give it once, as in --config.arms=A,B',
        ),
    ],
)
def test_a_bad_config_of_a_tool_is_named(monkeypatch, arguments, message):
  assert message in parse(monkeypatch, *arguments, config=True)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('import no_such_package', "No module named 'no_such_package'"),
        ('this is no Python', 'invalid syntax (config.py, line 1)'),
    ],
)
def test_a_file_that_is_no_config_is_named(monkeypatch, tmp_path, text, message):
  file = tmp_path / 'config.py'
  file.write_text(text)
  found = parse(monkeypatch, '--out=o', f'--config={file}', config=True)
  assert found.startswith(f'--config={file}: ') and message in found


@pytest.mark.parametrize('flag', ['workdir', 'fork_from'])
def test_a_run_takes_the_url_of_a_bucket_and_no_other(monkeypatch, flag):
  argv = ['main', CONFIG, '--workdir=w', f'--{flag}=s3://bucket/run']
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(sys, 'argv', argv)
  values = flags.FlagValues()
  launch.define_flags(values)
  with pytest.raises(command_line.UsageError, match=f'--{flag}=s3://.*a URL.*gs://'):
    launch.parse_flags(values, argv)
  argv[-1] = f'--{flag}=gs://bucket/run'
  launch.parse_flags(values, argv)
  assert values[flag].value == 'gs://bucket/run'


@pytest.mark.parametrize(
    ('place', 'is_url'),
    [('gs://a/b', True), ('file:///a', True), ('hf://a/b', True), ('/a/b', False),
     ('a:b/c', False), ('runs/2026-11-26T10:00', False), ('', False)],
)  # fmt: skip
def test_urls_are_told_from_paths(place, is_url):
  assert files.is_url(place) == is_url


# --- the machine


@pytest.fixture(name='quiet')
def _quiet():
  """Leaves the loggers as they were."""
  root, absl = python_logging.getLogger(), logging.get_absl_handler()
  before, filters, level = list(root.handlers), list(absl.filters), root.level
  formatter, verbosity = absl.python_handler.formatter, logging.get_verbosity()
  own_level, hook = logging.get_absl_logger().level, sys.unraisablehook
  yield
  for handler in set(root.handlers) - set(before):
    root.removeHandler(handler)
    if isinstance(handler, python_logging.FileHandler):
      handler.close()
  absl.filters[:] = filters
  absl.setFormatter(formatter)
  logging.set_verbosity(verbosity)
  logging.get_absl_logger().setLevel(own_level)
  sys.unraisablehook = hook
  root.setLevel(level)


def start(monkeypatch, workdir: pathlib.Path) -> int:
  """The run's start in this process, without its phases."""
  argv = ['main', CONFIG, f'--workdir={workdir}']
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(sys, 'argv', argv)
  values = flags.FlagValues()
  launch.define_flags(values)
  launch.parse_flags(values, argv)
  config = launch.check(values.config)
  return main._start(config, {}, values)


FULL = [
    OSError(errno.ENOSPC, 'No space left on device', 'runs/a/wave_0001.jsonl'),
    OSError(errno.EDQUOT, 'Disk quota exceeded', 'runs/a/wave_0001.jsonl'),
    OSError(errno.EROFS, 'Read-only file system', 'runs/a/wave_0001.jsonl'),
    OSError(errno.EFBIG, 'File too large', 'runs/a/wave_0001.jsonl'),
    # As the library of the checkpoints says it.
    ValueError("RESOURCE_EXHAUSTED: x: No space left on device [os_error_code='28']"),
]


@pytest.mark.parametrize('error', FULL, ids=lambda error: str(error)[:24])
def test_a_full_disk_stops_a_run_with_one_line(
    monkeypatch, tmp_path, capsys, quiet, error
):
  del quiet

  def run(config, directory, values) -> None:
    del config, directory, values
    raise error

  monkeypatch.setattr(main, '_run', run)
  assert start(monkeypatch, tmp_path / 'run') == 1
  [line] = [x for x in capsys.readouterr().err.splitlines() if x.startswith('leafe')]
  remedy = 'the size of files (ulimit -f)' if 'too large' in line else 'Make room'
  assert line.endswith(f'{remedy}, and the same command goes on')
  assert ('wave_0001.jsonl' in line) == isinstance(error, OSError)


def test_an_interrupt_before_the_run_begins_is_one_line(monkeypatch, capsys):

  def interrupted(*_, **__) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(launch, 'define_flags', lambda values: None)
  monkeypatch.setattr(main.app, 'run', interrupted)
  with pytest.raises(SystemExit) as error:
    main.program()
  assert error.value.code == 130
  assert capsys.readouterr().err == (
      'leafe_jax: stopped before the run began; the same command starts it\n'
  )


def test_other_errors_are_not_taken_for_a_full_disk(monkeypatch, tmp_path, quiet):
  del quiet

  def run(config, directory, values) -> None:
    del config, directory, values
    raise ValueError('a mistake of ours')

  monkeypatch.setattr(main, '_run', run)
  with pytest.raises(ValueError, match='a mistake of ours'):
    start(monkeypatch, tmp_path / 'run')


def test_a_log_on_a_full_disk_is_cut_short_without_a_word(tmp_path, capsys):
  class Full(io.StringIO):

    def write(self, text: str, /) -> int:
      raise OSError(errno.ENOSPC, 'No space left on device')

  handler = launch._LogFile(tmp_path / 'log.txt')
  before = handler.setStream(Full())  # type: ignore[arg-type]
  assert before is not None
  before.close()
  handler.emit(python_logging.LogRecord('x', 40, __file__, 1, 'text', (), None))
  handler.close()
  assert not capsys.readouterr().err


def test_tracebacks_of_libraries_are_in_the_file_alone(tmp_path, capsys, quiet):
  del quiet
  launch.start_logging(rundir.RunDirectory(tmp_path))
  logging.get_absl_handler().python_handler.stream = sys.stderr
  try:
    raise RuntimeError('in a thread')
  except RuntimeError:
    logging.exception('it broke')
  assert 'Traceback' in (tmp_path / 'log.txt').read_text()
  assert 'Traceback' not in capsys.readouterr().err


def test_what_a_librarys_thread_cannot_raise_is_in_the_file_alone(
    tmp_path, capsys, quiet
):
  class Broken:

    def __del__(self):
      raise RuntimeError('nobody hears this')

  del quiet
  launch.start_logging(rundir.RunDirectory(tmp_path))
  thread = threading.Thread(target=Broken)
  thread.start()
  thread.join()
  assert 'nobody hears this' in (tmp_path / 'log.txt').read_text()
  assert 'nobody hears this' not in capsys.readouterr().err


@pytest.mark.parametrize('place', ['file', 'file/below'])
def test_a_directory_that_cannot_be_is_refused(monkeypatch, tmp_path, capsys, place):
  (tmp_path / 'file').touch()
  assert start(monkeypatch, tmp_path / place) == 2
  assert f'--workdir={tmp_path / place} cannot be made' in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_refused(monkeypatch, tmp_path, capsys):
  (tmp_path / 'run' / '.lock').mkdir(parents=True)  # stands for a lack of rights
  assert start(monkeypatch, tmp_path / 'run') == 1
  [line] = capsys.readouterr().err.splitlines()
  assert f'{tmp_path}/run: nothing can be written there' in line
  assert 'give another --workdir' in line


def test_an_error_that_nobody_foresaw_is_one_line_and_its_traceback_is_kept(
    monkeypatch, tmp_path, capsys, quiet
):
  del quiet
  monkeypatch.setattr(sys, 'excepthook', sys.excepthook)  # to have it back
  launch.start_logging(rundir.RunDirectory(tmp_path))
  capsys.readouterr()
  try:
    raise KeyError('a\nb')
  except KeyError as error:
    sys.excepthook(KeyError, error, error.__traceback__)
  [line] = capsys.readouterr().err.splitlines()
  assert 'KeyError' in line and f'the traceback is in {tmp_path}/log.txt' in line
  assert 'Traceback' in (tmp_path / 'log.txt').read_text()


def test_a_fault_that_stops_a_run_keeps_its_traceback_in_the_log(
    monkeypatch, tmp_path, capsys, quiet
):
  del quiet
  monkeypatch.setattr(sys, 'excepthook', sys.excepthook)

  def run(*_):
    raise DamagedCheckpoint('weights differ; remove them')

  monkeypatch.setattr(main, '_run', run)
  assert start(monkeypatch, tmp_path / 'run') == 1
  err = capsys.readouterr().err
  assert 'leafe_jax: weights differ; remove them' in err and 'Traceback' not in err
  assert 'DamagedCheckpoint' in (tmp_path / 'run' / 'log.txt').read_text()


def test_nobody_to_join_stops_with_the_ways_out(monkeypatch):
  def initialize(**arguments) -> None:
    del arguments
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(hosts.jax.distributed, 'initialize', initialize)
  with (
      pytest.raises(RunStopped, match='--coordinator=HOST:PORT.*--distributed=off'),
      hosts.joined({}, 30),
  ):
    raise AssertionError('joined nobody')


def test_a_missing_sandbox_is_named_and_nothing_saved(monkeypatch, tmp_path):
  config = importlib.import_module('configs.codecontests').get_config('qwen2_5_7b_gpu8')
  config.policy.checkpoint = 'weights'
  config.env.options.update(source='mbpp', data_path=str(tmp_path / 'data.jsonl'))
  (tmp_path / 'data.jsonl').write_text('')
  sandbox = importlib.import_module('envs.codecontests.sandbox')
  monkeypatch.setattr(sandbox.Sandbox, '_missing', lambda self: 'no bwrap')
  directory = rundir.RunDirectory(tmp_path / 'run')
  with pytest.raises(command_line.UsageError, match='cannot be isolated.*no bwrap'):
    claims.claim(directory, settings.from_config_dict(config), '', {})
  assert directory.config() is None


def test_a_teacher_that_cannot_be_is_refused(tmp_path):
  config = importlib.import_module('configs.webshop').get_config('debug')
  config.env.teacher.quality = 2.0
  directory = rundir.RunDirectory(tmp_path / 'run')
  with pytest.raises(command_line.UsageError, match='env.teacher: .*quality is 2.0'):
    claims.claim(directory, settings.from_config_dict(config), '', {})


def test_a_budget_to_match_needs_an_exploration_first():
  from leafe_jax import experiment

  def inputs(*arms: str) -> None:
    grpo = {'match_explore': True}
    experiment.phase_inputs(
        settings.from_config_dict({'arms': arms, 'grpo': grpo})
    )

  inputs('base', 'leafe', 'grpo')
  inputs('base', 'leafe')
  with pytest.raises(ValueError, match='grpo.match_explore: grpo comes before'):
    inputs('base', 'grpo', 'leafe')


def test_a_mesh_that_does_not_fit_reaches_the_command_line(tmp_path):
  from leafe_jax.methods.run import Run
  from leafe_jax.policy.sharding import MeshError

  config = settings.from_config_dict({'mesh': {'data': 7}})
  with pytest.raises(MeshError, match='does not fit'):
    _ = Run(config, rundir.RunDirectory(tmp_path), '').mesh
