"""A run refuses a checkpoint that cannot talk before it reads its weights."""

import dataclasses
import json

import numpy as np
import pytest

from leafe_jax import settings
from leafe_jax.config import Env, Experiment, Policy, Sampler
from leafe_jax.endings import RunStopped
from leafe_jax.methods.run import Run
from leafe_jax.rundir import RunDirectory
from leafe_jax.tree import Turn
from tests import chat_checkpoint
from tests.methods import bandit

SAMPLER = Sampler(
    page_size=16, num_pages=512, max_rows=4, dispatch_rows=4, prefill_buckets=(64,),
    length_buckets=(512,),
)


def make_run(tmp_path, family='qwen2.5', policy=None, **fields):
  checkpoint = tmp_path / family
  if not checkpoint.exists():
    chat_checkpoint.write(checkpoint, family, **fields)
  config = Experiment(
      env=Env(name='sokoban', options={'view': 'text'}),
      policy=Policy(checkpoint=str(checkpoint), max_length=512, **(policy or {})),
      sampler=SAMPLER,
  )
  return Run(config, RunDirectory(tmp_path / 'run'), 'no hash'), checkpoint


def test_a_chat_checkpoint_is_accepted(tmp_path):
  run, _ = make_run(tmp_path)
  run.check()
  kept = json.loads((run.directory.path / 'chat_template.json').read_text())
  assert kept['opener'] == '<|im_end|>\n<|im_start|>assistant\n'


def test_a_template_that_cannot_work_stops_the_run_before_weights_are_read(tmp_path):
  run, checkpoint = make_run(tmp_path)
  (checkpoint / 'chat_template.jinja').write_text("{{ raise_exception('no chats') }}")
  (checkpoint / 'model.safetensors').unlink()
  with pytest.raises(RunStopped, match=r'policy.checkpoint=.*no chats'):
    run.check()


def test_variables_of_the_template_reach_the_policy(tmp_path):
  run, _ = make_run(
      tmp_path, 'qwen3', {'template': {'enable_thinking': False}}
  )
  text = run.tokenizer.decode(run.transcript.opener_ids)
  assert text.endswith('<think>\n\n</think>\n\n')
  again, _ = make_run(tmp_path, 'qwen3', {'template': {'enable_thinking': True}})
  with pytest.raises(RunStopped, match='not the one that the run began with'):
    again.check()


def test_a_misspelt_variable_stops_the_run(tmp_path):
  run, _ = make_run(tmp_path, 'qwen3', {'template': {'enable_thought': False}})
  with pytest.raises(RunStopped, match='policy.template.enable_thought'):
    run.check()


def test_prompts_of_a_file_reach_the_policy_and_stay(tmp_path):
  words = tmp_path / 'words.toml'
  words.write_text("next = 'Turn {turn}: {observation}'")
  run, _ = make_run(tmp_path, policy={'prompts': str(words)})
  assert 'Turn 2: go' in run.tokenizer.decode(run.transcript.next(2, 'go'))
  words.write_text("next = '{turn}. {observation}'")
  again, _ = make_run(tmp_path, policy={'prompts': str(words)})
  with pytest.raises(RunStopped, match='not the prompts that the run began with'):
    again.check()


def test_the_last_turns_alone_are_shown_if_the_config_says_so(tmp_path):
  run, _ = make_run(tmp_path, policy={'history_turns': 2})
  run.check()
  window = run.player({'embed_vd': np.zeros((run.shape.vocab_size, 1))}, 0).window
  past = [Turn(i, f'page {i}', [], [], [], [], '', 'go') for i in (1, 2, 3)]
  text = run.tokenizer.decode(window('Rules.', 'Task.', '', past, 'page 4'))
  assert [i for i in range(1, 5) if f'page {i}' in text] == [2, 3, 4]


def test_a_history_that_cannot_be_shown_stops_the_run(tmp_path):
  with pytest.raises(settings.ConfigError, match='policy.history_turns is -1'):
    settings.from_config_dict({'policy': {'history_turns': -1}})
  policy = dataclasses.replace(bandit.POLICY, history_turns=2)
  run = bandit.make_run(tmp_path / 'words')
  run.config = dataclasses.replace(run.config, policy=policy)
  with pytest.raises(RunStopped, match='history_turns=2: only a checkpoint') as error:
    run.check()
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('ids', [[1, 100_000], list(range(9))])
def test_ends_that_no_response_can_have_stop_the_run(tmp_path, ids):
  run, checkpoint = make_run(tmp_path)
  path = checkpoint / 'generation_config.json'
  path.write_text(json.dumps({'eos_token_id': ids}))
  with pytest.raises(RunStopped, match='generation_config.json'):
    run.check()


def test_all_ends_of_the_checkpoint_end_a_response(tmp_path):
  run, checkpoint = make_run(tmp_path)
  path = checkpoint / 'generation_config.json'
  path.write_text(json.dumps({'eos_token_id': [2, 7]}))
  run.check()
  assert set(run.transcript.stop_ids) >= {2, 7}


def test_options_are_part_of_the_recorded_config():
  policy = Policy(template={'enable_thinking': False}, prompts='words.toml')
  config = dataclasses.replace(Experiment(), policy=policy)
  again = settings.from_config_dict(settings.to_dict(config))
  assert again.policy == policy
