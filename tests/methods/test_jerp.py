"""Rules: who proposes them, what becomes of them, what a run leaves behind."""

from __future__ import annotations

import dataclasses
import signal

import pytest

from leafe_jax import stops
from leafe_jax.config import Evaluate, Jerp
from leafe_jax.endings import RunStopped
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.memory.book import read_book
from leafe_jax.memory.rules import ADD, Edit, Pool, Rule
from leafe_jax.methods import jerp, reflector
from leafe_jax.methods.phases import evaluations
from leafe_jax.methods.reflector import Case, Proposal
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.sampler import Rules
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.tree import Node, Tree, Turn
from tests.methods import bandit
from tests.rollout import corridor
from tests.text.chat_tokenizers import CHATML, make_tokenizer

RULES = Rules(1.0, 8, ())
CONFIG = Jerp()


def opens(text, request):
  """Opens cell 1 when told by a rule, else walks on; reflects that it should."""
  if '<reflect>' in text:
    return '<t2> cell 1 go open'
  return 'open' if 'go open <use>' in text and 'cell 1 <act>' in text else 'right'


def played(player, notebook, tasks):
  return play_groups(player, tasks, 2, RULES, 8, 'jerp', notebook.recall)


def corridor_notebook(player, **options):
  config = dataclasses.replace(CONFIG, **options)
  return jerp.RuleNotebook(player.world, config, RULES, seed=0)


def door_one(player):
  return [task for task in player.world.tasks('train') if task.id == 'door-1']


def test_a_failure_becomes_a_rule_that_solves_the_task_in_the_next_step():
  player = corridor.player(opens)
  notebook, tasks = corridor_notebook(player), door_one(player)
  ledger = Ledger()
  first = played(player, notebook, tasks)
  assert not first[0].solved()
  figures = notebook.learn(1, tasks, first, player, ledger)
  assert figures['rules'] == 1 and ledger.reflections == 2
  assert notebook.recall(tasks[0]) == 'cell 1 go open'
  second = played(player, notebook, tasks)
  assert all(node.success for node in second[0].nodes)
  notebook.learn(2, tasks, second, player, ledger)
  [rule] = notebook.book.top('corridor', 9)
  # Added by one failure, said again by the other, and both successes followed.
  assert (rule.score, rule.n_used, rule.last_used) == (4.0, 1, 2)
  assert rule.provenance == ['step 1 door-1 episode 0']
  assert 'end: opened' in notebook.book.references['corridor'][0]


def test_rules_stand_in_the_prompt_once_before_the_first_observation():
  player = corridor.player(opens)
  notebook, tasks = corridor_notebook(player), door_one(player)
  for text in ('go open', 'go left'):
    notebook.book.pool('corridor').apply(Edit(ADD, (), text), 1)
  node = played(player, notebook, tasks)[0].nodes[0]
  spelt = player.transcript.text(node.turns[0].prompt_ids)
  assert spelt == '<bos> <hint> go open <use> <hint> go left <use> <t1> cell 0'
  assert not any(turn.hinted for turn in node.turns)


def test_the_reflector_is_shown_the_episode_without_rules():
  asked = []

  def watch(text, request):
    if '<reflect>' in text:
      asked.append(text)
    return opens(text, request)

  player = corridor.player(watch, horizon=2)
  notebook, tasks = corridor_notebook(player), door_one(player)
  notebook.book.pool('corridor').apply(Edit(ADD, (), 'go left'), 1)
  groups = played(player, notebook, tasks)
  notebook.learn(1, tasks, groups, player, Ledger())
  assert asked[0] == (
      '<bos> <t1> cell 0 <act> right <end> <t2> cell 1 <act> right <end> '
      '<t3> cell 2 <reflect> <failed>'
  )


@pytest.mark.parametrize(
    ('key', 'known', 'unknown'), [('task', 1, 0), ('type', 1, 1), ('all', 1, 1)]
)
def test_pools_are_keyed_by_task_or_type_or_shared(key, known, unknown):
  player = corridor.player(opens)
  notebook, tasks = corridor_notebook(player, key=key), door_one(player)
  groups = played(player, notebook, tasks)
  notebook.learn(1, tasks, groups, player, Ledger())
  other = player.world.tasks('train')[0]
  assert len(notebook.working_set(tasks[0])) == known
  assert len(notebook.working_set(other)) == unknown


