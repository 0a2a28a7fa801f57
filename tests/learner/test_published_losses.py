"""Our losses against the functions that TRL and verl publish."""

from __future__ import annotations

import collections
import dataclasses
import types

import jax
import numpy as np
import pytest

from leafe_jax.config import Grpo
from leafe_jax.learner import dpo, losses, policy_gradient, self_distillation
from tests.learner import published
from tests.learner.test_dpo import VOCAB, batch_of, make_pairs
from tests.learner.test_policy_gradient import PLAIN, outcome, rows


@pytest.fixture(name='verl', scope='module')
def _verl():
  torch = published.torch()
  functional = published.load(
      'verl', 'utils/torch_functional.py', 'masked_sum', 'masked_mean', torch=torch
  )
  algorithms = published.load(
      'verl', 'trainer/ppo/core_algos.py', 'compute_policy_loss', 'agg_loss',
      'kl_penalty', 'kl_penalty_forward', 'compute_grpo_outcome_advantage',
      torch=torch, verl_F=types.SimpleNamespace(**functional),
      defaultdict=collections.defaultdict,
  )
  return types.SimpleNamespace(**algorithms)


def masked(batch):
  """(weights, log-probabilities' companions) of tokens 1.. as torch tensors."""
  torch = published.torch()
  mask = torch.tensor(np.asarray(losses.target_weights(batch)))
  names = ('advantages', 'old_logprobs', 'ref_logprobs')
  return mask, *(torch.tensor(batch[name][:, 1:]) for name in names)


def log_probs_of(logits, batch):
  torch = published.torch()
  targets = torch.tensor(batch['tokens'][:, 1:, None]).long()
  return torch.log_softmax(logits[:, :-1], -1).gather(-1, targets)[..., 0]


@pytest.mark.parametrize('dual_clip', [0.0, 3.0])
@pytest.mark.parametrize('seed', range(3))
def test_the_surrogate_and_its_gradient_are_verls(verl, seed, dual_clip):
  torch = published.torch()
  logits, batch = rows(seed)
  batch['old_logprobs'] -= 2 * (seed == 2)  # ratios beyond the second clip
  x = torch.tensor(logits, requires_grad=True)
  mask, a, old, ref = masked(batch)
  log_p = log_probs_of(x, batch)
  policy, clipped, *_ = verl.compute_policy_loss(
      old, log_p, a, mask, cliprange=0.2, clip_ratio_c=dual_clip or 1e9
  )
  penalty = verl.kl_penalty(log_p, ref, 'low_var_kl')
  loss = policy + 0.05 * verl.agg_loss(penalty, mask, 'token-mean')
  loss.backward()

  def ours(y):
    terms = policy_gradient.clipped_surrogate(
        y, batch, clip=0.2, kl=0.05, dual_clip=dual_clip
    )
    return terms.total / terms.weight, terms

  (value, terms), gradient = jax.value_and_grad(ours, has_aux=True)(logits)
  np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
  np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-5)
  np.testing.assert_allclose(
      terms.sums['clipped'] / terms.weight, clipped.item(), atol=1e-6
  )


def test_k3_is_verls(verl):
  torch = published.torch()
  rng = np.random.default_rng(0)
  p, q = rng.normal(-3, 4, (2, 50)).astype(np.float32)
  expected = verl.kl_penalty(torch.tensor(p), torch.tensor(q), 'k3')
  np.testing.assert_allclose(
      policy_gradient.low_variance_kl(p, q), expected.numpy(), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('std', ['sample', 'none'])
@pytest.mark.parametrize('per_turn', [False, True])
def test_advantages_are_verls(verl, std, per_turn):
  """Rows of verl are episodes, or turns where its agents' form makes them rows."""
  torch = published.torch()
  config = dataclasses.replace(PLAIN, std=std, per_turn_norm=per_turn)
  group = [outcome(1.0, (True, False)), outcome(0.0), outcome(1.0), outcome(0.0)]
  scores = [1.0, 0.9, 0.0, 1.0, 0.0] if per_turn else [0.9, 0.0, 1.0, 0.0]
  expected, _ = verl.compute_grpo_outcome_advantage(
      torch.tensor(scores)[:, None], torch.ones(len(scores), 1),
      np.zeros(len(scores), int), norm_adv_by_std_in_grpo=std == 'sample',
  )
  found = policy_gradient.advantages(group, config, 0.0)
  values = np.concatenate(found) if per_turn else [a[0] for a in found]
  np.testing.assert_allclose(values, expected[:, 0].numpy(), rtol=1e-4)


def test_a_group_of_one_is_where_we_differ_from_verl(verl):
  """There it learns from its whole reward; compared with nothing, it should not."""
  torch = published.torch()
  theirs, _ = verl.compute_grpo_outcome_advantage(
      torch.tensor([[10.0]]), torch.ones(1, 1), np.zeros(1, int)
  )
  [found] = policy_gradient.advantages([outcome(10.0)], Grpo(), 0.0)
  assert theirs.item() == pytest.approx(10.0, rel=1e-5)
  assert found.tolist() == [0.0]


@pytest.mark.parametrize('seed', range(3))
def test_the_pair_loss_its_rewards_and_its_gradient_are_trls(seed):
  torch = published.torch()
  kinds = types.SimpleNamespace(ALPHA_DIVERGENCE='alpha', JS_DIVERGENCE='js')
  trl = published.load(
      'trl', 'trainer/dpo_trainer.py', 'dpo_loss', torch=torch,
      F=torch.nn.functional, FDivergenceType=kinds,
  )
  trainer = types.SimpleNamespace(
      accelerator=types.SimpleNamespace(device=torch.device('cpu')),
      reference_free=False, f_divergence_type='reverse_kl', beta=0.3,
      label_smoothing=0.0,
  )
  pairs = make_pairs(9, seed)
  batch = batch_of(pairs, seed)
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 1, (*batch['tokens'].shape, VOCAB)).astype(np.float32)
  x = torch.tensor(logits, requires_grad=True)
  sums = sequence_sums(log_probs_of(x, batch), batch)
  references = sequence_sums(torch.tensor(batch['ref_logprobs'][:, 1:]), batch)
  expected, chosen, rejected = trl['dpo_loss'](trainer, *sums, *references)
  expected.sum().backward()

  def ours(y):
    terms = dpo.preference_loss(y, batch, beta=0.3)
    return terms.total, terms.sums

  (value, found), gradient = jax.value_and_grad(ours, has_aux=True)(logits)
  assert len(expected) == len(pairs)
  np.testing.assert_allclose(value, expected.sum().item(), rtol=1e-5)
  np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-5)
  for name, reward in [('chosen_reward', chosen), ('rejected_reward', rejected)]:
    np.testing.assert_allclose(found[name], reward.sum().item(), rtol=1e-4)


