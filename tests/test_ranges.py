"""Values that make no sense are refused at the start, whatever the option."""

from __future__ import annotations

import importlib
import math
import pathlib
import typing

import ml_collections
import pytest

from leafe_jax import config as config_lib
from leafe_jax import relations, settings, usage
from leafe_jax.ranges import Range
from leafe_jax.text import tokenizers

OPTIONS = {option.path: option for option in settings.options()}
# Numbers of which every one has a meaning.
FREE = {'jerp.initial_score', 'jerp.prune_at'}
RANGED = sorted(path for path, option in OPTIONS.items() if option.range)


def nested(path: str, value: object) -> dict[str, object]:
  for name in reversed(path.split('.')):
    value = {name: value}
  assert isinstance(value, dict)
  return value


def refusal(**options: object) -> str:
  """The message for options given as section__name."""
  config = ml_collections.ConfigDict()
  for path, value in options.items():
    config.update(nested(path.replace('__', '.'), value))
  with pytest.raises(settings.ConfigError) as error:
    settings.from_config_dict(config)
  assert '\n' not in str(error.value)
  return str(error.value)


def number_of(option: settings.Option) -> type | None:
  """int or float, of the option or of its items."""
  kinds = typing.get_args(option.type) or (option.type,)
  return kinds[0] if kinds[0] in (int, float) else None


def test_every_number_has_a_range():
  numbers = {path for path, option in OPTIONS.items() if number_of(option)}
  assert numbers - set(RANGED) == FREE


@pytest.mark.parametrize('path', RANGED)
def test_values_out_of_range_are_refused_with_path_value_and_range(path):
  option = OPTIONS[path]
  kind, allowed = number_of(option), option.range
  assert kind is not None and allowed is not None
  defaults = option.default if isinstance(option.default, tuple) else (option.default,)
  assert all(value in allowed for value in defaults)
  bounds = [b for b in allowed[:4] if b is not None]
  outside = {kind(b + d) for b in bounds for d in (-2, 0, 2)} | {kind(-1), kind(-7)}
  wrong = [value for value in outside if value not in allowed]
  assert wrong
  for value in wrong:
    item = (value,) if isinstance(option.default, tuple) else value
    name = f'{path}[0]' if isinstance(option.default, tuple) else path
    with pytest.raises(settings.ConfigError) as error:
      settings.from_config_dict(nested(path, item))
    assert str(error.value) == f'{name} is {value!r}; it must be {allowed}'


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_no_float_is_infinite_or_no_number_in_tuples_neither(value):
  for path, option in OPTIONS.items():
    if number_of(option) is float:
      item = (1.0, value) if isinstance(option.default, tuple) else value
      with pytest.raises(settings.ConfigError, match='must be a finite float'):
        settings.from_config_dict(nested(path, item))
  assert 'env.options' in refusal(env__options={'share': value})


@pytest.mark.parametrize(
    ('allowed', 'inside', 'outside', 'text'),
    [
        (Range(at_least=1), [1, 2], [0, -1, math.nan], 'at least 1'),
        (Range(at_least=0, at_most=1), [0, 0.5, 1], [-0.1, 1.1], 'from 0 to 1'),
        (Range(above=0, at_most=1), [0.1, 1], [0], 'above 0, at most 1'),
        (Range(at_least=0, below=1), [0, 0.9], [1], 'at least 0, below 1'),
        (Range(at_least=1, also=(-1,)), [-1, 1], [0, -2], 'at least 1, or -1'),
    ],
)
def test_a_range_reads_as_it_counts(allowed, inside, outside, text):
  assert all(value in allowed for value in inside)
  assert not any(value in allowed for value in outside)
  assert str(allowed) == text


def test_the_help_shows_every_range():
  text = ' '.join(usage.text().split())
  for path in RANGED:
    entry = text[text.index(f' {path}: ') :]
    assert f'[{OPTIONS[path].range}]' in entry[:400], path