def test_a_frozen_pool_stays_as_it_is():
  player = corridor.player(opens)
  notebook, tasks = corridor_notebook(player, freeze_after=1), door_one(player)
  groups = played(player, notebook, tasks)
  notebook.learn(1, tasks, groups, player, Ledger())
  before, ledger = notebook.book.to_json(), Ledger()
  notebook.learn(2, tasks, groups, player, ledger)
  assert notebook.book.to_json() == before
  assert ledger == Ledger()


def test_random_rules_are_of_any_pool_and_win_no_votes():
  player = corridor.player(opens)
  notebook, tasks = corridor_notebook(player, choice='random'), door_one(player)
  notebook.book.pool('elsewhere').apply(Edit(ADD, (), 'go right'), 1)
  assert notebook.recall(tasks[0]) == 'go right'
  groups = played(player, notebook, tasks)
  notebook.learn(1, tasks, groups, player, Ledger())
  [rule] = notebook.book.pools['elsewhere'].rules.values()
  assert (rule.score, rule.n_used) == (2.0, 0)


def test_lines_that_cannot_be_applied_are_logged_with_the_reason():
  player = corridor.player(opens)
  notebook = corridor_notebook(player, merge=False, max_edits=3)
  pool = Pool(jerp.limits_of(CONFIG))
  lines = ['nonsense', 'MERGE | 1, 2 | x', 'ADD | | a', 'ADD | | b', 'ADD | | c',
           'ADD | | d']
  counts = notebook._edit(pool, [Proposal(line, ('x',)) for line in lines], 1)
  assert counts == (3, 6)
  assert [(r['line'], r['reason']) for r in pool.log if r['op'] == 'NO-OP'] == [
      ('nonsense', 'not of the form "OP | ids | text": \'nonsense\''),
      ('MERGE | 1, 2 | x', 'MERGE is switched off'),
      ('ADD | | d', 'more than 3 edits'),
  ]


def episode(number, response, success):
  turn = Turn(1, 'seen', [1], [2], [3], [-0.1], response, response)
  return Node(number, None, 1, None, 0, [turn], success, ended_by='terminated',
              final_observation='the end')


def test_votes_follow_the_outcomes_of_those_who_followed():
  rules = [Rule(i, text, 2.0, 1) for i, text in
           enumerate(['fit click a', 'all click buy', 'no click next', 'pick'], 1)]
  group = Tree('t', 'task', 'train', [
      episode(0, 'click a', False), episode(1, 'click a', True),
      episode(2, 'click buy', False), episode(3, 'ick', False),
  ])
  assert [edit.line() for edit in reflector.votes(rules, group)] == [
      'UPVOTE | 1 | ', 'DOWNVOTE | 2 | '
  ]


def test_a_chat_model_is_asked_for_edits_in_the_rule_grammar():
  tokenizer = make_tokenizer(CHATML)
  transcript = ChatTranscript(tokenizer)
  prompts = []

  def answer(text, request):
    prompts.append(tokenizer.decode(list(request.state)))
    return 'UPVOTE | 1 |\n\n ADD | | Search for the colour too.\nThat is all.'

  player = corridor.player(answer)
  player = dataclasses.replace(player, transcript=transcript)
  player.sampler.transcript = transcript
  group = Tree('t', 'a red shirt', 'train',
               [episode(0, 'click a', True), episode(1, 'click b', False)])
  task = dataclasses.replace(player.world.tasks('train')[0], instruction='a red shirt')
  case = Case(task, group, [Rule(1, 'Look twice.', 2.0, 1)], [], ['earlier win'])
  ledger = Ledger()
  [found] = reflector.propose(player, [case], CONFIG, RULES, 1, ledger)
  assert [p.line for p in found] == [
      'UPVOTE | 1 |', 'ADD | | Search for the colour too.', 'That is all.'
  ]
  for shown in ('a red shirt', '1 [2] Look twice.', 'earlier win',
                'succeeded:\n1. seen -> click a\nend: the end',
                'failed:\n1. seen -> click b', 'at most 4 edits', 'MERGE |'):
    assert shown in prompts[0]
  without = dataclasses.replace(CONFIG, merge=False)
  assert 'MERGE' not in reflector.prompt(case, without)
  assert ledger.reflections == 1 and ledger.reflection_tokens > 0


