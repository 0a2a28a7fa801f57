"""Loops, slices, on-chip memory and collectives of a small module."""

import jax
import jax.numpy as jnp
import pytest

from leafe_jax.planning import chips, flops, hlo
from leafe_jax.policy import sharding
from leafe_jax.sampler import ragged

MODULE = """
HloModule jit_f

%cond (p: (s32[], f32[8,4])) -> pred[] {
  %p = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%sliced (a: f32[5,8,4], i: s32[]) -> f32[1,8,4] {
  %a = f32[5,8,4]{2,1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  ROOT %s = f32[1,8,4]{2,1,0} dynamic-slice(%a, %i.1), dynamic_slice_sizes={1,8,4}
}

%body (p.1: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p.1 = (s32[], f32[8,4]{1,0}, f32[5,8,4]{2,1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%p.1), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%p.1), index=1
  %w = f32[5,8,4]{2,1,0} get-tuple-element(%p.1), index=2
  %g = f32[1,8,4]{2,1,0:T(8,128)S(1)} fusion(%w, %i.2), kind=kLoop, calls=%sliced
  %r = f32[8,4]{1,0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i.2, %r)
}

ENTRY %main (x.1: f32[8,4]) -> f32[16,4] {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %loop = (s32[], f32[8,4]{1,0}) while(%x.1), condition=%cond, body=%body
  %y = f32[8,4]{1,0} get-tuple-element(%loop), index=1
  %z = f32[16,4]{1,0} all-gather(%y), replica_groups={{0,1},{2,3}}, dimensions={0}
  ROOT %c = f32[16,4]{1,0} copy(%z)
}
"""


def test_traffic_counts_loops_slices_and_collectives():
  traffic = hlo.Module(MODULE).traffic()
  # Five slices read (what they give stays on the chip), one copy in and out;
  # the loop's counter is four bytes.
  assert traffic.memory == 5 * (8 * 4 * 4 + 4) + 2 * 16 * 4 * 4
  assert traffic.collectives == (
      hlo.Collective('all-gather', 2, 1, 256.0),
      hlo.Collective('all-reduce', 4, 5, 640.0),
  )
  assert traffic.sent == 256 / 2 + 2 * 640 * 3 / 4


def test_a_loop_that_ends_by_data_runs_as_often_as_said():
  text = MODULE.replace('direction=LT', 'direction=NE')
  traffic = hlo.Module(text).traffic(open_loop=7)
  assert traffic.collectives[1].count == 7


IN_PLACE = """
HloModule jit_g

%slice_of_it (w: bf16[5,8,128]) -> bf16[1,8,128] {
  %w = bf16[5,8,128]{2,1,0} parameter(0)
  ROOT %s = bf16[1,8,128]{2,1,0} slice(%w), slice={[0:1], [0:8], [0:128]}
}

%nested (w.1: bf16[5,8,128]) -> bf16[1,8,128] {
  %w.1 = bf16[5,8,128]{2,1,0} parameter(0)
  ROOT %f = bf16[1,8,128]{2,1,0} fusion(%w.1), kind=kLoop, calls=%slice_of_it
}

%scattered (p: bf16[64,2,128], i: s32[4], u: bf16[4,2,128]) -> bf16[64,2,128] {
  %p = bf16[64,2,128]{2,1,0} parameter(0)
  %i = s32[4]{0:S(1)} parameter(1)
  %u = bf16[4,2,128]{2,1,0} parameter(2)
  ROOT %sc = bf16[64,2,128]{2,1,0} scatter(%p, %i, %u), to_apply=%set
}

%async_collective_fusion.1 (a: bf16[2,128], b: bf16[8,128]) -> (bf16[2,128], bf16[8,128]) {
  %a = bf16[2,128]{1,0} parameter(0)
  %b = bf16[8,128]{1,0} parameter(1)
  %m = bf16[2,128]{1,0} multiply(%a, %a)
  ROOT %t = (bf16[2,128]{1,0}, bf16[8,128]{1,0}) tuple(%m, %b)
}

ENTRY %main (x: bf16[5,8,128]) -> bf16[4,7,128] {
  %x = bf16[5,8,128]{2,1,0} parameter(0)
  %y = bf16[1,8,128]{2,1,0:S(1)} fusion(%x), kind=kOutput, calls=%nested
  %flat = bf16[64,2,128]{2,1,0} parameter(1)
  %ids = s32[4]{0:S(1)} parameter(2)
  %new = bf16[4,2,128]{2,1,0} parameter(3)
  %set.1 = bf16[64,2,128]{2,1,0} fusion(%flat, %ids, %new), kind=kCustom, calls=%scattered
  %pool = bf16[4,16,2,128]{3,2,1,0} bitcast(%set.1)
  %lengths = s32[2]{0:S(1)} parameter(4)
  %table = s32[2,3]{1,0:S(1)} parameter(5)
  %q = bf16[4,7,128]{2,1,0:S(1)} parameter(6)
  %small = bf16[2,128]{1,0} parameter(7)
  %c = (bf16[2,128]{1,0}, bf16[8,128]{1,0}) fusion(%small, %big), kind=kLoop, output_to_operand_aliasing={{1}: (1, {})}, calls=%async_collective_fusion.1
  %big = bf16[8,128]{1,0} parameter(8)
  ROOT %ragged_paged_attention_kernel.1 = bf16[4,7,128]{2,1,0} custom-call(%lengths, %table, %q, %pool), custom_call_target="tpu_custom_call"
}
"""  # noqa: E501


def test_traffic_knows_what_is_read_in_part_or_updated_in_place():
  sliced = 8 * 128 * 2
  scattered = 2 * (4 * 2 * 128 * 2)  # what is new, in and out
  carried = 2 * (2 * 128 * 2)  # but for what is only handed on
  pages = 2 * 3 * (16 * 2 * 128 * 2)  # of two rows with three pages each
  result = 4 * 7 * 128 * 2
  found = hlo.Module(IN_PLACE).traffic().memory
  assert found == sliced + scattered + carried + pages + result


def test_paged_attention_meets_all_places_of_the_table(monkeypatch):
  monkeypatch.setattr(sharding, 'target_platform', lambda: 'tpu')
  q, pool = jnp.zeros((2, 4, 7, 128)), jnp.zeros((10, 16, 2, 128))
  pages, start = jnp.zeros((2, 3), jnp.int32), jnp.zeros(2, jnp.int32)
  jaxpr = jax.jit(ragged.attend).trace(q, pool, pages, start).jaxpr
  assert flops.count(jaxpr) == 2 * 4 * 7 * 2 * (2 * 128 * 3 * 16)


def test_operations_are_counted_through_scans_and_gradients():
  def chain(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

  x, w = jnp.ones((8, 16)), jnp.ones((5, 16, 16))
  once = 2 * 8 * 16 * 16 * 5
  assert flops.count(jax.jit(chain).trace(x, w).jaxpr) == once
  grad = jax.grad(lambda *args: chain(*args).sum(), argnums=(0, 1))
  assert flops.count(jax.jit(grad).trace(x, w).jaxpr) == 3 * once


def test_an_open_loop_counts_as_often_as_said():
  def power(x):
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

  jaxpr = jax.jit(power).trace(jnp.ones((4, 4))).jaxpr
  assert flops.count(jaxpr, open_loop=3) == 3 * 2 * 4**3


def test_an_unknown_chip_is_refused_with_the_choices():
  assert chips.find_chip('v5e:4x4').name == 'v5e'
  with pytest.raises(ValueError, match="'v9'.*v4, v5e, v5p, v6e"):
    chips.find_chip('v9:2x2')
