"""The test that every environment inherits.

In the spirit of dm_env's EnvironmentTestMixin: a test class of an environment
derives from `EnvironmentContract` and says how to make the world and what to do
in it; pytest finds the rest.

  class TestCorridor(EnvironmentContract):
    def world(self):
      return registry.make('corridor')
    def actions(self, task):
      return ['left', 'right', 'right']

`world` is called once a test; cache it where it is dear. Where an action costs a
process or a slow simulator's call, override `is_costly`; where a restore is slow
because episodes are short, lower `num_strange`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import random
from collections.abc import Iterator, Sequence

import pytest

from envs import api, malformed

STRANGE_ACTIONS = (
    '', ' ', '\n', '[', ']', '[]', 'a[b', 'x' * 5000, 'click[]', 'search[]',
    '\x00', 'é中🌸', '<action>', '((((', '{"a": 1}', '-1',
)  # fmt: skip


def play(session: api.TextEnv, actions: Sequence[str]) -> list[api.Step]:
  """Steps of `actions`, up to and including the one that ends the episode."""
  steps = []
  for action in actions:
    steps.append(session.step(action))
    if steps[-1].terminated or steps[-1].truncated:
      break
  return steps


def check_step(step: api.Step, world: api.World, task: api.Task) -> bool:
  """Whether a step ends its episode; BadStep unless it can be told and stored."""
  step = api.checked(step, world, task)
  json.dumps(dict(step.info))
  return step.terminated or step.truncated


def check_response(world: api.World, response: str) -> None:
  """Fails unless a response is read or refused as it should be."""
  try:
    assert isinstance(world.parse_response(response), str)
  except api.InvalidAction as refusal:
    message = str(refusal)  # the agent's feedback
  else:
    message = 'read'
  assert message


class EnvironmentContract:
  """Derive, and define `world`; `actions` makes the tests sharper.

  Attributes:
    num_strange: malformed actions to take.
    num_costly: how many of them may cost a process, see `is_costly`.
    num_admissible: admissible responses to take, each after a restore.
    texts_differ: whether an instruction names one task alone. Without, tasks of
      different splits may ask for the same in the same words, but share no id.
    strange_bout: malformed actions between two checks that nothing leaked.
  """

  num_strange = 10_000
  num_costly = 100
  strange_bout = 500
  num_admissible = 50
  texts_differ = True

  def world(self) -> api.World:
    """The world under test."""
    raise NotImplementedError

  def task(self, world: api.World) -> api.Task:
    """The task to play; the first one there is, unless overridden."""
    return next(t for split in api.SPLITS for t in world.tasks(split))

  def actions(self, task: api.Task) -> Sequence[str]:
    """Actions that visit different states; the last may end the episode."""
    del task
    return ('look', 'wait', 'look')

  def is_costly(self, action: str) -> bool:
    """Whether an action starts a process or bothers a slow simulator."""
    del action
    return False

  def strange_actions(self, task: api.Task) -> Iterator[str]:
    """`num_strange` malformed actions, at most `num_costly` of them costly."""
    costly = 0
    drawn = malformed.actions(self.actions(task))
    for _ in range(self.num_strange):
      action = next(a for a in drawn if costly < self.num_costly
                    or not self.is_costly(a))
      costly += self.is_costly(action)
      yield action

  def started(self) -> tuple[api.World, api.TextEnv, list[str]]:
    """A world, a session after reset, and what to do in it."""
    world = self.world()
    task = self.task(world)
    session = world.session()
    session.reset(task, seed=0)
    return world, session, list(self.actions(task))

  def test_the_same_actions_give_the_same_steps_in_two_sessions(self):
    world = self.world()
    task = self.task(world)
    runs = []
    for session in (world.session(), world.session()):
      first = session.reset(task, seed=0)
      runs.append([first, *play(session, self.actions(task))])
    assert runs[0] == runs[1]

  def test_every_answer_is_a_step_of_plain_types(self):
    world, session, actions = self.started()
    task = self.task(world)
    for step in (session.reset(task, seed=0), *play(session, actions)):
      check_step(step, world, task)

  def test_a_teacher_takes_what_a_run_gives_it_and_acts_in_words(self):
    world, session, _ = self.started()
    task = self.task(world)
    try:
      teachers = [world.teacher(), world.teacher(**api.FAULTLESS)]
    except NotImplementedError:
      pytest.skip('this world has no teacher')
    first = session.reset(task, seed=0).observation
    history = api.History(task.instruction, (first,), ())
    for teacher in teachers:
      assert isinstance(teacher, api.Teacher)
      action = teacher.act(history, random.Random(0))
      assert isinstance(action, str)
      assert isinstance(teacher.correct(history), str)
      assert isinstance(teacher.advise(history, action), str)

  def test_reset_starts_afresh(self):
    world, session, actions = self.started()
    task = self.task(world)
    play(session, actions)
    assert session.reset(task, seed=0) == world.session().reset(task, seed=0)
    expected = play(self.started()[1], actions)
    assert play(session, actions) == expected

  def test_a_restored_session_steps_as_the_original_did(self):
    _, session, actions = self.started()
    for index in range(len(actions)):
      snapshot = session.snapshot()
      expected = play(session, actions[index:])
      session.restore(snapshot)
      assert play(session, actions[index:]) == expected
      session.restore(snapshot)
      if len(expected) == 1:  # the next step ends the episode
        return
      session.step(actions[index])

  def test_a_snapshot_can_be_restored_often_and_after_other_branches(self):
    _, session, actions = self.started()
    snapshot = session.snapshot()
    expected = play(session, actions)
    for branch in (actions[1:], STRANGE_ACTIONS[:3], actions[::-1]):
      session.restore(snapshot)
      play(session, branch)
      session.restore(snapshot)
      assert play(session, actions) == expected

  def test_a_snapshot_does_not_change_while_a_branch_runs(self):
    _, session, actions = self.started()
    snapshot = session.snapshot()
    before = repr(snapshot.state)
    play(session, actions)
    assert repr(snapshot.state) == before

  def test_a_snapshot_restores_into_another_session_of_the_world(self):
    world, session, actions = self.started()
    session.step(actions[0])
    snapshot = session.snapshot()
    expected = play(session, actions[1:])
    for other in (world.session(), world.session()):
      other.restore(snapshot)
      assert play(other, actions[1:]) == expected

  def test_a_snapshot_that_can_travel_is_the_same_where_it_arrives(self):
    """Between processes; one that cannot is played again (`envs.remote`)."""
    world, session, actions = self.started()
    session.step(actions[0])
    snapshot = session.snapshot()
    try:
      travelled = pickle.loads(pickle.dumps(snapshot))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
      pytest.skip(f'its snapshots do not travel: {error}')
    expected = play(session, actions[1:])
    other = world.session()
    other.restore(travelled)
    assert play(other, actions[1:]) == expected

  def test_sessions_do_not_leak_into_each_other(self):
    world, session, actions = self.started()
    expected = play(self.started()[1], actions)
    other = world.session()
    other.reset(self.task(world), seed=0)
    steps = []
    for action in actions[: len(expected)]:
      steps.append(session.step(action))
      if other is not None:
        last = other.step(actions[-1])
        if last.terminated or last.truncated:
          other = None
    assert steps == expected

  @pytest.mark.parametrize('action', STRANGE_ACTIONS)
  def test_a_strange_action_is_answered_not_raised(self, action: str):
    _, session, _ = self.started()
    step = session.step(action)
    assert isinstance(step, api.Step)
    assert isinstance(step.observation, str)

  def test_ten_thousand_malformed_actions_leave_no_trace(self):
    """In bouts: each ends with a snapshot of wherever it led, to be restored."""
    world, session, actions = self.started()
    task = self.task(world)
    snapshot = session.snapshot()
    expected = play(session, actions)
    strange = self.strange_actions(task)
    while bout := tuple(itertools.islice(strange, self.strange_bout)):
      session.restore(snapshot)
      for action in bout[:-1]:
        check_response(world, action)
        if check_step(session.step(action), world, task):
          session.restore(snapshot)
      reached = session.snapshot()
      answer = session.step(bout[-1])
      check_step(answer, world, task)
      session.restore(reached)
      assert session.step(bout[-1]) == answer
      session.restore(snapshot)
      assert play(session, actions) == expected

  def test_admissible_responses_are_understood(self):
    world, session, _ = self.started()
    snapshot = session.snapshot()
    for response in session.admissible()[: self.num_admissible]:
      session.restore(snapshot)
      assert isinstance(response, str)
      assert session.step(world.parse_response(response)).valid, response

  def test_stepping_before_reset_raises_episode_over(self):
    session = self.world().session()
    with pytest.raises(api.EpisodeOver):
      session.step('look')
    with pytest.raises(api.EpisodeOver):
      session.snapshot()

  def test_stepping_after_the_end_raises_episode_over(self):
    _, session, actions = self.started()
    last = play(session, actions)[-1]
    if not (last.terminated or last.truncated):
      pytest.skip('these actions do not end the episode')
    assert {'success', 'score'} <= set(last.info) or last.truncated
    assert 0.0 <= last.score <= 1.0
    with pytest.raises(api.EpisodeOver):
      session.step(actions[0])

  def test_a_finished_episode_can_be_left_by_restoring(self):
    _, session, actions = self.started()
    snapshot = session.snapshot()
    expected = play(session, actions)
    session.restore(snapshot)
    assert play(session, actions) == expected

  def test_a_foreign_snapshot_is_refused(self):
    _, session, _ = self.started()
    foreign = dataclasses.replace(session.snapshot(), world='another world')
    with pytest.raises(api.SnapshotMismatch):
      session.restore(foreign)

  def test_a_snapshot_reports_its_size(self):
    _, session, _ = self.started()
    assert session.snapshot().num_bytes > 0

  def test_splits_share_no_text_and_no_id(self):
    world = self.world()
    seen: dict[str, str] = {}
    for split in api.SPLITS:
      for task in world.tasks(split):
        assert task.split == split
        assert task.instruction.strip()
        texts = (f'text {task.instruction}',) if self.texts_differ else ()
        for key in (f'id {task.id}', *texts):
          assert seen.get(key) is None, f'{key} in {seen.get(key)} and {split}'
          seen[key] = split
    assert seen

  def test_an_unknown_split_is_refused(self):
    with pytest.raises(ValueError, match='no such split'):
      self.world().tasks('no such split')

  def test_tasks_are_the_same_in_another_world(self):
    first, second = self.world(), self.world()
    for split in api.SPLITS:
      assert list(first.tasks(split)) == list(second.tasks(split))

  def test_closing_twice_does_no_harm(self):
    _, session, _ = self.started()
    session.close()
    session.close()
