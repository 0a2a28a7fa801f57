"""R2-Mem: who judges, what is kept, what is shown at which turn, and resume."""

import dataclasses
import json
import types

import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from envs import api
from envs.vectors import WordVectors
from leafe_jax import config as config_lib
from leafe_jax.config import R2Mem
from leafe_jax.endings import RunStopped
from leafe_jax.memory.banks import PLANNING, REFLECTION, TURNS, Banks
from leafe_jax.methods import r2mem, r2mem_judge
from leafe_jax.methods.r2mem_judge import Court
from leafe_jax.methods.run import Run
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.samples import play_groups
from leafe_jax.rundir import RunDirectory
from leafe_jax.sampler import Rules
from leafe_jax.text.chat import ChatTranscript
from tests.methods import bandit
from tests.rollout import corridor
from tests.rollout.corridor import ScriptedSampler
from tests.text.chat_tokenizers import CHATML, make_tokenizer

RULES = Rules(1.0, 8, ())


def chat_player(answer):
  """A chat policy in the corridor; a token is a byte of what it reads."""
  player = corridor.player(answer)
  transcript = ChatTranscript(make_tokenizer(CHATML))

  def heard(text, request):
    return answer(text.replace(' ', '').replace('Ġ', ' ').replace('Ċ', '\n'), request)

  sampler = ScriptedSampler(transcript, heard)
  return dataclasses.replace(player, sampler=sampler, transcript=transcript)


def played(player, doors):
  tasks = [player.world.tasks('train')[door] for door in doors]
  groups = play_groups(player, tasks, 1, RULES, 4, 'x')
  return [(task, group.nodes[0]) for task, group in zip(tasks, groups, strict=True)]


def court_of(player, by_module=True, teacher=None, **options):
  config = R2Mem(**options)
  return Court(
      player, player.world, teacher, config, by_module, RULES, Banks(WordVectors), 1,
      Ledger(),
  )  # fmt: skip


def right_then_open(text, request):
  return 'open' if text.endswith('cell 1 <act>') else 'right'


def run_of(player, **options):
  config = config_lib.Experiment(r2mem=R2Mem(**options))
  return types.SimpleNamespace(
      config=config, world=player.world, transcript=player.transcript
  )


# --- judges


def test_verdicts_add_up_and_thresholds_keep_the_ends():
  """Three turns of 12, 7 and 4 points by hand: good, dropped, bad."""
  points = iter([(3, 3, 3, 3), (3, 2, 1, 1), (1, 1, 1, 1)])

  def answer(text, request):
    if 'Judge one step' in text:
      bank = PLANNING if 'step 1,' in text.split('Score')[1] else REFLECTION
      scores = dict(zip(r2mem_judge.RUBRICS[bank], next(points), strict=True))
      return f'Well: {json.dumps(scores)}'
    if 'Learn from one step' in text:
      verdict = 'good' if 'was judged good' in text else 'bad'
      return json.dumps({
          'thinking': '', 'summary': '', 'situation': f'a {verdict} place',
          'condition': 'always', 'experience': f'IF {verdict} THEN act',
      })
    return 'right'

  player = chat_player(answer)
  player = dataclasses.replace(player, horizon=3)
  court = court_of(player)
  judged = r2mem_judge.by_rubrics(court, played(player, [3]))
  assert [turn.points for turn in judged] == [12, 7, 4]
  kept = r2mem_judge.select(judged, court.config, True, False)
  assert [good for _, good in kept] == [True, False]
  assert r2mem_judge.learn(court, kept) == 2
  [plan], [other] = court.banks.banks[PLANNING], court.banks.banks[REFLECTION]
  assert (plan.good, plan.text) == (True, 'IF good THEN act')
  assert (other.good, other.points, other.key()) == (False, 4, '(a bad place) always')
  assert other.source == 'door-3 episode 0 turn 3'
  assert court.ledger.reflections == 3 + 2


@pytest.mark.parametrize(
    'said',
    ['none', '{}', '[3]', '{"progress": 4}', '{"progress": true}', '{"progress"'],
)
def test_a_verdict_that_cannot_be_read_is_asked_for_again_and_logged(said):
  player = chat_player(lambda text, request: said if 'Judge' in text else 'open')
  court = court_of(player, by_module=False)
  assert r2mem_judge.by_rubrics(court, played(player, [2])) == []
  assert len(court.banks.log) == 2 == court.ledger.reflections


def test_what_is_written_needs_a_situation_and_an_experience():
  with pytest.raises(ValueError, match='situation is None'):
    r2mem_judge.read_written('{"experience": "x"}')
  found = r2mem_judge.read_written(
      '{"experience": "x", "situation": "y", "condition": 3}'
  )
  assert found == {'experience': 'x', 'situation': 'y', 'condition': ''}


def test_the_judge_is_told_the_right_answer_and_the_agent_is_not():
  seen = []

  def answer(text, request):
    seen.append(text)
    return 'open'

  player = chat_player(answer)
  world = player.world
  world.reference = lambda task: 'THE SECRET'
  episodes = played(player, [2])
  assert not any('THE SECRET' in text for text in seen)
  r2mem_judge.by_rubrics(court_of(player), episodes)
  assert 'THE SECRET' in seen[-1]


