"""The bandit with a base that reflects, follows hints, and reads what they mean."""

from __future__ import annotations

import pathlib

import numpy as np

from leafe_jax import config as config_lib
from leafe_jax.experience import examples
from leafe_jax.learner.scoring import Scorer
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


def make_run(
    directory: pathlib.Path, base: pathlib.Path | None = None, doubts: bool = False,
    **sections,
):
  """A run whose base was taught `HABITS`; or is that of another run's directory.

  One that doubts says as often that it should have gone left as right.
  """
  run = bandit.make_run(directory, **sections)
  if base is not None:
    place = run.directory.phase(BASE).dir
    (place / 'params').rename(place / 'untaught')
    (place / 'params').symlink_to(base / BASE / 'params')
    return run
  start = run.start()
  place = run.directory.phase(BASE).dir
  (place / 'params').rename(place / 'untaught')
  training.train_on(run, 'teach', place, start, lessons(run, doubts), TEACHING, {})
  return run


def lessons(run: Run, doubts: bool) -> list[examples.Example]:
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
  for better in ('right', 'left' if doubts else 'right'):
    found.append(examples.make([
        (first, 0), (opener, 0), (word('left'), 0), (transcript.next(2, 'nothing'), 0),
        (transcript.reflection(1, True), 0), (word(f'<t1> {better}'), 1),
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
  transcript = run.transcript
  hint = [] if shown is None else transcript.hint(shown)
  prompt = [*transcript.first('', 'choose', 'choose'), *hint, *transcript.opener_ids]
  word = run.tokenizer.encode(said, add_special_tokens=False)
  return likelihood(run, params, prompt, word)


def likelihood(run: Run, params, prompt: list[int], said: list[int]) -> float:
  """Probability of the tokens `said` after a prompt, in a row as long as any."""
  ids = np.array([*prompt, *said], np.int32)
  row = np.pad(ids, (0, 24 - ids.size))[None]
  places = np.arange(24, dtype=np.int32)[None]
  score = Scorer(run.shape.policy, run.mesh)(params, {
      'tokens': row, 'positions': places,
      'segment_ids': (places < ids.size).astype(np.int32),
  })
  return float(np.exp(score[0, len(prompt) : ids.size].sum()))