def test_the_grammar_needs_a_chat_model():
  player = corridor.player(opens)
  config = dataclasses.replace(CONFIG, reflector='grammar')
  with pytest.raises(RunStopped, match='jerp.reflector=reflections'):
    reflector.propose(player, [], config, RULES, 1, Ledger())


def test_a_run_leaves_a_readable_book_and_goes_on_from_a_checkpoint(
    tmp_path, monkeypatch
):
  """A fresh policy reflects in gibberish: all of it is logged, none applied."""
  options = dataclasses.replace(bandit.GRPO, steps=3, checkpoint_every=1)
  book = []
  for name in ('straight', 'killed'):
    run = bandit.make_run(tmp_path / name, grpo=options)
    directory = run.directory.phase('jerp').dir
    if name == 'killed':
      with monkeypatch.context() as patch:
        patch.setattr(jerp.RuleNotebook, 'learn', _die_in(3, jerp.RuleNotebook.learn))
        with pytest.raises(KeyboardInterrupt):
          jerp.jerp(run, directory)
    jerp.jerp(run, directory)
    book.append(read_book(directory, jerp.limits_of(CONFIG)).to_json())
    assert run.directory.phase('jerp').dir.joinpath('rules.json').exists()
  assert book[0] == book[1]
  [pool] = book[0]['pools'].values()
  assert pool['log'] and book[0]['step'] == 3


def test_a_run_that_is_asked_to_stop_while_it_learns_loses_no_step(
    tmp_path, monkeypatch
):
  options = dataclasses.replace(bandit.GRPO, steps=3, checkpoint_every=5)
  found = []
  for name in ('straight', 'stopped'):
    run = bandit.make_run(tmp_path / name, grpo=options)
    directory = run.directory.phase('jerp').dir
    if name == 'stopped':
      with monkeypatch.context() as patch:
        patch.setattr(reflector, 'ask', _stop_in(3, reflector.ask))
        with pytest.raises(stops.Stopped, match='jerp saved after step 2 of 3'):
          jerp.jerp(run, directory)
    result = jerp.jerp(run, directory)
    book = read_book(directory, jerp.limits_of(CONFIG)).to_json()
    found.append((result, book, _weights(directory)))
  assert found[0] == found[1]


def _stop_in(call, ask):
  calls = []

  def stopping(*arguments):
    calls.append(0)
    if len(calls) == call:
      raise stops.Stopped(signal.SIGTERM, 'what was finished before is saved')
    return ask(*arguments)

  return stopping


def _weights(directory):
  return {
      name: value.tobytes() for name, value in load_params(directory / 'params').items()
  }


def _die_in(last, learn):
  def dying(self, step, *rest):
    if step == last:
      raise KeyboardInterrupt
    return learn(self, step, *rest)

  return dying


def test_learnt_rules_are_in_the_prompts_of_the_evaluation_if_wanted(tmp_path):
  for at_test in (True, False):
    run = bandit.make_run(
        tmp_path / str(at_test), jerp=dataclasses.replace(CONFIG, at_test=at_test)
    )
    notebook = jerp.notebook_of(run)
    notebook.book.pool('bandit').apply(Edit(ADD, (), 'choose right'), 1)
    notebook.save(run.directory.phase('jerp').dir)
    task = run.world.tasks('test')[0]
    assert jerp.memory_at_test(run)(task) == ('choose right' if at_test else '')


def test_the_evaluation_depends_on_the_options_of_its_arm():
  [arm] = jerp.ARMS
  (phase,) = evaluations(arm, Evaluate())
  assert 'jerp' in phase.after and 'evaluate.split' in phase.reads
  assert {'grpo', 'jerp'} <= set(arm.phases[0].reads)
