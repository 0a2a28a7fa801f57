"""Our weights and the tensors of Hugging Face checkpoints correspond."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_jax.config import Policy
from leafe_jax.policy import hf_names, lora, weights

POLICY = Policy(qkv_bias=True, qk_norm=True, tie_embeddings=False, lora_rank=2)
NAMES = [*weights.weight_table(POLICY, 7), *lora.table(POLICY, 7)]


@given(st.data())
def test_a_part_is_read_as_a_slice_of_the_tensor(data):
  """Cut along any axes that shards are cut along."""
  sizes = {'d': 4, 'n': 6, 'k': 2, 'h': 3, 'f': 5, 'v': 7, 'r': 2}
  name = data.draw(st.sampled_from(NAMES))
  letters = name.rsplit('_', 1)[1].removeprefix('l')
  shape = [sizes[letter] for letter in letters]
  part = []
  for letter in letters:
    bounds = st.tuples(st.integers(0, sizes[letter]), st.integers(0, sizes[letter]))
    cut = (0, sizes[letter]) if letter == 'h' else sorted(data.draw(bounds))
    part.append(slice(*cut))
  ours = np.arange(math.prod(shape)).reshape(shape)
  theirs = hf_names.to_theirs(name, ours)
  found = theirs[hf_names.their_part(name, part, shape)]
  expected = ours[tuple(part)]
  again = hf_names.to_ours(name, found, expected.shape)
  np.testing.assert_array_equal(again, expected)


def test_a_cut_inside_heads_is_no_slice():
  with pytest.raises(ValueError, match='q_weight_ldnh is cut within its axes h'):
    hf_names.their_part(
        'q_weight_ldnh', [slice(0, 4), slice(0, 6), slice(0, 1)], (4, 6, 3)
    )