def test_a_reflection_makes_the_turn_that_it_names_bad_experience():
  def answer(text, request):
    return '<t1> go right' if text.endswith('<failed>') else 'open'

  player = corridor.player(answer)
  court = court_of(player)
  judged = r2mem_judge.by_reflections(court, played(player, [0, 2]))
  kept = r2mem_judge.select(judged, court.config, True, True)
  assert r2mem_judge.learn(court, kept) == 1
  [found] = court.banks.banks[PLANNING]
  assert (found.text, found.situation, found.good) == ('go right', 'cell 0', False)


def test_a_script_agrees_with_a_turn_or_not():
  player = corridor.player(right_then_open)
  court = court_of(player, teacher=Script)
  judged = r2mem_judge.by_script(court, played(player, [1]))
  assert [(turn.points, turn.text) for turn in judged] == [
      (12, 'right'), (0, 'right')
  ]
  assert [turn.bank for turn in judged] == [PLANNING, REFLECTION]


# --- advice at each turn


def banks_of(bank, situation, text):
  banks = Banks(WordVectors)
  banks.add(bank, True, 12, situation, '', text, 'somewhere', 1)
  return banks


def advised(player, banks, door, by_module=True, **options):
  adviser = r2mem.Recollection(run_of(player, **options), banks, by_module)
  return played(dataclasses.replace(player, adviser=adviser), [door])


def test_experience_of_a_situation_solves_what_was_not_solved_and_is_gone_then():
  """The tiny task: a policy that opens a door only where it is told to."""
  def obeys(text, request):
    return 'open' if text.endswith('go open <use> <act>') else 'right'

  player = corridor.player(obeys)
  banks = banks_of(REFLECTION, 'cell 1', 'go open')
  [(_, without)] = played(player, [1])
  [(_, node)] = advised(player, banks, 1)
  assert (without.success, node.success) == (False, True)
  assert [turn.hinted for turn in node.turns] == [False, True]
  [(_, elsewhere)] = advised(player, banks_of(PLANNING, 'cell 1', 'go open'), 1)
  assert not elsewhere.success  # 'cell' alone brings it up at the first turn
  [(_, nothing)] = advised(player, banks, 1, shown=0)
  assert not nothing.success


def test_a_chat_policy_puts_its_situation_into_words_first():
  seen = []

  def answer(text, request):
    if 'Say in one sentence' in text:
      return 'a wall without doors'
    seen.append(text)
    return 'open'

  player = chat_player(answer)
  banks = banks_of(PLANNING, 'walls and doors', 'IF walls THEN climb')
  [(task, node)] = advised(player, banks, 2)
  assert seen and 'IF walls THEN climb' in seen[0]
  assert len(node.turns) == 1 and node.turns[0].hinted
  adviser = r2mem.Recollection(run_of(player), banks, True)
  first = api.History(task.instruction, ('o',), ())
  later = api.History(task.instruction, ('o', 'p'), ('right',))
  assert adviser.question(task, first) and not adviser.question(task, later)


def test_without_rewriting_nothing_is_asked():
  asked = []
  player = chat_player(lambda text, request: asked.append(text) or 'open')
  advised(player, banks_of(TURNS, 'cell', 'IF THEN'), 2, False, rewrite=False)
  assert len(asked) == 1


# --- the phase


class Script:
  """Always right."""

  correct = staticmethod(lambda history: 'right')
  advise = staticmethod(lambda history, action: f'{action}')


def collect(directory, **options):
  """A run of the bandit, its phase's place, and the phase."""
  section = R2Mem(**{'num_tasks': 6, 'tasks_per_step': 2, 'judge': 'script', **options})
  run = bandit.make_run(directory, r2mem=section)
  [phase] = r2mem.ARMS[0].phases
  return run, run.directory.phase('r2mem').dir, phase.body


def test_a_run_that_dies_goes_on_to_the_same_banks(tmp_path, monkeypatch):
  monkeypatch.setattr(Run, 'teacher', lambda self, **options: Script())
  run, whole, work = collect(tmp_path / 'whole')
  figures = work(run, whole)
  assert figures['experiences'] == figures['judged'] > 0
  assert figures['budget']['episodes'] == 6
  run, place, _ = collect(tmp_path / 'killed')
  learn, calls = r2mem_judge.learn, []

  def dying(*arguments):
    calls.append(1)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return learn(*arguments)

  monkeypatch.setattr(r2mem_judge, 'learn', dying)
  with pytest.raises(KeyboardInterrupt):
    work(run, place)
  monkeypatch.setattr(r2mem_judge, 'learn', learn)
  again = Run(run.config, RunDirectory(tmp_path / 'killed'), 'no hash')
  again.__dict__.update({name: run.__dict__[name] for name in ('world', 'transcript')})
  assert work(again, place) == figures
  for name in ('banks.md', 'state.json'):
    assert (place / name).read_bytes() == (whole / name).read_bytes()


def test_a_judge_that_is_not_to_be_had_is_refused_in_one_line(tmp_path):
  for options, message in (
      ({'judge': 'self'}, 'r2mem.judge=self needs a policy with a chat template'),
      ({'judge': 'script'}, 'has no scripted teacher'),
      ({'judge_params': 'D'}, 'judge_params=D needs r2mem.judge=self'),
  ):
    given = {'judge': 'auto', **options}
    run, _, _ = collect(tmp_path / str(len(message)), **given)
    with pytest.raises(RunStopped, match=message) as raised:
      r2mem.judge_of(run)
    assert '\n' not in str(raised.value)
