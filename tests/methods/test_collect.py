"""Waves of trees: saved as they grow, kept when complete, not repeated."""

import contextlib
import dataclasses
import gc
import weakref

import pytest

from leafe_jax import hosts
from leafe_jax.config import Explore
from leafe_jax.learner.metrics import Nowhere
from leafe_jax.methods import collect
from leafe_jax.progress import Progress
from leafe_jax.rollout.grow import Limits
from leafe_jax.rollout.ledger import Ledger, total
from leafe_jax.tree import SCHEMA_VERSION, Tree, dump_json
from tests.evaluation import runs as evaluated
from tests.rollout import corridor

CONFIG = dataclasses.replace(Explore(), num_roots=1, reflect_every=0, wave_tasks=2)


def gather(directory, answer):
  player = corridor.player(answer)
  tasks = player.world.tasks('train')
  bill = collect.collect(
      'explore', directory, player, tasks, CONFIG, lambda task: Limits(3, 0), 4,
      Nowhere(),
  )
  trees = collect.load_trees(directory)
  assert [tree.task_id for tree in trees] == [task.id for task in tasks]
  assert bill == total(tree.budget for tree in trees) and bill.episodes > 0
  return trees


def right(text, request):
  return '<t1> go left' if '<failed>' in text else 'right'


def test_finished_waves_are_read_and_not_repeated(tmp_path):
  first = gather(tmp_path, right)

  def refuse(text, request):
    raise AssertionError('nothing is left to play')

  assert gather(tmp_path, refuse) == first
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'wave_0000.jsonl', 'wave_0001.jsonl'
  ]


def test_a_killed_wave_leaves_its_trees_as_far_as_they_had_grown(tmp_path):
  calls = []

  def die_later(text, request):
    calls.append(text)
    if len(calls) > 5:
      raise KeyboardInterrupt
    return right(text, request)

  with contextlib.suppress(KeyboardInterrupt):
    gather(tmp_path, die_later)
  [path] = tmp_path.iterdir()
  grown = [Tree.from_json(line) for line in path.read_text().splitlines()]
  assert path.name == 'growing_0000.jsonl'
  assert [len(tree.nodes[0].turns) for tree in grown] == [1, 1]
  (tmp_path / 'straight').mkdir()
  assert gather(tmp_path, right) == gather(tmp_path / 'straight', right)
  assert not (tmp_path / 'growing_0000.jsonl').exists()


def test_all_saves_of_a_growing_wave_write_a_few_times_the_wave(tmp_path, monkeypatch):
  written = []
  monkeypatch.setattr(
      collect, 'save_trees', lambda path, trees: written.append(trees[0].budget)
  )
  growing = collect._Growing(tmp_path, 0, Progress('explore', 1, 'task'))
  tree = Tree('t', '', 'train')
  for calls in range(1, 20_000):
    tree.budget = Ledger(model_calls=calls).as_dict()
    growing.see([tree])
  sizes = [budget['model_calls'] for budget in written]
  assert sum(sizes) < 6 * 20_000 and sizes[-1] > 20_000 / 1.3
  pairs = list(zip(sizes, sizes[1:], strict=False))
  slack = collect.ROUNDS_PER_SAVE
  assert all(later <= 1.25 * sooner + slack for sooner, later in pairs)


def test_a_tree_is_written_as_its_fields_and_nothing_else(tmp_path):
  tree = gather(tmp_path, right)[0]
  record = {'schema': SCHEMA_VERSION, **dataclasses.asdict(tree)}
  assert tree.to_json() == dump_json(record)
  tree.budget = {'episodes': Ledger}
  with pytest.raises(TypeError, match='type is of no JSON type'):
    tree.to_json()


def split(directory, wave, parts):
  """The same trees as several processes would have written them."""
  whole = directory / f'wave_{wave:04d}.jsonl'
  lines = whole.read_text().splitlines(keepends=True)
  whole.unlink()
  for host in range(parts):
    path = collect.wave_path(directory, wave, host)
    path.write_text(''.join(lines[hosts.part(len(lines), host, parts)]))


def test_the_files_of_several_processes_are_one_set(tmp_path):
  trees = gather(tmp_path, right)
  split(tmp_path, 0, 2)
  split(tmp_path, 1, 12)  # host 10 comes after host 9, and some have nothing
  assert collect.load_trees(tmp_path) == trees

  def refuse(text, request):
    raise AssertionError('nothing is left to play')

  assert gather(tmp_path, refuse) == trees


def test_a_wave_leaves_memory_when_it_is_written(tmp_path, monkeypatch):
  living, seen = weakref.WeakSet(), []
  grown = collect.explore

  def explore(*args):
    gc.collect()
    seen.append(len(living))
    trees = grown(*args)
    living.update(trees)
    return trees

  monkeypatch.setattr(collect, 'explore', explore)
  monkeypatch.setattr(Tree, '__hash__', object.__hash__)  # for the set
  gather(tmp_path, right)
  assert seen == [0, 0]


def test_what_a_wave_of_other_processes_grew_from_is_removed_with_it(tmp_path):
  (tmp_path / 'growing_0000.host3.jsonl').write_text('')
  gather(tmp_path, right)
  assert not list(tmp_path.glob('growing*'))


def test_a_wave_of_which_a_part_is_missing_is_explored_again(tmp_path):
  trees = gather(tmp_path, right)
  split(tmp_path, 0, 2)
  (tmp_path / 'wave_0000.host1.jsonl').unlink()
  assert gather(tmp_path, right) == trees
  assert not list(tmp_path.glob('wave_0000.host*'))


def test_of_the_groups_of_a_step_one_that_tells_something_is_shown(tmp_path):
  same = evaluated.sampled_tree('same', solved=4)
  apart = evaluated.sampled_tree('apart')
  for node in same.nodes:
    node.score = 1.0
  collect.show_group(tmp_path, 'grpo', 3, [same, apart])
  collect.show_group(tmp_path, 'grpo', 4, [same, same])
  collect.show_group(tmp_path, 'grpo', 5, [])
  place = tmp_path / 'groups' / 'grpo'
  found = {
      path.name: Tree.from_json(path.read_text()).task_id for path in place.iterdir()
  }
  assert found == {'episodes_0003.jsonl': 'apart', 'episodes_0004.jsonl': 'same'}
