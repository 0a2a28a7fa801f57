"""Kinds of layers: what each layer of a policy is made of, and how they repeat.

A layer is a mixer (what passes between places: attention) and an MLP, each of some
kind. `policy.layer_kinds` names them in a pattern that repeats over the layers; a
name is a row of `NAMES`. Layers of different kinds may share all of their weights,
as those with and without a window do, or have weights of their own: a weight is
stacked over the layers that have it (`layers_with`), whatever lies between them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leafe_jax import config as config_lib


class Kind(NamedTuple):
  """What a layer is made of.

  Attributes:
    mixer: which weights and which state pass between places, see `mixers.MIXERS`.
    window: places that a token sees, its own included; 0: all before it.
    rope: which rotary embedding, see `rope`; '': none.
    mlp: which weights follow, see `layers.MLPS`.
  """

  mixer: str = 'attention'
  window: int = 0
  rope: str = 'global'
  mlp: str = 'dense'

  @property
  def state(self) -> tuple[str, int]:
    """What it keeps of a transcript: of what mixer, and how far back."""
    return self.mixer, self.window


NAMES: Mapping[str, Kind] = {
    'full': Kind(),
    'sliding': Kind(window=1, rope='local'),  # as wide as `policy.window`
    'no_rope': Kind(rope=''),
    'delta': Kind(mixer='delta', rope=''),  # Gated DeltaNet, see `delta`
    'experts': Kind(mlp='experts'),
    'delta_experts': Kind(mixer='delta', rope='', mlp='experts'),
}
# Whose weights they are, by the first word of their names; others are every layer's.
OWNERS: Mapping[str, str] = {
    'q': 'attention', 'k': 'attention', 'v': 'attention', 'o': 'attention',
    'mix': 'delta', 'taps': 'delta', 'z': 'delta', 'fade': 'delta', 'beta': 'delta',
    'out': 'delta',
    'gate': 'dense', 'up': 'dense', 'down': 'dense',
    'router': 'experts', 'egate': 'experts', 'eup': 'experts', 'edown': 'experts',
    'share': 'experts', 'sgate': 'experts', 'sup': 'experts', 'sdown': 'experts',
}  # fmt: skip


def of_layers(config: config_lib.Policy) -> tuple[Kind, ...]:
  """The kind of every layer. ValueError: an unknown name, or no window."""
  return _of_layers(
      config.num_layers, config.layer_kinds, config.window, config.rope_local_theta > 0
  )


@functools.cache
def _of_layers(
    num_layers: int, names: Sequence[str], window: int, local: bool
) -> tuple[Kind, ...]:
  names = names or ('full',)
  unknown = [name for name in names if name not in NAMES]
  if unknown:
    raise ValueError(
        f'policy.layer_kinds has {unknown[0]!r}; choose from {", ".join(NAMES)}'
    )
  if 'sliding' in names and not window:
    raise ValueError('policy.layer_kinds has sliding layers: give policy.window')

  def kind(name: str) -> Kind:
    found = NAMES[name]
    if found.rope == 'local' and not local:
      found = found._replace(rope='global')
    return found._replace(window=window) if found.window else found

  return tuple(kind(names[i % len(names)]) for i in range(num_layers))


def pattern(names: Sequence[str]) -> tuple[str, ...]:
  """The shortest pattern that, repeated and cut, gives these names."""
  for length in range(1, len(names) + 1):
    if all(name == names[i % length] for i, name in enumerate(names)):
      return tuple(names[:length])
  return ()


def has(kind: Kind, name: str) -> bool:
  """Whether layers of a kind have a weight."""
  return OWNERS.get(name.split('_')[0]) in (None, kind.mixer, kind.mlp)


def layers_with(name: str, config: config_lib.Policy) -> tuple[int, ...]:
  """The layers that have a weight, in order."""
  return tuple(i for i, kind in enumerate(of_layers(config)) if has(kind, name))


def layers_of(mixer: str, config: config_lib.Policy) -> tuple[int, ...]:
  """The layers that have a mixer, in order."""
  return tuple(i for i, kind in enumerate(of_layers(config)) if kind.mixer == mixer)


def layers_keeping(
    state: tuple[str, int], config: config_lib.Policy
) -> tuple[int, ...]:
  """The layers whose `Kind.state` it is, in order."""
  return tuple(i for i, kind in enumerate(of_layers(config)) if kind.state == state)


def count(mixer: str, config: config_lib.Policy) -> int:
  """How many layers have a mixer."""
  return len(layers_of(mixer, config))


def mixers(config: config_lib.Policy) -> tuple[str, ...]:
  """The kinds of mixers that there are, in the order of their first layers."""
  return tuple(dict.fromkeys(kind.mixer for kind in of_layers(config)))


def mlps(config: config_lib.Policy) -> tuple[str, ...]:
  """The kinds of MLPs that there are, in the order of their first layers."""
  return tuple(dict.fromkeys(kind.mlp for kind in of_layers(config)))


def groups(config: config_lib.Policy) -> dict[int, int]:
  """How many layers with attention there are by window; 0, no window, comes first.

  Layers of a group share the pages of the sampler.
  """
  found = [kind.window for kind in of_layers(config) if kind.mixer == 'attention']
  return {window: found.count(window) for window in sorted(set(found))}


class Span(NamedTuple):
  """Neighbouring layers in which some kinds repeat.

  Attributes:
    start: the first layer.
    kinds: of the layers of one period.
    repeats: how many periods there are.
  """

  start: int
  kinds: tuple[Kind, ...]
  repeats: int

  @property
  def stop(self) -> int:
    """The layer after the last."""
    return self.start + len(self.kinds) * self.repeats


@functools.cache
def spans(every: tuple[Kind, ...]) -> tuple[Span, ...]:
  """Cuts layers into spans, each as long as repetition allows.

  26 layers with one in 6 full are four periods of 6, and a period of 1 twice.
  """
  found: list[Span] = []
  while (start := found[-1].stop if found else 0) < len(every):
    lengths = range(1, (len(every) - start) // 2 + 1)
    candidates = [Span(start, every[start : start + 1], 1)]
    candidates += [_repeated(every, start, length) for length in lengths]
    # The first of the longest has the shortest period.
    found.append(max(candidates, key=_covered))
  return tuple(found)


def _covered(span: Span) -> int:
  return span.stop - span.start if span.repeats > 1 else 1


def _repeated(every: tuple[Kind, ...], start: int, length: int) -> Span:
  """As many periods of a length as are equal to the first."""
  period, repeats = every[start : start + length], 1
  while every[start + length * repeats :][:length] == period:
    repeats += 1
  return Span(start, period, repeats)
