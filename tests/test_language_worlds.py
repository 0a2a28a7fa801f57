"""A released language model plays an episode of each text view, as it is.

Skipped without the model: `make model`, or LEAFE_SMOLLM2=DIR.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import pytest

from leafe_jax.config import Env, Experiment, Explore, Policy, Sampler
from leafe_jax.learner.metrics import Nowhere
from leafe_jax.methods.collect import collect, load_trees
from leafe_jax.methods.run import Run
from leafe_jax.policy import huggingface
from leafe_jax.rollout.grow import Limits
from leafe_jax.rundir import RunDirectory
from tests.envs.alfworld_support import needs_engine

DEFAULT = pathlib.Path(__file__).resolve().parent.parent / 'models' / 'smollm2'
MODEL = pathlib.Path(os.environ.get('LEAFE_SMOLLM2') or DEFAULT)
pytestmark = pytest.mark.skipif(
    not (MODEL / 'config.json').is_file(),
    reason=f'no model in {MODEL} (make model, or LEAFE_SMOLLM2=DIR)',
)
VIEWS = [
    ('webshop', {'catalogue': 'embedded', 'view': 'text'}),
    pytest.param(
        'alfworld', {'train_games': 2, 'validation_games': 1, 'test_games': 1},
        marks=needs_engine,
    ),
    ('sokoban', {'view': 'text', 'train_levels': 4}),
]  # fmt: skip
CONFIG = dataclasses.replace(
    Experiment(),
    policy=Policy(
        checkpoint=str(MODEL), max_length=768, scan_layers=True, dtype='bfloat16'
    ),
    sampler=Sampler(
        page_size=32, num_pages=64, max_rows=1, dispatch_rows=1, prefill_buckets=(512,),
        length_buckets=(768,), decode_chunk=8,
    ),
    explore=Explore(
        num_tasks=1, wave_tasks=1, attempts=2, num_roots=1, reflect_every=0,
        restart=False, max_depth=1, max_response_tokens=8, max_reflection_tokens=8,
    ),
    arms=('base',),
)  # fmt: skip


@pytest.fixture(name='params', scope='module')
def _params(tmp_path_factory):
  run = Run(CONFIG, RunDirectory(tmp_path_factory.mktemp('load')), 'hash')
  return huggingface.load_params(str(MODEL), run.shape, run.mesh)


@pytest.mark.parametrize('name, options', VIEWS)
def test_an_episode_of_a_text_view_is_played_and_reflected_on(
    params, tmp_path, name, options
):
  config = dataclasses.replace(CONFIG, env=Env(name, options, horizon=1))
  run = Run(config, RunDirectory(tmp_path), 'hash')
  collect(
      'played', tmp_path, run.player(params, 0), run.tasks('train')[:1],
      config.explore, lambda task: Limits(2, 0), 1, Nowhere(),
  )  # fmt: skip
  [tree] = load_trees(tmp_path)
  node = tree.nodes[0]
  [turn] = node.turns
  assert turn.response and node.ended_by == 'horizon'
  sent = str(run.tokenizer.decode(turn.prompt_ids))
  assert sent.startswith('<|im_start|>system') and tree.instruction in sent
  # What cannot be read says why, in words; nothing of it ends the run.
  assert turn.action or turn.error
  [answer] = node.reflections
  assert answer.tau == 1 or answer.error
