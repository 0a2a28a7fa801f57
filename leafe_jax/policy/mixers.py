"""What passes between the places of packed rows in training, by kind of mixer.

A row of `MIXERS` takes the config, the places, the layer's kind, its normed inputs
and its weights, and gives what is added to the residual stream, [B, T, D].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Array, Float

from leafe_jax import config as config_lib
from leafe_jax.policy import attention, delta, delta_rule, kinds, layers, rope
from leafe_jax.policy.stacks import Params


class Places(NamedTuple):
  """What mixers need to know of the places of packed rows.

  Attributes:
    angles: by rotary embedding.
    segment_ids: [B, T] sequence of each token in its row, 0: padding.
  """

  angles: rope.AllAngles
  segment_ids: Array


def attend(
    config: config_lib.Policy,
    places: Places,
    kind: kinds.Kind,
    normed: Float[Array, 'B T D'],
    weights: Params,
) -> Float[Array, 'B T D']:
  """Attention inside each segment, its output projected."""
  angles = places.angles.get(kind.rope)
  q, gate = layers.query(normed, weights, angles, config)
  k, v = layers.key_value(normed, weights, angles, config)
  mixed = attention.attend(
      q, k, v, places.segment_ids, config.attention, kind.window
  )
  return layers.project_out(mixed, gate, weights)


def remember(
    config: config_lib.Policy,
    places: Places,
    kind: kinds.Kind,
    normed: Float[Array, 'B T D'],
    weights: Params,
) -> Float[Array, 'B T D']:
  """The gated delta rule, which forgets where a segment begins."""
  del kind
  empty = delta.nothing_read(config, normed.shape[0])
  runs = delta_rule.runs_of(places.segment_ids)
  return delta.mix(normed, weights, config, empty, runs)[0]


MIXERS: Mapping[str, Callable[..., Array]] = {
    'attention': attend, 'delta': remember
}
