"""Several seeds as one arm: means task by task, intervals over tasks."""

import numpy as np
import pytest

from leafe_jax.evaluation import markdown, pooling, results, strategies
from leafe_jax.evaluation.results import ArmCounts
from tests.evaluation import runs

TASKS = ['a', 'b', 'c', 'd']


def counts(name, successes, tasks=TASKS, n=4, temperature=1.0):
  return ArmCounts(name, list(tasks), np.array(successes), n, temperature)


SEEDS = {
    0: {'base': counts('base', [0, 0, 1, 4]), 'leafe': counts('leafe', [1, 2, 4, 4])},
    1: {'base': counts('base', [0, 2, 0, 4]), 'leafe': counts('leafe', [0, 4, 4, 4])},
}


def test_a_pooled_figure_is_the_mean_over_seeds():
  base, leafe = pooling.pool(SEEDS)
  assert (base.name, leafe.name) == ('base', 'leafe')
  np.testing.assert_allclose(base.pass_at((1,))[:, 0], [0, 0.25, 0.125, 1])
  figures = results.compare([base, leafe])
  means = [np.mean([0, 0, 0.25, 1]), np.mean([0, 0.5, 0, 1])]
  assert figures['arms']['base']['pass_at_k']['1']['mean'] == np.mean(means)
  assert figures['arms']['base']['n_tasks'] == 4


def test_a_task_order_of_its_own_does_not_matter():
  turned = {
      0: SEEDS[0],
      1: {'base': counts('base', [4, 0, 2, 0], ['d', 'c', 'b', 'a'])},
  }
  (base,) = pooling.pool(turned)
  same, _ = pooling.pool(SEEDS)
  np.testing.assert_array_equal(base.pass_at((1,)), same.pass_at((1,)))


def test_mcnemar_counts_pairs_of_seed_and_task():
  base, leafe = pooling.pool(SEEDS)
  assert base.solved().tolist() == [0, 0, 1, 1, 0, 1, 0, 1]
  # Three pairs are solved by leafe alone, none by base alone: p = 2 / 2**3.
  assert results.compare([base, leafe])['paired']['leafe - base']['mcnemar_p'] == 0.25


def test_only_arms_that_every_seed_has_are_pooled():
  seeds = {**SEEDS, 2: {'leafe': SEEDS[0]['leafe']}}
  assert [arm.name for arm in pooling.pool(seeds)] == ['leafe']
  with pytest.raises(ValueError, match='seed 3: grpo'):
    pooling.pool({**SEEDS, 3: {'grpo': counts('grpo', [0, 0, 0, 0])}})


@pytest.mark.parametrize('other', [
    counts('base', [0, 0, 0], ['a', 'b', 'c']),
    counts('base', [0, 0, 0, 0], n=8),
    counts('base', [0, 0, 0, 0], temperature=0.4),
])
def test_seeds_that_cannot_be_compared_are_refused(other):
  with pytest.raises(ValueError, match="'base'"):
    pooling.pool({0: SEEDS[0], 1: {'base': other}})


def test_strategies_are_compared_at_shares_of_the_budget():
  late, early = runs.branching_tree('t'), runs.root_tree('t')
  for tree in (late, early):
    turns = sum(len(node.turns) for node in tree.nodes)
    tree.budget = {
        'episodes': len(tree.nodes), 'env_steps': turns, 'sampled_tokens': 5,
        'reflection_tokens': 0,
    }  # fmt: skip
  found = strategies.compare({'sample': [early], 'explore': [late]}, 50)
  assert found['sample']['solved']['mean'] == found['explore']['solved']['mean'] == 1
  assert found['explore']['by_steps']['0.5'] == 0  # its last episode succeeds
  assert found['explore']['by_steps']['1'] == 1
  assert found['explore']['p'] == 1.0


def test_markdown_holds_every_table():
  pooled = results.compare(pooling.pool(SEEDS))
  text = markdown.render({**pooled, 'per_seed': pooling.per_seed(SEEDS)})
  assert '| leafe - base |' in text
  assert '| arm | @1, seed 0 | @1, seed 1 | @4, seed 0 | @4, seed 1 |' in text
  rows = [line for line in text.splitlines() if line.startswith('| base |')]
  assert len(rows) == 2
