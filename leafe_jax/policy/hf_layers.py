"""How config.json says which layers differ, read and written.

Every family has its own way (`families.Family.pattern`); ours is one pattern of kinds,
`policy.layer_kinds`, and one window. Where `layer_types` stands, it is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from leafe_jax import config as config_lib
from leafe_jax.policy import kinds
from leafe_jax.policy.families import Family
from leafe_jax.policy.hf_fields import Fields, value
from leafe_jax.policy.hf_files import CONFIG, UnsupportedCheckpoint, short

# Their names of kinds of layers; layers without rope are said apart from them.
THEIR_KINDS: Mapping[str, str] = {
    'full_attention': 'full', 'sliding_attention': 'sliding',
}  # fmt: skip
_DELTA_KINDS = {'full_attention': 'full', 'linear_attention': 'delta'}
_EXPERT_KINDS = {'full_attention': 'experts', 'linear_attention': 'delta_experts'}
_THEIRS = {
    'full': 'full_attention', 'sliding': 'sliding_attention',
    'delta': 'linear_attention', 'delta_experts': 'linear_attention',
}  # fmt: skip


class Layers(NamedTuple):
  """The kind of every layer, and the window of those that have one."""

  names: list[str]
  window: int


def options(fields: Fields, family: Family) -> dict[str, Any]:
  """`layer_kinds` and `window` of the policy.

  Raises:
    UnsupportedCheckpoint: names the field.
  """
  found = READERS[family.pattern](fields, value(fields, 'num_hidden_layers'))
  slides = 'sliding' in found.names
  if slides and not found.window:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: sliding_window is missing; there are sliding layers'
    )
  names = kinds.pattern(found.names)
  return {
      'layer_kinds': () if names == ('full',) else names,
      'window': found.window if slides else 0,
  }


def _uniform(fields: Fields, count: int) -> Layers:
  """Llama and what is like it: a field that says otherwise is refused."""
  if value(fields, 'use_sliding_window'):
    raise UnsupportedCheckpoint(
        f'{CONFIG}: use_sliding_window is true; this architecture has no sliding window'
    )
  names = _listed(fields, count) or ['full'] * count
  if set(names) != {'full'}:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: layer_types has a sliding window; this architecture has none'
    )
  return Layers(names, 0)


def _all_sliding(fields: Fields, count: int) -> Layers:
  """Mistral: a window is that of all layers, none may be null."""
  window = value(fields, 'sliding_window') or 0
  names = ['sliding' if window else 'full'] * count
  listed = _listed(fields, count)
  if listed and listed != names:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: layer_types differs from sliding_window; a Mistral has the window '
        'in all of its layers'
    )
  return Layers(names, window)


def _max_window_layers(fields: Fields, count: int) -> Layers:
  """Qwen2 and Qwen3: the first layers are full, if any has a window at all."""
  used = value(fields, 'use_sliding_window')
  window = (value(fields, 'sliding_window') or 0) if used else 0
  first = value(fields, 'max_window_layers') if window else count
  names = ['full' if i < first else 'sliding' for i in range(count)]
  return Layers(_listed(fields, count) or names, window)


def _sliding_window_pattern(fields: Fields, count: int) -> Layers:
  """Gemma 3: every sixth layer is full. OLMo 3: every fourth."""
  period = value(fields, 'sliding_window_pattern')
  names = ['sliding' if (i + 1) % period else 'full' for i in range(count)]
  window = value(fields, 'sliding_window') or 0
  return Layers(_listed(fields, count) or names, window)


def _no_rope_layers(fields: Fields, count: int) -> Layers:
  """SmolLM3: every fourth layer has no rope; windows are refused."""
  if value(fields, 'use_sliding_window') or 'sliding' in _listed(fields, count):
    raise UnsupportedCheckpoint(
        f'{CONFIG}: use_sliding_window is true; the layers without rope may have no '
        'window'
    )
  listed = value(fields, 'no_rope_layers')
  period = value(fields, 'no_rope_layer_interval')
  turned = listed or [int((i + 1) % period != 0) for i in range(count)]
  if len(turned) != count or any(one not in (0, 1) for one in turned):
    raise UnsupportedCheckpoint(
        f'{CONFIG}: no_rope_layers is {short(turned)}; it must be 0 or 1 for each of '
        f'{count} layers'
    )
  return Layers(['full' if one else 'no_rope' for one in turned], 0)


def _experts(fields: Fields, count: int) -> Layers:
  """Qwen3-MoE: experts in every layer, but for those that are named or skipped."""
  if value(fields, 'use_sliding_window'):
    raise UnsupportedCheckpoint(
        f'{CONFIG}: use_sliding_window is true; layers of experts have no window here'
    )
  dense = value(fields, 'mlp_only_layers')
  if any(type(one) is not int for one in dense):
    raise UnsupportedCheckpoint(
        f'{CONFIG}: mlp_only_layers is {short(dense)}; it must be a list of layers'
    )
  step = value(fields, 'decoder_sparse_step')
  return Layers([
      'full' if i in dense or (i + 1) % step else 'experts' for i in range(count)
  ], 0)


def _full_attention_interval(fields: Fields, count: int) -> Layers:
  """Qwen3.5: every fourth layer is full, the others remember."""
  return _by_interval(fields, count, _DELTA_KINDS)


def _experts_interval(fields: Fields, count: int) -> Layers:
  """Qwen3.5-MoE: the same, and all of them have experts."""
  return _by_interval(fields, count, _EXPERT_KINDS)


def _by_interval(fields: Fields, count: int, known: Mapping[str, str]) -> Layers:
  period = value(fields, 'full_attention_interval')
  theirs = ('full_attention', 'linear_attention')
  names = [known[theirs[(i + 1) % period > 0]] for i in range(count)]
  return Layers(_listed(fields, count, known) or names, 0)


def _listed(
    fields: Fields, count: int, known: Mapping[str, str] = THEIR_KINDS
) -> list[str]:
  """`layer_types` in our names; empty where it is missing."""
  listed = value(fields, 'layer_types')
  unknown = [kind for kind in listed if kind not in known]
  if unknown:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: not supported: layers of type {short(unknown[0])} (layer_types); '
        f'supported: {", ".join(known)}'
    )
  if listed and len(listed) < count:
    raise UnsupportedCheckpoint(
        f'{CONFIG}: layer_types names {len(listed)} layers of {count}'
    )
  return [known[kind] for kind in listed[:count]]


READERS: Mapping[str, Callable[[Fields, int], Layers]] = {
    'uniform': _uniform,
    'all_sliding': _all_sliding,
    'max_window_layers': _max_window_layers,
    'sliding_window_pattern': _sliding_window_pattern,
    'no_rope_layers': _no_rope_layers,
    'experts': _experts,
    'full_attention_interval': _full_attention_interval,
    'experts_interval': _experts_interval,
}


def written(policy: config_lib.Policy, family: Family) -> dict[str, Any]:
  """The fields of config.json that say so. ValueError: see `refusal`."""
  reason = refusal(policy, family)
  if reason:
    raise ValueError(f'a checkpoint of {family.model_type} cannot have {reason}')
  names = _names(policy)
  window = policy.window or None
  types = [_THEIRS.get(name, 'full_attention') for name in names]
  if family.pattern == 'uniform':
    return {'use_sliding_window': False}
  if family.pattern == 'experts':
    dense = [i for i, name in enumerate(names) if name == 'full']
    return {
        'use_sliding_window': False, 'mlp_only_layers': dense, 'decoder_sparse_step': 1
    }
  if family.pattern == 'all_sliding':
    return {'sliding_window': window if 'sliding' in names else None}
  if family.pattern == 'sliding_window_pattern':
    return {'sliding_window': window or 1, 'layer_types': types}
  if family.pattern in ('full_attention_interval', 'experts_interval'):
    return {'layer_types': types}
  if family.pattern == 'no_rope_layers':
    return {
        'use_sliding_window': False,
        'layer_types': types,
        'no_rope_layers': [int(name != 'no_rope') for name in names],
    }
  slides = 'sliding' in names
  full = names.index('sliding') if slides else len(names)
  return {'use_sliding_window': slides, 'layer_types': types} | (
      {'sliding_window': window, 'max_window_layers': full} if slides else {}
  )


def refusal(policy: config_lib.Policy, family: Family) -> str:
  """The layers that a family's config.json cannot tell of; '' where it can."""
  names = set(_names(policy))
  allowed = {
      'uniform': [{'full'}],
      'all_sliding': [{'full'}, {'sliding'}],
      'experts': [{'experts'}, {'full', 'experts'}],
      'full_attention_interval': [{'full'}, {'delta'}, {'full', 'delta'}],
      'experts_interval': [
          {'experts'}, {'delta_experts'}, {'experts', 'delta_experts'}
      ],
      'no_rope_layers': [{'full'}, {'no_rope'}, {'full', 'no_rope'}],
  }.get(family.pattern, [{'full'}, {'sliding'}, {'full', 'sliding'}])
  if names not in allowed:
    return f'layer_kinds={",".join(policy.layer_kinds)}'
  if policy.rope_local_theta and 'sliding' in names and not family.rope_by_kind:
    return f'rope_local_theta={policy.rope_local_theta:g}'
  return ''


def _names(policy: config_lib.Policy) -> list[str]:
  """Our name of every layer's kind."""
  given = policy.layer_kinds or ('full',)
  return [given[i % len(given)] for i in range(policy.num_layers)]
