"""The bandit with a base that reflects, follows hints, and reads what they mean."""

from __future__ import annotations

import pathlib

from leafe_jax import config as config_lib
from leafe_jax.experience import examples
from leafe_jax.methods import training
from leafe_jax.methods.run import BASE, Run
from leafe_jax.tree import Node, Tree, Turn
from tests.methods import bandit

TEACHING = config_lib.Training(
    steps=120, batch_rows=8, row_length=32, learning_rate=2e-2, checkpoint_every=0
)
# What is shown -> what the base then says. Left to itself it hardly goes right.
HABITS = [
    (None, 'left'), (None, 'left'), (None, 'left'), (None, 'right'),
    ('right', 'right'), ('left', 'left'), ('paid', 'right'), ('nothing', 'right'),
]  # fmt: skip


def make_run(directory: pathlib.Path, base: pathlib.Path | None = None, **sections):
  """A run whose base was taught `HABITS`; or is that of another run's directory."""
  run = bandit.make_run(directory, **sections)
  if base is not None:
    place = run.directory.phase(BASE).dir
    (place / 'params').rename(place / 'untaught')
    (place / 'params').symlink_to(base / BASE / 'params')
    return run
  start = run.start()
  place = run.directory.phase(BASE).dir
  (place / 'params').rename(place / 'untaught')
  training.train_on(run, 'teach', place, start, lessons(run), TEACHING, {})
  return run


def lessons(run: Run) -> list[examples.Example]:
  transcript = run.transcript
  first, opener = transcript.first('', 'choose', 'choose'), transcript.opener_ids

  def word(text):
    return run.tokenizer.encode(text, add_special_tokens=False)

  found = []
  for shown, said in HABITS:
    hint = [] if shown is None else transcript.hint(shown)
    found.append(examples.make(
        [(first, 0), (hint, 0), (opener, 0), (word(said), 1)], 'demo'
    ))
  for said in ('left', 'right'):
    found.append(examples.make([
        (first, 0), (opener, 0), (word(said), 0), (transcript.next(2, 'nothing'), 0),
        (transcript.reflection(1, True), 0), (word('<t1> right'), 1),
    ], 'demo'))
  return found


def grown(run: Run, task, success: bool = True) -> Tree:
  """'left' failed at turn 1; told 'right', the policy took it."""
  transcript = run.transcript
  prompt = transcript.first('', 'choose', 'choose')
  opener = list(transcript.opener_ids)

  def turn(said, **hint):
    ids = run.tokenizer.encode(said, add_special_tokens=False)
    return Turn(1, 'choose', prompt, opener, ids, [-1.0] * len(ids), said, said, **hint)

  hint = transcript.hint('right')
  root = Node(0, None, 1, None, 0, [turn('left')], ended_by='terminated',
              final_observation='nothing')
  branch = Node(1, 0, 1, 'right', 1, [turn('right', hint_ids=hint)], success)
  return Tree(task.id, 'choose', 'train', [root, branch])


def chance(run: Run, params, said: str, shown: str | None = None) -> float:
  """How likely a policy is to say a word at the start, perhaps after a hint."""
  import numpy as np

  from leafe_jax.learner.policy_gradient import Scorer

  transcript = run.transcript
  hint = [] if shown is None else transcript.hint(shown)
  ids = [*transcript.first('', 'choose', 'choose'), *hint, *transcript.opener_ids,
         *run.tokenizer.encode(said, add_special_tokens=False)]
  row = np.array([ids], np.int32)
  score = Scorer(run.shape.policy, run.mesh)(params, {
      'tokens': row, 'positions': np.arange(len(ids))[None].astype(np.int32),
      'segment_ids': np.ones_like(row),
  })
  return float(np.exp(score[0, -1]))
