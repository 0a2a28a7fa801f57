"""A checkpoint that is taught before it explores."""

from __future__ import annotations

import dataclasses
import json
import shutil

import absl.flags
import jax
import numpy as np
import pytest

from configs import webshop
from leafe_jax import command_line, experiment, launch, settings, standing
from leafe_jax.config import Env, Evaluate, Experiment, Policy, Sampler, WarmStart
from leafe_jax.endings import RunStopped
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods.run import BASE, IMPORT, Run
from leafe_jax.policy import lora
from leafe_jax.rundir import RunDirectory
from tests import chat_checkpoint

SAMPLER = Sampler(
    page_size=16, num_pages=512, max_rows=4, dispatch_rows=4, prefill_buckets=(64,),
    length_buckets=(2048,),
)
TAUGHT = WarmStart(
    steps=3, num_demonstrations=6, row_length=1024, batch_rows=1, checkpoint_every=1,
    learning_rate=1e-3,
)


@pytest.fixture(name='checkpoint', scope='module')
def _checkpoint(tmp_path_factory):
  return chat_checkpoint.write(tmp_path_factory.mktemp('checkpoint') / 'tiny')


def make_config(checkpoint, warm_start=TAUGHT, policy=None, **fields):
  return dataclasses.replace(
      Experiment(),
      env=Env(name='sokoban', options={'view': 'text'}, horizon=3),
      policy=Policy(checkpoint=str(checkpoint), max_length=2048, **(policy or {})),
      sampler=SAMPLER, warm_start=warm_start, arms=('base',),
      evaluate=Evaluate(num_tasks=1, num_samples=1), **fields,
  )


def teach(config, directory):
  directory.mkdir(exist_ok=True)
  experiment.run(config, directory, 'hash', BASE)
  return Run(config, RunDirectory(directory), 'hash')


def weights(run, phase):
  return jax.device_get(load_params(run.params_path(phase)))


def assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_all_weights_are_taught_after_the_import_and_goes_on_with_the_same_bits(
    checkpoint, tmp_path
):
  run = teach(make_config(checkpoint), tmp_path / 'a')
  before, after = weights(run, IMPORT), weights(run, BASE)
  assert before.keys() == after.keys()
  assert any(not np.array_equal(before[name], after[name]) for name in before)
  assert_equal(jax.device_get(run.trained(BASE)), after)
  # The last updates again, of a run of another seed: nothing of it is read.
  phase = run.directory.phase(BASE)
  (phase.dir / 'DONE.json').unlink()
  again = teach(make_config(checkpoint, seed=1), tmp_path / 'a')
  assert_equal(weights(again, BASE), after)


def test_adapters_are_taught_and_later_phases_go_on_from_them(checkpoint, tmp_path):
  run = teach(make_config(checkpoint, policy={'lora_rank': 2}), tmp_path)
  taught = weights(run, BASE)
  assert lora.are_adapters(taught)
  assert any(np.any(array) for name, array in taught.items() if '_lora_b_' in name)
  assert run.directory.phase(BASE).result()['frozen'] == IMPORT
  assert_equal(jax.device_get(run.start()), taught)
  assert run.trained(IMPORT) == {}
  assert_equal(jax.device_get(run.frozen), weights(run, IMPORT))


def test_a_fork_takes_the_cold_start_over_for_another_seed(checkpoint, tmp_path):
  config = make_config(checkpoint)
  source = teach(config, tmp_path / 'a').directory
  other = dataclasses.replace(config, seed=5)
  changed = settings.changes(settings.to_dict(config), settings.to_dict(other))
  phases = experiment.phase_inputs(other)
  target = RunDirectory(tmp_path / 'b')
  found = standing.fork(source, target, changed, phases)
  assert [phase.name for phase in found if phase.kept] == [IMPORT, BASE]


