"""Evaluation as a phase: its options reach the sampler."""

from __future__ import annotations

import dataclasses
import json

import pytest

from envs import api
from leafe_jax import config as config_lib
from leafe_jax.evaluation import results
from leafe_jax.files import DamagedFile
from leafe_jax.methods import assess as assess_lib
from leafe_jax.methods import study
from leafe_jax.methods.assess import (
  _is_assessed,
  assess,
  load_episodes,
  load_outcomes,
  rules_of,
)
from leafe_jax.rollout.evaluate import TaskOutcome
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.text.transcript import WordTranscript
from tests.methods import bandit

EVALUATE = config_lib.Evaluate(num_samples=16, wave_tasks=6)


def test_all_options_of_sampling_are_rules():
  config = dataclasses.replace(
      EVALUATE, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, stop_strings=('</a>',)
  )
  assert rules_of(config, 7, (1, 2)) == Rules(
      temperature=0.5, max_tokens=7, stop_ids=(1, 2), top_k=3, top_p=0.9, min_p=0.1,
      stop_strings=('</a>',),
  )


def test_a_filter_counts_in_what_is_evaluated(tmp_path):
  run = bandit.make_run(tmp_path / 'run')

  def turns(config: config_lib.Evaluate, name: str) -> set[tuple[int, ...]]:
    directory = run.directory.phase(name).dir
    tasks = run.tasks('test', 6)
    found = assess(name, directory, run.base_player(), tasks, config, 1, 32)
    return {tuple(outcome.turns) for outcome in found}

  greedy = turns(dataclasses.replace(EVALUATE, top_k=1), 'one')
  assert all(len(set(of_task)) == 1 for of_task in greedy)
  assert any(len(set(of_task)) > 1 for of_task in turns(EVALUATE, 'all'))


def test_a_word_level_response_ends_with_a_stop_string_and_is_closed(tmp_path):
  run = bandit.make_run(tmp_path / 'run')
  # The bandit's own lets every word end a response.
  transcript = run.__dict__['transcript'] = WordTranscript(run.tokenizer)
  config = dataclasses.replace(EVALUATE, stop_strings=bandit.WORDS)
  rules = rules_of(config, 4, transcript.stop_ids)
  trees = play_groups(run.base_player(), run.tasks('test', 6), 16, rules, 32, 'test')
  episodes = [node.turns for tree in trees for node in tree.nodes]
  cut = [turns for turns in episodes
         if len(turns) > 1 and turns[0].response in bandit.WORDS]
  assert any(turns[0].response_ids[-1] not in transcript.stop_ids for turns in cut)
  for first, second, *_ in cut:
    whole = [*first.response_ids, *second.prompt_ids]
    assert sum(i in transcript.stop_ids for i in whole) == 1
    assert len(first.response.split()) == 1


def test_runs_that_were_sampled_differently_are_not_pooled(tmp_path):
  runs = [
      bandit.make_run(
          tmp_path / str(k), evaluate=dataclasses.replace(EVALUATE, top_k=k)
      )
      for k in (0, 5)
  ]
  with pytest.raises(ValueError, match='evaluate.top_k 0 and 5'):
    study.write_pooled(runs, tmp_path / 'out', 'no hash')


def kept_run(directory, name='evaluate/base', tasks=6, **options):
  """(the phase's directory, the outcomes); evaluated in waves of four tasks."""
  run = bandit.make_run(directory)
  config = dataclasses.replace(EVALUATE, num_samples=8, wave_tasks=4, **options)
  place = run.directory.phase(name).dir
  found = assess(
      name, place, run.base_player(), run.tasks('test', tasks), config, 1, 32
  )
  return place, found