def sequence_sums(values, batch):
  """Sums over the responses of all chosen and of all rejected sequences."""
  torch = published.torch()
  sums = ([], [])
  for row, segments in enumerate(batch['segment_ids'][:, 1:]):
    for segment in range(1, segments.max() + 1):
      inside = (segments == segment) & (batch['weights'][row, 1:] > 0)
      sums[(segment + 1) % 2].append(values[row][torch.tensor(inside)].sum())
  return tuple(torch.stack(values) for values in sums)


# --- self-distillation


def teachers_of(batch, logits, seed):
  """The batch with a teacher, and the teacher's logits at the places that predict."""
  other = np.random.default_rng(seed + 100).normal(0, 1, logits.shape)
  teacher = np.array(losses.token_log_probs(
      other[:, :-1].astype(np.float32), batch['tokens'][:, 1:]
  ))
  scores = np.pad(teacher, [(0, 0), (1, 0)])
  return {**batch, 'taught': batch['weights'], 'teacher_logprobs': scores}, other


@pytest.mark.parametrize('seed', range(3))
def test_self_distillation_on_sampled_tokens_is_trls(seed):
  """Its gradient: as the value we report the KL, TRL what it differentiates."""
  torch = published.torch()

  def selected(logits, index):
    return torch.log_softmax(logits, -1).gather(-1, index[..., None])[..., 0]

  trl = published.load(
      'trl', 'experimental/sdpo/loss_utils.py', 'apply_importance_sampling_clipping',
      'compute_sampled_token_self_distillation_loss', torch=torch,
      selective_log_softmax=selected,
  )
  logits, batch = rows(seed)
  batch, other = teachers_of(batch, logits, seed)
  x = torch.tensor(logits, requires_grad=True)
  tokens = torch.tensor(batch['tokens'][:, 1:]).long()
  mask, _, old, _ = masked(batch)
  loss = trl['compute_sampled_token_self_distillation_loss'](
      x[:, :-1], torch.tensor(other[:, :-1]).float(), tokens, distillation_alpha=1.0
  )
  loss = trl['apply_importance_sampling_clipping'](
      loss, selected(x[:, :-1], tokens), old, 2.0
  )
  (loss * mask).sum().backward()

  def ours(y):
    return self_distillation.reverse(y, batch, ratio_clip=2.0).total

  np.testing.assert_allclose(jax.grad(ours)(logits), x.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize('seed', range(3))
def test_kl_over_the_teachers_likeliest_tokens_is_verls(seed):
  torch = published.torch()
  verl = published.load(
      'verl', 'trainer/distillation/fsdp/losses.py', 'kl_divergence', torch=torch
  )
  logits, batch = rows(seed)
  batch, other = teachers_of(batch, logits, seed)
  log_q = jax.nn.log_softmax(other.astype(np.float32))
  best, ids = jax.lax.top_k(log_q, 3)
  x = torch.tensor(logits, requires_grad=True)
  student = torch.log_softmax(x, -1).gather(-1, torch.tensor(np.array(ids)).long())
  mask = masked(batch)[0]
  kl = verl['kl_divergence'](student, torch.tensor(np.array(best)))
  (kl[:, :-1] * mask).sum().backward()

  def moved(values):  # from the places that predict to what they predict
    return jax.numpy.pad(values[:, :-1], [(0, 0), (1, 0), (0, 0)])

  def ours(y):
    logprobs = jax.numpy.take_along_axis(jax.nn.log_softmax(y), ids, -1)
    given = {**batch, 'teacher_topk': moved(best)}
    return self_distillation.forward(moved(logprobs), given).total

  value, gradient = jax.value_and_grad(ours)(logits)
  np.testing.assert_allclose(value, (kl[:, :-1] * mask).sum().item(), rtol=1e-4)
  np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-5)
