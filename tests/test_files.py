"""Whatever a page, a program or a policy wrote, a file gives it back."""

import dataclasses
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from leafe_jax import files
from leafe_jax.methods import collect
from leafe_jax.methods.assess import load_outcomes
from leafe_jax.rollout.evaluate import TaskOutcome
from leafe_jax.tree import Node, Reflection, Tree, Turn

# Ends of lines to Python, not to JSON; the last ones are no text at all.
SEPARATORS = '\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r\n'
TEXT = st.text(st.one_of(st.sampled_from(SEPARATORS), st.characters(codec='utf-8')))


def _tree(text):
  turn = Turn(1, text, [1], [2], [3], [-0.5], text, text, error=text)
  node = Node(0, None, 1, text, 0, [turn], final_observation=text, error=text)
  node.reflections.append(Reflection(1, True, text, 1, text, text))
  return Tree(text, text, 'train', [node])


@hypothesis.given(texts=st.lists(TEXT, min_size=1, max_size=3))
def test_trees_come_back_whatever_their_texts_hold(texts, tmp_path_factory):
  directory = tmp_path_factory.mktemp('trees')
  trees = [_tree(text) for text in texts]
  lines = ''.join(tree.to_json() + '\n' for tree in trees)
  files.write_atomic(collect.wave_path(directory, 0), lines)
  assert collect.load_trees(directory) == trees


@hypothesis.given(name=TEXT)
def test_outcomes_come_back_whatever_their_tasks_are_called(name, tmp_path_factory):
  directory = tmp_path_factory.mktemp('outcomes')
  outcome = TaskOutcome(name, [1], [0.5], [3], {})
  line = json.dumps(dataclasses.asdict(outcome), ensure_ascii=False)
  files.write_atomic(directory / 'wave_0000.jsonl', line + '\n')
  assert load_outcomes(directory) == [outcome]


def test_records_are_read_as_they_are_asked_for(tmp_path):
  path = tmp_path / 'lines.jsonl'
  files.write_pieces(path, (f'{number}\n\n'.encode() for number in range(3)))
  with open(path, 'ab') as file:
    file.write(b'{"cut": ')
  found = files.stream_records(path, str)
  assert [next(found) for _ in range(3)] == ['0', '1', '2']
  with pytest.raises(files.DamagedFile, match='line 4: not what was written'):
    next(found)
  assert not list(tmp_path.glob('*.partial'))