def contents(place):
  return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def test_transcripts_of_solved_and_failed_episodes_lie_beside_the_counts(tmp_path):
  place, outcomes = kept_run(tmp_path)
  assert list(contents(place)) == [
      'episodes_0000.jsonl', 'episodes_0001.jsonl', 'wave_0000.jsonl',
      'wave_0001.jsonl',
  ]
  trees = list(load_episodes(place))
  assert [tree.task_id for tree in trees] == [outcome.task_id for outcome in outcomes]
  for tree, outcome in zip(trees, outcomes, strict=True):
    first = {outcome.successes.index(success) for success in set(outcome.successes)}
    assert {node.id for node in tree.nodes} == first
    for node in tree.nodes:
      assert len(node.turns) == outcome.turns[node.id]
      assert node.ended_by in outcome.ended_by
      assert all(turn.response_ids for turn in node.turns)
    assert sum(outcome.ended_by.values()) == 8
  assert any(outcome.invalid_turns for outcome in outcomes)
  assert {len(tree.nodes) for tree in trees} == {1, 2}


def test_none_is_kept_where_none_is_wanted_and_the_counts_are_the_same(tmp_path):
  place, outcomes = kept_run(tmp_path / 'none', keep_episodes=0)
  assert list(contents(place)) == ['wave_0000.jsonl', 'wave_0001.jsonl']
  assert not list(load_episodes(place))
  assert outcomes == kept_run(tmp_path / 'some')[1]


def test_a_run_killed_between_transcripts_and_counts_ends_with_the_same_bits(
    tmp_path, monkeypatch
):
  whole, _ = kept_run(tmp_path / 'whole')
  write = assess_lib.write_atomic

  def stop(path, content):
    if path.name == 'wave_0001.jsonl':
      raise KeyboardInterrupt
    write(path, content)

  monkeypatch.setattr(assess_lib, 'write_atomic', stop)
  with pytest.raises(KeyboardInterrupt):
    kept_run(tmp_path / 'killed')
  monkeypatch.setattr(assess_lib, 'write_atomic', write)
  killed = tmp_path / 'killed' / 'evaluate' / 'base'
  assert set(contents(killed)) == set(contents(whole)) - {'wave_0001.jsonl'}
  (killed / 'episodes_0001.jsonl').write_text('{"schema": 1, "task_id": "to')
  assert contents(kept_run(tmp_path / 'killed')[0]) == contents(whole)


@pytest.mark.parametrize('content', [
    b'{"schema": 1, "task_id": "a', b'\xff\xfe', b'[1]\n', b'{"schema": 2}\n',
    b'{"schema": 1, "nodes": [{}]}\n', b'{"schema": 1}\n',
])
def test_transcripts_that_are_damaged_are_refused_by_name(tmp_path, content):
  (tmp_path / 'episodes_0003.jsonl').write_bytes(content)
  with pytest.raises(DamagedFile, match=r'episodes_0003.*; remove it') as stopped:
    list(load_episodes(tmp_path))
  assert '\n' not in str(stopped.value)


def test_a_wave_that_was_cut_short_or_lost_its_transcripts_is_played_again(tmp_path):
  tasks = [api.Task(name, 'do', 'test') for name in 'ab']
  config = config_lib.Evaluate(num_samples=1, keep_episodes=1)
  path = tmp_path / 'wave_0000.jsonl'
  lines = [
      json.dumps(dataclasses.asdict(TaskOutcome(t.id, [1], [1.0], [3], {}, '', '')))
      for t in tasks
  ]
  path.write_text('\n'.join(lines) + '\n')
  assert not _is_assessed(path, tasks, config)  # without transcripts
  assert _is_assessed(path, tasks, dataclasses.replace(config, keep_episodes=0))
  (tmp_path / 'episodes_0000.jsonl').write_text('')
  assert _is_assessed(path, tasks, config)
  for text in (lines[0] + '\n', '\n'.join(lines)[:-3], '', '[]\n'):
    path.write_text(text)
    assert not _is_assessed(path, tasks, config)


def test_outcomes_from_before_endings_were_counted_say_nothing_of_them(tmp_path):
  old = {'task_id': 'a', 'successes': [1], 'scores': [1.0], 'turns': [3], 'budget': {}}
  (tmp_path / 'wave_0000.jsonl').write_text(json.dumps(old) + '\n')
  arm = results.compare([results.count('base', load_outcomes(tmp_path), 1.0)])
  figures = arm['arms']['base']
  assert figures['cut_off_share'] is None and figures['invalid_turn_share'] is None
  assert figures['ended_by'] == {} and not list(load_episodes(tmp_path))
