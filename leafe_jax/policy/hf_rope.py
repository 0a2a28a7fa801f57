"""Rotary embeddings in config.json, read and written.

`rope_scaling` stands before `rope_parameters`, as in transformers. Families whose
layers differ (Gemma 3) have one object for each kind of layer since transformers 5,
and `rope_local_base_freq` before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leafe_jax import config as config_lib
from leafe_jax.policy import rope
from leafe_jax.policy.families import Family
from leafe_jax.policy.hf_fields import NEEDED, Field, Fields, checked, value
from leafe_jax.policy.hf_files import CONFIG, UnsupportedCheckpoint

_ROPE: Mapping[str, Field] = {
    'rope_theta': Field(float),
    'partial_rotary_factor': Field(float, 1.0),
    'factor': Field(float, NEEDED),
    'low_freq_factor': Field(float, NEEDED),
    'high_freq_factor': Field(float, NEEDED),
    'original_max_position_embeddings': Field(int),
    'beta_fast': Field(float, 32.0),
    'beta_slow': Field(float, 1.0),
    'attention_factor': Field(float),
    'mscale': Field(float),
    'mscale_all_dim': Field(float),
    'truncate': Field(bool, True),
}
# Options of a policy whose frequencies are not scaled.
_PLAIN_OPTIONS = (
    'rope_type', 'rope_factor', 'rope_low_freq_factor', 'rope_high_freq_factor',
    'rope_original_length', 'rope_beta_fast', 'rope_beta_slow', 'rope_truncate',
    'rope_attention_factor', 'rope_local_theta',
)
_BY_KIND = ('full_attention', 'sliding_attention')
_REASONS = {
    'dynamic': 'its frequencies change with the length of a text, so that what is '
    'kept of its beginning no longer fits',
    'longrope': 'it has other frequencies for long texts than for short ones',
}


class _Section:
  """One object of rotary parameters: its fields, and where they stand."""

  def __init__(self, name: str, fields: Fields):
    self.name, self.fields = name, fields

  def number(self, key: str) -> Any:
    return checked(self.fields, key, _ROPE[key], f'{self.name}.')

  @property
  def type(self) -> Any:
    return self.fields.get('rope_type', self.fields.get('type', 'default'))


def options(fields: Fields, family: Family, longest: int) -> dict[str, Any]:
  """The policy's rope options; without scaling, the defaults of its fields.

  Args:
    fields: of config.json.
    family: of the checkpoint.
    longest: positions that it was made for.

  Raises:
    UnsupportedCheckpoint: names the field.
  """
  section, local = _sections(fields, family)
  _refuse(section, local)
  share = _share(fields, section)
  if not family.partial_rope and share != 1:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: not supported: rope on a part of each head ({share})'
    )
  neutral = config_lib.Policy()
  found = {name: getattr(neutral, name) for name in _PLAIN_OPTIONS}
  found['rope_share'] = share
  found['rope_theta'] = section.number('rope_theta') or value(fields, 'rope_theta')
  if local is not None:
    found['rope_local_theta'] = (
        local.number('rope_theta') or value(fields, 'rope_local_base_freq')
    )
  if section.type == 'default':
    return found
  length = (
      value(fields, 'original_max_position_embeddings')
      or section.number('original_max_position_embeddings')
      or longest
  )
  scale = {'linear': _linear, 'llama3': _llama3, 'yarn': _yarn}[section.type]
  return found | scale(section, length)


def _linear(section: _Section, _: int) -> dict[str, Any]:
  return {'rope_type': 'linear', 'rope_factor': section.number('factor')}


def _llama3(section: _Section, length: int) -> dict[str, Any]:
  factors = ('factor', 'low_freq_factor', 'high_freq_factor')
  found = {f'rope_{key}': section.number(key) for key in factors}
  if found['rope_high_freq_factor'] <= found['rope_low_freq_factor']:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: {section.name}.high_freq_factor is '
        f'{found["rope_high_freq_factor"]}; it must be above low_freq_factor, '
        f'{found["rope_low_freq_factor"]}'
    )
  return found | {'rope_type': 'llama3', 'rope_original_length': length}


def _yarn(section: _Section, length: int) -> dict[str, Any]:
  """YaRN; `mscale` and `mscale_all_dim` come to one attention factor."""
  factor = section.number('factor')
  lengthened = section.number('attention_factor')
  mscale, all_dim = section.number('mscale'), section.number('mscale_all_dim')
  if lengthened is None and mscale and all_dim:
    lengthened = rope.default_attention_factor(factor, mscale)
    lengthened /= rope.default_attention_factor(factor, all_dim)
  fast, slow = section.number('beta_fast'), section.number('beta_slow')
  if fast <= slow:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: {section.name}.beta_fast is {fast}; it must be above beta_slow, '
        f'{slow}'
    )
  return {
      'rope_type': 'yarn',
      'rope_factor': factor,
      'rope_beta_fast': fast,
      'rope_beta_slow': slow,
      'rope_truncate': section.number('truncate'),
      'rope_attention_factor': lengthened or 0.0,
      'rope_original_length': length,
  }


def _sections(fields: Fields, family: Family) -> tuple[_Section, _Section | None]:
  """The rotary parameters of most layers, and of those with a window if apart."""
  scaling, parameters = value(fields, 'rope_scaling'), value(fields, 'rope_parameters')
  if not family.rope_by_kind:
    if scaling:
      return _Section('rope_scaling', scaling), None
    return _Section('rope_parameters', parameters), None
  if parameters and not parameters.keys() & {*_BY_KIND}:
    # transformers keeps such fields, and uses its defaults instead.
    raise UnsupportedCheckpoint(
        f'{CONFIG}: rope_parameters has {", ".join(parameters)}; those of model_type '
        f'{family.model_type} are by kind of layer: {", ".join(_BY_KIND)}'
    )
  by_kind = {kind: parameters.get(kind) or {} for kind in _BY_KIND}
  full = {**by_kind['full_attention'], **scaling}
  name = 'rope_scaling' if scaling else 'rope_parameters.full_attention'
  local = _Section('rope_parameters.sliding_attention', by_kind['sliding_attention'])
  return _Section(name, full), local


def _share(fields: Fields, section: _Section) -> float:
  """Which part of each head is turned."""
  if 'partial_rotary_factor' in section.fields:
    return section.number('partial_rotary_factor')
  return value(fields, 'partial_rotary_factor')


def _refuse(section: _Section, local: _Section | None) -> None:
  for part in filter(None, (section, local)):
    allowed = ('default',) if part is local else rope.TYPES
    if part.type not in allowed:
      why = _REASONS.get(part.type, '')
      raise UnsupportedCheckpoint(
          f'{CONFIG}: not supported: rope type {part.type!r} ({part.name})'
          + (f': {why}' if why else f'; supported: {", ".join(allowed)}')
      )
    if any(isinstance(inner, dict) for inner in part.fields.values()):
      raise UnsupportedCheckpoint(
          f'{CONFIG}: not supported: rope by kind of layer ({part.name})'
      )


def written(policy: config_lib.Policy, family: Family) -> dict[str, Any]:
  """The fields that say so, for transformers 5 and for what came before.

  Rope is said twice: `rope_parameters` is read by transformers 5, `rope_theta`
  and `rope_scaling` by those before and by what was built on them.
  """
  scaling = _scaling(policy)
  whole = {'rope_theta': policy.rope_theta, **(scaling or {'rope_type': 'default'})}
  if family.partial_rope:
    whole['partial_rotary_factor'] = policy.rope_share
  old = {'rope_theta': policy.rope_theta, 'rope_scaling': scaling}
  if not family.rope_by_kind:
    return {'rope_parameters': whole, **old}
  theta = policy.rope_local_theta or policy.rope_theta
  local = {'rope_theta': theta, 'rope_type': 'default'}
  by_kind = {'full_attention': whole, 'sliding_attention': local}
  return {'rope_parameters': by_kind, 'rope_local_base_freq': theta, **old}


def _scaling(policy: config_lib.Policy) -> dict[str, Any] | None:
  if policy.rope_type == 'default':
    return None
  found: dict[str, Any] = {'rope_type': policy.rope_type, 'factor': policy.rope_factor}
  if policy.rope_type == 'linear':
    return found
  found['original_max_position_embeddings'] = policy.rope_original_length
  if policy.rope_type == 'llama3':
    return found | {
        'low_freq_factor': policy.rope_low_freq_factor,
        'high_freq_factor': policy.rope_high_freq_factor,
    }
  found |= {
      'beta_fast': policy.rope_beta_fast,
      'beta_slow': policy.rope_beta_slow,
      'truncate': policy.rope_truncate,
  }
  if policy.rope_attention_factor:
    found['attention_factor'] = policy.rope_attention_factor
  return found
