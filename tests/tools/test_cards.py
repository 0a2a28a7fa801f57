"""Model cards are read by huggingface_hub, tell the figures and keep secrets."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import ModelCard

from leafe_jax.config import Env, Experiment, Policy
from leafe_jax.evaluation import model_card
from leafe_jax.evaluation import results as results_lib
from leafe_jax.evaluation.model_card import BadCard
from leafe_jax.evaluation.results import ArmCounts
from leafe_jax.methods.run import Run
from leafe_jax.rundir import RunDirectory
from tools import cards

GIVEN = cards.Given('webshop-7b', 'distill/leafe', adapter=False, licence='apache-2.0')


def results() -> dict:
  """Of two arms on three tasks, eight samples of each."""
  arms = [
      ArmCounts(name, ['a', 'b', 'c'], np.array(counts), 8, 1.0, turns=24)
      for name, counts in (('base', (1, 0, 0)), ('leafe', (8, 4, 0)))
  ]
  return {**results_lib.compare(arms, 50), 'tasks': {}}


@pytest.fixture
def checkpoint(tmp_path):
  place = tmp_path / 'Some-1B'
  place.mkdir()
  (place / 'config.json').write_text(json.dumps({'_name_or_path': 'some/Some-1B'}))
  (place / 'README.md').write_text('---\nlicense: llama3.1\n---\n\n# Some-1B\n')
  return place


def run_in(root, checkpoint='', **options) -> Run:
  config = Experiment(
      env=Env(name='webshop', options=options),
      policy=Policy(checkpoint=str(checkpoint)), arms=('base', 'leafe'),
  )
  directory = RunDirectory(root / 'run')
  argv = ['main.py', '--config=/of/me/configs/webshop.py:debug', '--workdir=/of/me/run',
          '--config.env.options.api_key=k3y-of-somebody']  # fmt: skip
  directory.record_attempt({'argv': argv})
  return Run(config, directory, 'digest')


def test_a_card_is_read_by_the_hubs_library(tmp_path, checkpoint):
  run = run_in(tmp_path, checkpoint)
  results_lib.write_results(run.directory.path / 'results.json', results())
  given = dataclasses.replace(GIVEN, licence='', datasets=('me/episodes',))
  place = tmp_path / 'README.md'
  place.write_text(model_card.render(cards.gather(run, given)))
  card = ModelCard.load(place)
  data = card.data
  assert data.base_model == 'some/Some-1B' and data.license == 'llama3.1'
  assert data.datasets == ['me/episodes'] and data.library_name == 'transformers'
  assert {'leafe', 'webshop'} <= set(data.tags)
  found = {r.metric_args['k']: r.metric_value for r in data.eval_results}
  assert found[1] == 50.0 and found[8] == pytest.approx(66.67)  # (1 + 1/2 + 0) / 3
  assert data.model_name == 'webshop-7b'
  assert '| **leafe** | 50.0 [' in card.text and '| leafe - base | +4' in card.text
  assert 'huggingface.co/some/Some-1B' in card.text
  assert '--config=configs/webshop.py:debug --workdir=run' in card.text


def test_a_card_before_the_evaluation_has_no_figures(tmp_path):
  text = model_card.render(cards.gather(run_in(tmp_path), GIVEN))
  assert 'model-index' not in text and 'not evaluated when' in text
  assert 'taught from scratch' in text and 'base_model' not in text


def test_a_card_has_no_secret(tmp_path):
  run = run_in(tmp_path, api_key='k3y-of-somebody')
  text = model_card.render(cards.gather(run, GIVEN))
  assert 'k3y' not in text and '/of/me' not in text and '"api_key"' in text


def test_the_card_of_adapters_is_for_peft(tmp_path, checkpoint):
  given = dataclasses.replace(GIVEN, adapter=True, base='other/Base')
  text = model_card.render(cards.gather(run_in(tmp_path, checkpoint), given))
  data = ModelCard(text).data
  assert (data.library_name, data.base_model) == ('peft', 'other/Base')


@pytest.mark.parametrize(
    ('change', 'message'),
    [({'licence': ''}, '--license=ID'),
     ({'licence': 'Apache 2'}, '--license=Apache 2:'),
     ({'base': 'a/b/c'}, '--base_model=a/b/c: .*ORGANISATION/NAME'),
     ({'datasets': ('x y',)}, '--datasets=x y:')],
)  # fmt: skip
def test_what_the_hub_would_not_take_is_refused(change, message, tmp_path):
  with pytest.raises(BadCard, match=message):
    cards.gather(run_in(tmp_path), dataclasses.replace(GIVEN, **change))


@pytest.mark.parametrize('name', ['/data/Some-1B', './x/y', 'Some-1B', 7, 'a b/c'])
def test_a_name_that_is_no_id_is_not_believed(name, tmp_path, checkpoint):
  (checkpoint / 'config.json').write_text(json.dumps({'_name_or_path': name}))
  card = ModelCard(
      model_card.render(cards.gather(run_in(tmp_path, checkpoint), GIVEN))
  )
  assert card.data.base_model is None and 'the checkpoint Some-1B' in card.text


@pytest.mark.parametrize(
    'text', ['', '# no metadata', '---\n- a list\n---\n', '---\n: [\n---']
)
def test_a_base_without_a_readable_card_names_no_licence(text):
  assert not model_card.licence_of(text)


def test_the_program_refuses_before_it_writes(tmp_path):
  run = subprocess.run(
      [sys.executable, '-m', 'tools.export_hf', f'--checkpoint={tmp_path / "none"}',
       f'--out={tmp_path / "out"}', '--push_ready'],
      capture_output=True, text=True,
  )
  assert run.returncode and run.stderr.count('\n') == 1
  assert not (tmp_path / 'out').exists()
