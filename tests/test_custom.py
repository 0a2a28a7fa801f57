"""configs/custom.py: an environment by name, a checkpoint or none."""

from __future__ import annotations

import pathlib
import sys

import pytest
from absl import flags

from configs import custom, pretrained
from docs.examples import number_guess
from envs import api, registry
from leafe_jax import command_line, launch, settings
from leafe_jax.endings import RunStopped
from leafe_jax.methods.run import Run
from leafe_jax.rundir import RunDirectory
from tools import targets

ROOT = pathlib.Path(__file__).resolve().parent.parent
OWN = 'docs.examples.number_guess:World'


def parse(monkeypatch, config: str, *arguments: str) -> flags.FlagValues:
  monkeypatch.chdir(ROOT)
  argv = ['main', f'--config={config}', '--workdir=w', *arguments]
  monkeypatch.setattr(sys, 'argv', argv)
  values = flags.FlagValues()
  launch.define_flags(values)
  launch.parse_flags(values, argv)
  return values


def refusal(monkeypatch, config: str) -> str:
  with pytest.raises(command_line.UsageError) as error:
    parse(monkeypatch, config)
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize('variant', custom._VARIANTS)
@pytest.mark.parametrize('name', ['textarena', OWN])
def test_every_variant_is_a_config_of_the_environment(name, variant):
  config = custom.get_config(f'{name},{variant}' if variant else name)
  assert (config.env.name, config.env.options.to_dict()) == (name, {})
  if not variant.startswith('words'):
    assert config.policy.checkpoint == settings.REQUIRED
    config.policy.checkpoint = '/weights'
  assert settings.from_config_dict(config).explore.num_tasks


def test_every_variant_of_gpus_is_there_with_its_devices():
  for name, variant in pretrained.GPUS.items():
    config = custom.get_config(f'webshop,{name}')
    assert config.policy.lora_rank == variant.lora_rank
    assert custom.DEVICES[f',{name}'] == variant.devices


def test_the_name_of_an_environment_may_hold_a_colon(monkeypatch):
  values = parse(
      monkeypatch, f'configs/custom.py:{OWN},words', '--config.env.horizon=5'
  )
  assert values.config.env.name == OWN
  assert not values.config.policy.checkpoint


def test_a_mesh_that_does_not_fit_names_variants_of_the_same_environment(monkeypatch):
  monkeypatch.chdir(ROOT)
  for variant in ('', ',qwen2_5_7b_gpu8'):
    found = launch.variants_for(f'configs/custom.py:{OWN}{variant}', 1)
    assert f'--config=configs/custom.py:{OWN},qwen2_5_1_5b_gpu1, ' in found
    assert found.count(OWN) == sum(v.devices == 1 for v in pretrained.GPUS.values())
  assert not launch.variants_for(f'configs/custom.py:{OWN}', 3)


@pytest.mark.parametrize(
    ('argument', 'parts'),
    [
        ('', ['ENV[,VARIANT] needs an environment', 'gymnasium', 'package.module:']),
        (':', ['ENV[,VARIANT] needs an environment', *registry.names()]),
        (':,debug', ['needs an environment']),
        (':debug', ["unknown environment 'debug'", 'gymnasium', 'ENV[,VARIANT]']),
        (':gymnasium,dbug', ["'dbug' of configs/custom.py", "'', 'debug', 'words'"]),
        (':gymnasium:debug', ['a comma goes before the variant: gymnasium,debug']),
        (':no_such.module:make', ["there is no module 'no_such'"]),
        (f':{OWN}ly', ["has no function 'Worldly'; it has "]),
    ],
)
def test_what_cannot_be_is_said_in_one_line(monkeypatch, argument, parts):
  found = refusal(monkeypatch, f'configs/custom.py{argument}')
  assert all(part in found for part in parts), found


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        ('import os\nimport no_such_thing', ['no_such_thing', 'line 2']),
        ('def make(:\n  pass', ['SyntaxError', 'line 1']),
        ('\n\nx = undefined', ["NameError: name 'undefined'", 'line 3']),
        ('raise RuntimeError("no\\nlicence")', ['RuntimeError: no licence', 'line 1']),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(monkeypatch, tmp_path, text, parts):
  module = f'own_{abs(hash(text))}'
  (tmp_path / f'{module}.py').write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  found = refusal(monkeypatch, f'configs/custom.py:{module}:make,debug')
  assert all(part in found for part in (f'{module} cannot be imported', *parts)), found


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, "my.module:make needs the option 'size' (its options: size, colour)"),
        ({'siez': 3}, "'siez'; did you mean size? (its options: size, colour)"),
        ({'x': 1}, "has no option 'x' (its options: size, colour)"),
    ],
)
def test_options_that_the_function_cannot_take_are_refused(
    monkeypatch, options, message
):
  def make(size, *, colour='red'):
    del size, colour

  monkeypatch.setattr(registry, 'find_function', lambda path: make)
  with pytest.raises(ValueError) as error:
    registry.make('my.module:make', **options)
  assert message in str(error.value)


def test_a_function_that_takes_any_option_says_itself_what_it_refuses():
  with pytest.raises(ValueError, match="'num_prodcts'; choose from .*num_products"):
    registry.make('webshop', num_prodcts=3)


@pytest.fixture(name='mute')
def _mute(monkeypatch):
  """The name of a world without a vocabulary."""
  monkeypatch.setattr(number_guess.World, 'vocabulary', api.World.vocabulary)
  return OWN


def test_words_of_a_world_without_a_vocabulary_stop_the_run(mute, tmp_path):
  config = settings.from_config_dict(custom.get_config(f'{mute},words'))
  run = Run(config, RunDirectory(tmp_path), '')
  with pytest.raises(RunStopped, match='no closed vocabulary.*--config.policy.check'):
    _ = run.tokenizer


def test_a_plan_without_a_checkpoint_asks_for_it(mute):
  with pytest.raises(ValueError, match='no closed vocabulary.*--config.policy.check'):
    targets.make_target(custom.get_config(mute), 1)
