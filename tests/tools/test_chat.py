"""The program that shows a checkpoint act, as a person runs it."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from absl import flags

from leafe_jax import settings
from leafe_jax.config import Env, Experiment, Mesh, Policy
from leafe_jax.learner.checkpoints import save_params
from leafe_jax.methods.run import Run
from leafe_jax.policy import hf_export, huggingface, model, sharding
from leafe_jax.rundir import RunDirectory
from leafe_jax.sampler import Rules
from leafe_jax.text import tokenizers
from tests.methods import bandit
from tests.rollout import corridor
from tests.text.chat_tokenizers import CHATML, make_tokenizer
from tools import chat

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLICY = Policy(
    num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16
)
CORRIDOR = '--env=tests.rollout.corridor:CorridorWorld'
EVIL = 'a\x1b]0;pwned\x07b\u202ec\udc80d'



def call(*arguments: str, typed: str = '') -> subprocess.CompletedProcess[str]:
  return subprocess.run(
      [sys.executable, '-m', 'tools.chat', *arguments],
      cwd=ROOT, input=typed, capture_output=True, text=True, check=False,
  )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """A random chat model over bytes."""
  place = tmp_path_factory.mktemp('checkpoint')
  tokenizer = make_tokenizer(CHATML)
  tokenizers.save_tokenizer(tokenizer, place / 'tokenizer')
  mesh, size = sharding.make_mesh(Mesh()), len(tokenizer)
  params = model.init_params(POLICY, size, jax.random.key(0), mesh)
  hf_export.write(
      place / 'hf', params, huggingface.Shape(POLICY, size), place / 'tokenizer',
      {'max_position_embeddings': 2048},
  )
  return place / 'hf'


@pytest.fixture(scope='module')
def rundir(tmp_path_factory):
  """A run of the bandit with random weights of one phase."""
  config = Experiment(
      env=Env('tests.methods.bandit:BanditWorld', horizon=2),
      policy=bandit.POLICY, sampler=bandit.SAMPLER,
  )
  directory = RunDirectory(tmp_path_factory.mktemp('run'))
  directory.save_config(settings.to_dict(config))
  run = Run(config, directory, '')
  key = jax.random.key(1)
  params = model.init_params(bandit.POLICY, run.shape.vocab_size, key, run.mesh)
  save_params(run.params_path('distill/leafe'), params)
  return directory.path


def test_a_person_goes_on_back_and_asks(checkpoint):
  typed = '\n:retry\n:prompt\n:reflect\n:undo\n:undo\n:what\n:prompt\n:quit\n\n'
  seen = call(f'--checkpoint={checkpoint}', CORRIDOR, '--max_tokens=12', typed=typed)
  assert seen.returncode == 0, seen.stderr
  assert not re.search(r'[^\n -~\u00a1-\uffff]', seen.stdout)
  head, first, again, prompt, answer, undone, refused, unknown, fresh, end = (
      seen.stdout.split('\n> ')
  )
  assert head == 'task:\n  door-0\n  door 0\nobservation:\n  cell 0'
  assert re.search(
      r'^12 tokens, log-probability -\d+\.\d{3} \(-\d+\.\d{3} a token\), '
      r'cut off by --max_tokens$', first, re.MULTILINE,
  )
  # Words of a random model are no action of the corridor.
  assert first.endswith('answer:\n  wall\nreward 0, score 0, not valid')
  assert first.startswith('step 1, response:') and again.startswith('step 1, response:')
  assert first != again
  assert '<|im_start|>user' in prompt and 'Step 2' in prompt
  assert prompt.rstrip().endswith('<|im_start|>assistant')
  assert answer.startswith('reflection:') and 'error, attempt 2:' in answer
  assert undone == 'back before step 1, observation:\n  cell 0'
  assert refused == 'cannot undo 1 of 0 steps'
  assert unknown.startswith(':what') and ':reflect' in unknown
  assert 'Step 1' in fresh and 'Step 2' not in fresh and end == ''


def test_a_phase_of_a_run_knows_its_environment(rundir, tmp_path, capsys):
  arguments = (f'--checkpoint={rundir}', '--phase=distill/leafe', '--steps=9')
  seen = call(*arguments)
  assert seen.returncode == 0, seen.stderr
  assert 'task:\n  train-0\n' in seen.stdout
  assert re.search(r'over: (terminated|horizon), success', seen.stdout)
  # The seed alone decides what is drawn.
  watch = chat.open_watch(parsed(*arguments), tmp_path)
  chat.converse(watch, 9)
  assert capsys.readouterr().out == seen.stdout
  with pytest.raises(ValueError, match='--dtype is for a checkpoint'):
    chat.open_watch(parsed(*arguments, '--dtype=bfloat16'), tmp_path)
  with pytest.raises(ValueError, match='is over'):
    watch.step()


@pytest.mark.parametrize(('arguments', 'message'), [
    ((), '--env=NAME'),
    (('--env=chess',), "'chess'"),
    ((CORRIDOR, '--index=9'), '--index=9: the train split has 4 tasks'),
    ((CORRIDOR, '--temperature=-1'), 'temperature -1.0 is negative'),
    ((CORRIDOR, '--options={'), 'Expecting'),
    (('--phase=distill/leafe',), 'no weights of phase'),
])
def test_what_cannot_be_watched_is_refused_in_one_line(
    checkpoint, monkeypatch, tmp_path, arguments, message
):
  with pytest.raises((ValueError, OSError), match=re.escape(message)) as info:
    chat.open_watch(parsed(f'--checkpoint={checkpoint}', *arguments), tmp_path)
  assert '\n' not in str(info.value)


def parsed(*arguments):
  from absl import flags

  values = flags.FlagValues()
  chat.define_flags(values)
  values(['chat', *arguments])
  return values


def test_a_missing_directory_is_refused(tmp_path):
  place = tmp_path / 'nowhere'
  with pytest.raises(OSError, match='nowhere'):
    chat.open_watch(parsed(f'--checkpoint={place}', CORRIDOR), tmp_path)


def test_text_cannot_write_to_the_terminal(capsys):
  chat.show('answer', f'{EVIL}\n> fake')
  shown = capsys.readouterr().out
  assert shown == 'answer:\n  a\\x1b]0;pwned\\x07b\\u202ec\\udc80d\n  > fake\n'


def watch_of(answer, door=2, **options):
  player = dataclasses.replace(corridor.player(answer), **options)
  task = player.world.tasks('train')[door]
  return chat.Watch(player, task, Rules(), Rules())


def test_steps_back_and_forth_take_the_environment_along():
  words = iter(['right', 'right', 'left', 'right', 'open', 'open'])
  watch = watch_of(lambda text, request: next(words))
  for _ in range(3):
    watch.step()
  assert (watch.taken, watch.observation) == (3, 'cell 1')
  watch.undo()
  assert (watch.taken, watch.observation) == (2, 'cell 2')
  watch.step()
  watch.undo(2)
  assert (watch.taken, watch.observation) == (1, 'cell 1')
  watch.step()
  assert watch.episode.over and not watch.episode.node.success
  with pytest.raises(ValueError, match='is over'):
    watch.step()
  with pytest.raises(ValueError, match='cannot undo 3 of 2'):
    watch.undo(3)
  watch.undo()
  assert watch.observation == 'cell 1'


def test_a_reflection_is_read_as_in_exploration(capsys):
  watch = watch_of(
      lambda text, request: '<t1> go right' if '<reflect>' in text else 'open'
  )
  with pytest.raises(ValueError, match='no step'):
    watch.reflect()
  chat.obey('', watch)
  chat.obey(':reflect', watch)
  shown = capsys.readouterr().out
  assert 'over: terminated, success False' in shown
  assert 'go back to step 1\nexperience:\n  go right\n' in shown


def test_a_transcript_without_room_is_said(capsys):
  watch = watch_of(lambda text, request: 'right')
  watch.step()
  watch._player.sampler.max_length = 3
  chat.obey('\n', watch)
  assert 'step 2: overlong' in capsys.readouterr().out
  chat.obey(':undo', watch)


def test_weights_that_are_not_finite_are_named(checkpoint, tmp_path):
  mesh = sharding.make_mesh(Mesh())
  shape = huggingface.read_shape(str(checkpoint), Policy(checkpoint=str(checkpoint)))
  params = huggingface.load_params(str(checkpoint), shape, mesh)
  norm = params['final_norm_d'].at[0].set(jnp.nan)
  hf_export.write(
      tmp_path / 'out', {**params, 'final_norm_d': norm}, shape, checkpoint,
      {'max_position_embeddings': 2048},
  )
  values = parsed(f'--checkpoint={tmp_path / "out"}', CORRIDOR, '--max_tokens=8')
  with pytest.raises(huggingface.UnsupportedCheckpoint, match='norm.*holds NaN'):
    chat.open_watch(values, tmp_path / 'run')


@pytest.mark.parametrize(('named', 'kept'), [('', 1), ('webshop', 1), ('sokoban', 0)])
def test_a_run_acts_in_its_own_world_as_it_was(named, kept, monkeypatch):
  """Named or not: another one would have words that its policy does not know."""
  env = Env('webshop', {'view': 'compact'})
  run = types.SimpleNamespace(config=Experiment(env=env))
  monkeypatch.setattr(chat.export_hf, 'open_phase', lambda *_: run)
  values = flags.FlagValues()
  for name in ('env', 'options', 'phase', 'dtype'):
    flags.DEFINE_string(name, '', 'x', flag_values=values)
  flags.DEFINE_integer('max_length', 0, 'x', flag_values=values)
  values(['chat', f'--env={named}'])
  found = chat.of_phase('runs/x', values).config.env
  assert found.name == (named or 'webshop')
  assert found.options == (env.options if kept else {})