@pytest.mark.parametrize(
    ('options', 'parts'),
    [
        ({'policy__head_dim': 33}, ['policy.head_dim=33', 'even']),
        ({'policy__num_heads': 3}, ['policy.num_kv_heads=2', 'policy.num_heads=3']),
        ({'policy__rope_type': 'llama3', 'policy__rope_low_freq_factor': 4.0},
         ['policy.rope_low_freq_factor=4', 'policy.rope_high_freq_factor=4']),
        ({'env__horizon': 64}, ['env.horizon=64', '63', 'policy.checkpoint']),
        ({'policy__max_length': 24},
         ['explore.max_reflection_tokens=24', 'policy.max_length=24']),
        ({'explore__max_response_tokens': 320},
         ['explore.max_response_tokens=320', 'policy.max_length=320']),
        ({'grpo__row_length': 100}, ['grpo.row_length=100', 'policy.max_length=320']),
        ({'warm_start__grad_accumulation': 9},
         ['warm_start.grad_accumulation=9', 'warm_start.batch_rows=8']),
        ({'distill__batch_rows': 2, 'distill__grad_accumulation': 4},
         ['distill.grad_accumulation=4', 'distill.batch_rows=2']),
        ({'dpo__batch_rows': 2, 'dpo__grad_accumulation': 4},
         ['dpo.grad_accumulation=4', 'dpo.batch_rows=2']),
        ({'mesh__data': -1}, ['mesh.data=-1', 'mesh.fsdp=-1', 'only one']),
        ({'sampler__prefill_buckets': ()}, ['sampler.prefill_buckets is empty']),
        ({'policy__checkpoint': 's3://bucket/model'},
         ['policy.checkpoint=s3://bucket/model', 'URL', 'mount']),
        ({'tune__like': 'hf://a/b', 'tune__factors': (1.0,)}, ['tune.like', 'URL']),
        ({'tune__like': '../other'}, ['tune.like=../other', 'tune.factors']),
        ({'arms': ('base', 'leafe', 'base')}, ['arms names base more than once']),
        ({'study__seeds': (1, 2, 1)}, ['study.seeds names 1 more']),
        ({'tune__factors': (0.5, 0.5)}, ['tune.factors names 0.5 more']),
        # The phase is kept as evaluate/ARM@0.4.
        ({'evaluate__more_temperatures': (0.4, 0.4000000001)},
         ['evaluate.more_temperatures names 0.4 more']),
        ({'evaluate__stop_strings': ('a', '')}, ['evaluate.stop_strings', "''"]),
        ({'jerp__initial_score': 0.0}, ['jerp.initial_score=0', 'jerp.prune_at=0']),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_named(options, parts):
  message = refusal(**options)
  assert all(part in message for part in parts), message


def test_a_checkpoint_brings_its_own_sizes():
  config = settings.from_config_dict({
      'policy': {'checkpoint': 'weights', 'head_dim': 33, 'num_heads': 3},
      'env': {'horizon': 100},
  })
  assert config.policy.head_dim == 33


def test_marks_are_as_many_as_the_tokenizer_has():
  assert relations.MAX_HORIZON == tokenizers.MAX_TURNS - 1
  tokenizers.build_word_tokenizer(('a',), relations.MAX_HORIZON)
  with pytest.raises(ValueError, match='no mark'):
    tokenizers.build_word_tokenizer(('a',), relations.MAX_HORIZON + 1)


@pytest.mark.parametrize('strings', [('a,b',), ('a', 'b'), ('</action>',)])
def test_commas_are_part_of_stop_strings(strings):
  config = settings.from_config_dict({'evaluate': {'stop_strings': strings}})
  assert config.evaluate.stop_strings == strings


def _variants() -> list[tuple[str, str]]:
  folder = pathlib.Path(__file__).resolve().parent.parent / 'configs'
  return [
      (path.stem, variant)
      for path in sorted(folder.glob('*.py'))
      for variant in getattr(importlib.import_module(f'configs.{path.stem}'),
                             '_VARIANTS', ())
  ]  # fmt: skip


@pytest.mark.parametrize(('name', 'variant'), _variants())
def test_every_shipped_config_passes(name, variant):
  argument = f'sokoban,{variant}' if name == 'custom' else variant
  config = importlib.import_module(f'configs.{name}').get_config(argument)
  flat = settings.flatten(config.to_dict())
  for path in [path for path, value in flat.items() if value == settings.REQUIRED]:
    config.update_from_flattened_dict({path: 'somewhere'})
  found = settings.from_config_dict(config)
  assert isinstance(found, config_lib.Experiment)


def test_there_are_shipped_configs():
  names = {name for name, _ in _variants()}
  assert {'webshop', 'sokoban', 'alfworld', 'scienceworld', 'codecontests'} <= names
