"""A run's experience goes out as messages and comes back as it was."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest

from leafe_jax import settings
from leafe_jax.config import Env, Experiment, Policy
from leafe_jax.experience import build, conversations, dataset
from leafe_jax.methods import collect
from leafe_jax.methods.run import Run
from leafe_jax.rundir import RunDirectory
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.conversation import Narrator
from tests import chat_checkpoint
from tests.experience.test_messages import EVERYTHING, make_tree
from tools import export_experience


@pytest.fixture(name='run')
def _run(tmp_path):
  """A run with trees and what was trained of them."""
  checkpoint = chat_checkpoint.write(tmp_path / 'tiny')
  config = dataclasses.replace(
      Experiment(), env=Env(name='sokoban', options={'view': 'text'}),
      policy=Policy(checkpoint=str(checkpoint), max_length=512),
  )
  directory = RunDirectory(tmp_path / 'run')
  directory.save_config(settings.to_dict(config))
  run = Run(config, directory, 'hash')
  tree = make_tree(run.transcript, ['a door', 'a wall'], random.Random(9))
  explore, distill = directory.phase('explore'), directory.phase('distill/leafe')
  collect.save_trees(collect.wave_path(explore.dir, 0), [tree])
  explore.complete({})
  found, _ = build.build([tree], EVERYTHING, random.Random(0))
  dataset.write(distill.dir / 'data', found)
  distill.complete({})
  return run, found


def test_what_was_trained_reads_back_to_the_same_tokens(run, tmp_path):
  run, found = run
  out = tmp_path / 'out.jsonl'
  counts = export_experience.export(
      run.directory.path, out, 'leafe', ('reh', 'cf', 'trees')
  )
  assert counts == {'reh': 2, 'cf': 1, 'tree': 2}
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert {row['arm'] for row in rows} == {'leafe'}
  assert isinstance(run.transcript, ChatTranscript)
  narrator = Narrator(run.transcript, {})
  again = list(conversations.read([str(out)], narrator))
  for example, other in zip(found, again, strict=False):
    np.testing.assert_array_equal(example.ids, other.ids)
    np.testing.assert_array_equal(example.weights, other.weights)


def test_one_row_an_answer_for_trainers_that_know_no_flags(run, tmp_path):
  run, found = run
  out = tmp_path / 'out.jsonl'
  export_experience.export(
      run.directory.path, out, 'leafe', ('reh',), 'prompt_completion'
  )
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  answers = sum(np.diff(e.weights, prepend=0).clip(0).sum() for e in found
                if e.kind == 'reh')  # fmt: skip
  assert len(rows) == answers
  assert all([m['role'] for m in row['completion']] == ['assistant'] for row in rows)
  assert all(row['prompt'][-1]['role'] == 'user' for row in rows)


def test_what_is_not_there_is_named_and_nothing_is_written(run, tmp_path):
  run, _ = run
  out = tmp_path / 'out.jsonl'
  with pytest.raises(FileNotFoundError, match='no config.json of a run'):
    export_experience.export(tmp_path / 'absent', out, 'leafe', ('reh',))
  with pytest.raises(ValueError, match='no experience of its own'):
    export_experience.export(run.directory.path, out, 'base', ('trees',))
  (run.directory.phase('distill/leafe').dir / 'DONE.json').unlink()
  with pytest.raises(FileNotFoundError, match='--what=trees writes the trees alone'):
    export_experience.export(run.directory.path, out, 'leafe', ('reh',))
  assert not out.exists()
