"""The config boundary: what is refused, and how it is said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import base, pretrained, webshop
from envs import registry
from leafe_jax import config as config_lib
from leafe_jax import settings, usage


def refusal(values) -> str:
  with pytest.raises(settings.ConfigError) as error:
    settings.from_config_dict(values)
  return str(error.value)


def test_the_default_config_is_the_default_experiment():
  assert settings.from_config_dict(base.default()) == config_lib.Experiment()


def test_every_option_is_documented_and_its_default_is_a_choice():
  for option in settings.options():
    assert option.doc, option.path
    assert not option.choices or option.default in option.choices, option.path


@pytest.mark.parametrize('variant', ['', 'debug'])
def test_a_variant_needs_no_flags_and_its_world_takes_its_options(variant):
  config = settings.from_config_dict(webshop.get_config(variant))
  world = registry.make(config.env.name, **config.env.options)
  assert world.teacher(**config.env.teacher)
  assert world.tasks('train')


def test_the_checkpoint_variant_names_the_flags_it_needs():
  config = webshop.get_config('qwen2_5_7b')
  assert '--config.env.options.data_dir=' in refusal(config)
  config.env.options.data_dir = '/data'
  assert '--config.policy.checkpoint=' in refusal(config)
  config.policy.checkpoint = '/weights'
  assert settings.from_config_dict(config).policy.checkpoint == '/weights'


def test_an_unknown_variant_is_refused_with_the_choices():
  with pytest.raises(ValueError, match="'huge'.*'debug', 'study', 'smollm2'"):
    webshop.get_config('huge')


def test_a_config_file_cannot_misspell_an_option():
  config = webshop.get_config()
  with pytest.raises(AttributeError, match='num_task'):
    config.explore.num_task = 3


def test_arguments_lists_defaults_and_refuses_unknown_names():
  def make(size: int, colour: str = 'red', **rest: int) -> None:
    del size, colour, rest

  assert base.arguments(make, colour='blue') == {'colour': 'blue'}
  with pytest.raises(ValueError, match='color'):
    base.arguments(make, color='blue')


@pytest.mark.parametrize(
    ('values', 'parts'),
    [
        ({'sede': 1}, ['sede', 'did you mean seed', 'evaluate']),
        ({'explore': {'num_task': 3}}, ['explore.num_task', 'explore.num_tasks']),
        ({'learning_rate': 1.0}, ['did you mean', '.learning_rate']),
        ({'explore': {'on_reflect': 'halt'}}, ["'halt'", 'continue, stop']),
        ({'seed': '1'}, ["seed is '1'", 'int']),
        ({'seed': 1.0}, ['seed is 1.0', 'int']),
        ({'explore': {'num_roots': True}}, ['explore.num_roots is True', 'int']),
        ({'distill': {'beta': float('nan')}}, ['distill.beta is nan', 'float']),
        ({'explore': 3}, ['explore is 3', 'num_tasks']),
        ({'sampler': {'length_buckets': [1, 'x']}}, ["length_buckets[1] is 'x'"]),
        ({'sampler': {'length_buckets': 5}}, ['length_buckets is 5', 'tuple[int']),
        ({'env': {'options': {'a': {1, 2}}}}, ['env.options', 'JSON']),
    ],
)
def test_a_bad_value_is_named_with_its_path_and_the_choices(values, parts):
  message = refusal(values)
  assert all(part in message for part in parts), message
  assert '\n' not in message


def test_an_int_becomes_the_float_it_stands_for():
  config = settings.from_config_dict({'distill': {'beta': 4}})
  assert type(config.distill.beta) is float


def test_names_with_commas_are_a_list():
  assert settings.from_config_dict({'arms': ('base,leafe',)}).arms == (
      'base', 'leafe',
  )


def test_the_saved_json_reads_back_to_the_same_config():
  config = settings.from_config_dict(webshop.get_config('debug'))
  saved = json.loads(json.dumps(settings.to_dict(config)))
  assert settings.from_config_dict(saved) == config


@given(st.integers(0, 3), st.sampled_from([0.5, 1.0, 4.0]))
def test_the_hash_is_equal_exactly_for_equal_configs(seed, beta):
  config = settings.from_config_dict({'seed': seed, 'distill': {'beta': beta}})
  same = config == config_lib.Experiment()
  default_hash = settings.sha256(config_lib.Experiment())
  assert (settings.sha256(config) == default_hash) == same


def test_a_config_is_a_static_argument_of_programs():
  first, same, other = (
      config_lib.Policy(template={'enable_thinking': value})
      for value in (True, True, False)
  )
  assert hash(first) == hash(same)
  assert first != other
  assert len({config_lib.Experiment(), config_lib.Experiment()}) == 1


def test_the_hash_does_not_depend_on_the_order_of_options():
  first = settings.from_config_dict({'env': {'options': {'a': 1, 'b': 2}}})
  second = settings.from_config_dict({'env': {'options': {'b': 2, 'a': 1}}})
  assert settings.sha256(first) == settings.sha256(second)


def test_the_difference_lists_changed_new_and_gone_options():
  old = {'a': {'b': 1, 'c': (1, 2)}, 'gone': 'x'}
  new = {'a': {'b': 2, 'c': [1, 2]}, 'new': None}
  assert settings.difference(old, new) == [
      'a.b: 1 -> 2', 'new: (absent) -> null', 'gone: "x" -> (absent)',
  ]


def test_the_help_shows_every_option_with_its_choices():
  text = usage.text()
  for option in settings.options():
    assert f'{option.path}: ' in text
  assert '[continue, stop]' in text
  assert max(map(len, text.splitlines())) <= 88


def test_every_option_is_in_one_group_of_the_help():
  options = [option.path for option in settings.options()]
  entries = [line[4:].partition(': ')[0] for line in usage.text().splitlines()
             if line[:4] in ('    ', '  * ') and line[4:5].isalpha()]
  assert sorted(path for path in entries if path in options) == sorted(options)
  in_groups = [o.path for group in usage.grouped().values() for o in group]
  assert sorted(in_groups) == sorted(options)
  named = [path for paths in usage.GROUPS.values() for path in paths]
  sections = {path.partition('.')[0] for path in options}
  assert len(named) == len(set(named)) and set(named) <= {*options, *sections}


def test_the_help_marks_what_variants_for_checkpoints_set():
  marked = {line.split()[1][:-1] for line in usage.text().splitlines()
            if line.startswith('  * ')}
  assert marked == usage.CHECKPOINT
  plain = settings.flatten(base.default().to_dict())
  models = pretrained.MODELS.values()
  of_models = {f'policy.{name}' for sizes in models for name in sizes}
  for name in pretrained.DEVICES:
    config = base.make_pretrained(base.default(), 8192)
    pretrained.apply(config, name)
    found = settings.flatten(config.to_dict())
    changed = {path for path, value in found.items() if value != plain[path]}
    assert changed - of_models <= marked
  assert not of_models & marked  # a checkpoint brings these along