def test_seeds_of_a_study_share_it(checkpoint, tmp_path):
  source = teach(make_config(checkpoint), tmp_path / 'a').directory
  target = RunDirectory(tmp_path / 'b')
  standing.share(source, target, (IMPORT, BASE))
  assert target.phase(BASE).done() and not target.phase(BASE).faults(weights=True)
  (target.phase(BASE).dir / 'DONE.json').unlink()  # begun here: left alone
  standing.share(source, target, (BASE,))
  assert not target.phase(BASE).done()


def test_without_a_teacher_it_stops_before_any_weight_is_read(
    checkpoint, tmp_path, monkeypatch
):
  config = make_config(checkpoint)
  monkeypatch.setattr(Run, 'teacher', lambda self: None)
  with pytest.raises(RunStopped, match='num_demonstrations=6: .* no scripted teacher'):
    teach(config, tmp_path)
  assert not (tmp_path / IMPORT / 'params').exists()


@pytest.mark.parametrize(('options', 'message'), [
    ({'warm_start.steps': 0}, 'warm_start.steps=0 leaves'),
    ({'warm_start.num_demonstrations': 0}, 'has nothing to teach'),
    ({'warm_start.data': ('a.jsonl',)}, 'policy.checkpoint=DIR'),
    ({'policy.checkpoint': 'x', 'warm_start.steps': 0, 'warm_start.data': ('a',)},
     'warm_start.steps above 0'),
    ({'policy.checkpoint': 'x', 'warm_start.num_demonstrations': 0},
     'warm_start.data=FILE'),
    ({'policy.checkpoint': 'x', 'warm_start.data': ('s3://a/b',)}, 'URL'),
])  # fmt: skip
def test_what_cannot_teach_is_refused_before_the_run(options, message):
  config = webshop.get_config('debug')
  config.update_from_flattened_dict(options)
  with pytest.raises(settings.ConfigError, match=message):
    launch.check(config)


@pytest.mark.parametrize(
    ('more', 'steps'), [([], 0), (['--config.warm_start.steps=7'], 7)]
)
def test_a_checkpoint_without_a_word_about_it_is_not_taught(more, steps):
  values = absl.flags.FlagValues()
  launch.define_flags(values)
  command_line.parse(values, [
      'main', '--config=configs/webshop.py:debug', '--config.policy.checkpoint=there',
      *more,
  ], config=True)  # fmt: skip
  assert values.config.warm_start.steps == steps


def test_files_of_conversations_teach_without_a_script(checkpoint, tmp_path):
  data = tmp_path / 'chats.jsonl'
  row = {'messages': [
      {'role': 'user', 'content': 'which way?'}, {'role': 'assistant', 'content': 'up'},
  ]}  # fmt: skip
  data.write_text(f'{json.dumps(row)}\n' * 40)
  warm_start = dataclasses.replace(TAUGHT, num_demonstrations=0, data=(str(data),))
  config = make_config(checkpoint, warm_start)
  run = teach(config, tmp_path / 'run')
  result = run.directory.phase(BASE).result()
  assert (result['examples'], result['examples_cut']) == (40, 0)
  # The examples are lost and the file is another one: nothing is made up.
  phase = run.directory.phase(BASE)
  (phase.dir / 'DONE.json').unlink()
  shutil.rmtree(phase.dir / 'data')
  data.write_text(f'{json.dumps(row)}\n' * 41)
  with pytest.raises(RunStopped, match='not those that the cold start began with'):
    teach(config, tmp_path / 'run')


def test_a_file_that_cannot_be_read_stops_the_run_at_its_start(checkpoint, tmp_path):
  data = tmp_path / 'chats.jsonl'
  data.write_text('{"messages": [{"role": "alien"}]}')
  warm_start = dataclasses.replace(TAUGHT, num_demonstrations=0, data=(str(data),))
  with pytest.raises(RunStopped, match=r"chats.jsonl:1: .* role 'alien'"):
    teach(make_config(checkpoint, warm_start), tmp_path / 'run')
  assert not (tmp_path / 'run' / IMPORT / 'params').exists()
