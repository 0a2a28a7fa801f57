"""The report is one page that needs nothing and runs no data as code."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from leafe_jax.evaluation import specimens, stage1, transcripts
from leafe_jax.evaluation.memories import Remembered
from leafe_jax.evaluation.report import render_report, write_report
from leafe_jax.evaluation.results import compare
from leafe_jax.evaluation.transcripts import Transcript, Transcripts
from leafe_jax.rollout.evaluate import TaskOutcome
from leafe_jax.tree import Tree
from tests.evaluation import runs

HOSTILE = '</script><script>console.error("run")</script><img src=x onerror="run()">'
_CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
    None,
)


class Page(html.parser.HTMLParser):
  """Collects the elements of a page and the text of its scripts."""

  def __init__(self, text: str):
    super().__init__()
    self.elements: list[tuple[str, dict[str, str | None]]] = []
    self.data: dict[str, str] = {}
    self._script: str | None = None
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag == 'script':
      self._script = dict(attrs).get('id')

  def handle_endtag(self, tag):
    if tag == 'script':
      self._script = None

  def handle_data(self, data):
    if self._script:
      self.data[self._script] = self.data.get(self._script, '') + data


def hostile_page() -> str:
  tree = runs.branching_tree(task_id=HOSTILE, lesson=HOSTILE)
  tree.instruction = tree.nodes[0].turns[0].observation = HOSTILE
  kept = runs.sampled_tree(HOSTILE)
  kept.nodes[1].turns[0].response = kept.nodes[1].final_observation = 60 * HOSTILE
  return render_report(
      runs.make_results(config_sha256=HOSTILE), [tree], HOSTILE, HOSTILE,
      transcripts=Transcripts([Transcript(HOSTILE, kept, 1, 8)], 1),
  )


@pytest.fixture(scope='module')
def text():
  return render_report(runs.make_results(), runs.all_trees(), 'seed: 3', 'a run')


def test_nothing_is_loaded_from_anywhere(text):
  assert not re.search(r'https?://|@import|url\(', text)
  for tag, attributes in Page(text).elements:
    assert tag not in ('iframe', 'object', 'embed', 'base')
    assert 'src' not in attributes
    assert (attributes.get('href') or '#').startswith(('#', 'data:'))
  assert "default-src 'none'" in text


def test_every_arm_comparison_and_ledger_is_shown(text):
  for words in ('base', 'rft', 'leafe', 'leafe − base', 'not significant', 'seed: 3',
                '12\u2009345', '1 min 01 s', 'TimeoutError', 'abababababab'):
    assert words in text


def test_trees_are_embedded_without_tokens_and_logprobs(text):
  trees = json.loads(Page(text).data['trees-data'])
  assert [tree['kind'] for tree in trees] == [
      'solved_by_branch', 'solved_by_root', 'unsolved'
  ]
  branch = trees[0]['nodes'][2]
  assert (branch['parent'], branch['tau'], branch['experience']) == (0, 2, 'choose b')
  assert branch['turns'][0]['hinted'] is True
  assert '777777' not in text and '123456789' not in text


def test_hostile_text_stays_text():
  page = Page(hostile_page())
  calm = Page(render_report(runs.make_results(), [runs.branching_tree()], 'c', 'n'))
  count = lambda p, tag: sum(name == tag for name, _ in p.elements)  # noqa: E731
  assert count(page, 'script') == count(calm, 'script')
  assert count(page, 'img') == 0
  assert json.loads(page.data['trees-data'])[0]['instruction'] == HOSTILE


def test_the_same_inputs_give_the_same_page(text):
  again = render_report(runs.make_results(), runs.all_trees(), 'seed: 3', 'a run')
  assert again == text


@pytest.mark.parametrize('figures', [None, stage1.describe([])])
def test_a_run_without_exploration_still_has_a_report(figures):
  results = runs.make_results(stage1=figures, budget=None, wall_s=None)
  text = render_report(results, [])
  assert 'id="browser"' not in text and 'id="stage1"' not in text


def test_the_report_says_where_the_time_of_rollouts_went():
  text = render_report(runs.make_results(), [])
  assert 'Where the rollouts' in text and '31.5' in text and '987' in text
  quiet = render_report(runs.make_results(speed=None), [])
  assert 'Where the rollouts' not in quiet


def test_files_are_written_into_a_new_directory(tmp_path):
  path = write_report(tmp_path / 'run' / 'report', runs.make_results(), [])
  assert path.name == 'index.html' and path.stat().st_size > 10_000
  assert (path.parent / 'passk.png').stat().st_size > 10_000


def test_chosen_trees_are_a_mix_that_fills_the_limit():
  makers = (runs.branching_tree, runs.root_tree, runs.lost_tree)
  trees = [makers[i % 3](task_id=f'task-{i}') for i in range(60)]
  chosen = specimens.choose_trees(trees, 20)
  kinds = [specimens.kind_of(tree) for tree in chosen]
  assert [kinds.count(kind) for kind in specimens.KINDS] == [10, 4, 6]
  scarce = [runs.branching_tree(), *(runs.lost_tree(f't{i}') for i in range(30))]
  assert len(specimens.choose_trees(scarce, 20)) == 20
  assert specimens.choose_trees(scarce, 99) == scarce


def test_the_page_stays_small_whatever_the_texts():
  tree = runs.branching_tree()
  tree.nodes[0].turns[0].observation = 'x' * 100_000
  part, number = specimens.encode_trees([tree] * 40, max_bytes=50_000)
  assert 0 < number < 40
  assert len(part.encode()) <= 50_000
  assert '(96000 more characters)' in part


def test_evaluated_episodes_are_shown_with_the_numbers_of_their_samples():
  text = render_report(
      runs.make_results(), [], transcripts=runs.make_transcripts(total=30)
  )
  found = json.loads(Page(text).data['transcripts-data'])
  assert [(record['arm'], record['id'], record['solved']) for record in found] == [
      ('base', 'test-0', 1), ('leafe', 'test-0', 6), ('base', 'test-1', 1),
      ('leafe', 'test-1', 6),
  ]
  failed, solved = found[0]['nodes']
  assert (failed['sample'], failed['success'], failed['ended_by']) == (
      0, False, 'horizon'
  )
  assert failed['turns'][1]['error'] == 'InvalidAction: ???'
  assert (solved['sample'], solved['success'], solved['final']) == (5, True, 'the end')
  assert 'Evaluated episodes' in text and '26 more pairs of arm and task' in text
  whole = render_report(runs.make_results(), [], transcripts=runs.make_transcripts())
  assert 'more pairs' not in whole and '777777' not in whole
  assert 'Evaluated' not in render_report(runs.make_results(), runs.all_trees())


def outcome(task_id, *successes):
  return TaskOutcome(task_id, list(successes), [], [], {})


def test_the_tasks_shown_are_those_that_some_samples_solve():
  base = [outcome(f't{i}', 0, int(i % 3 == 1)) for i in range(30)]
  same = [outcome(f't{i}', 1, 1) for i in range(30)]
  assert transcripts.choose_tasks({'base': base}, 4) == ['t1', 't7', 't16', 't22']
  never = [outcome(f't{i}', 0, 0) for i in range(30)]
  apart = transcripts.choose_tasks({'base': never, 'leafe': [*never[:29], same[29]]}, 1)
  assert apart == ['t29']  # one arm solves it, the other does not
  more = transcripts.choose_tasks({'base': base}, 12)
  assert len(more) == 12 and set(more) > {f't{i}' for i in range(1, 30, 3)}
  assert len(transcripts.choose_tasks({'base': same}, 8)) == 8
  assert transcripts.choose_tasks({'base': same[:3]}, 8) == ['t0', 't1', 't2']


def test_transcripts_find_room_or_are_counted_among_the_others(monkeypatch):
  monkeypatch.setattr('leafe_jax.evaluation.report.MAX_TRANSCRIPT_BYTES', 1500)
  text = render_report(
      runs.make_results(), [], transcripts=runs.make_transcripts(tasks=8, total=16)
  )
  shown = len(json.loads(Page(text).data['transcripts-data']))
  assert 0 < shown < 16 and f'{16 - shown} more pairs' in text


def test_half_a_surrogate_pair_in_an_error_is_escaped_and_read_back():
  tree = runs.lost_tree()
  tree.nodes[0].error = 'FileNotFoundError: \udcff.txt'
  assert Tree.from_json(tree.to_json().encode().decode()) == tree
  text = render_report(runs.make_results(), [tree])
  [found] = json.loads(Page(text.encode().decode()).data['trees-data'])
  assert found['nodes'][0]['error'] == tree.nodes[0].error


def test_how_episodes_ended_is_a_table():
  arms = [
      dataclasses.replace(arm, ended_by={'horizon': 24, 'terminated': 72})
      for arm in runs.make_arms()
  ]
  arms[1] = dataclasses.replace(arms[1], ended_by={})  # of an older evaluation
  results = runs.make_results(stage1=None)
  text = render_report({**results, **compare(arms, 20)}, [])
  assert text.count('<td class="num">25.0</td><td class="num">75.0</td>') == 2
  assert 'How episodes ended' not in render_report(results, [])


def _dump(page, profile):
  """(the document as the browser drew it, its log)."""
  done = subprocess.run(
      [
          _CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run',
          '--disable-background-networking', '--disable-component-update',
          '--disable-sync', '--disable-quic', f'--user-data-dir={profile}',
          '--enable-logging=stderr', '--virtual-time-budget=10000', '--dump-dom',
          page.as_uri(),
      ],
      capture_output=True, text=True, timeout=120, check=True,
  )
  return Page(done.stdout), done.stderr


def _drawn(page, tmp_path):
  """(the document, the classes of its elements)."""
  # A busy machine's browser may dump the document before any script ran.
  for attempt in range(3):
    drawn, log = _dump(page, tmp_path / f'profile{attempt}')
    classes = [attributes.get('class') or '' for _, attributes in drawn.elements]
    assert 'CONSOLE' not in log
    if 'curve' in classes:
      break
  return drawn, classes


@pytest.mark.skipif(_CHROMIUM is None, reason='chromium is not installed')
def test_it_opens_in_a_browser_without_errors_and_draws(tmp_path):
  page = tmp_path / 'index.html'
  page.write_text(hostile_page(), encoding='utf-8')
  drawn, classes = _drawn(page, tmp_path)
  assert classes.count('curve') == 3
  assert sum(name.split()[:1] == ['row'] for name in classes) == 4
  assert 'turns' in classes and 'hint' in classes
  assert not any('fold' in name for name in classes)
  assert not any(tag == 'img' for tag, _ in drawn.elements)


@pytest.mark.skipif(_CHROMIUM is None, reason='chromium is not installed')
def test_an_evaluated_episode_opens_in_a_browser_with_its_long_texts_folded(tmp_path):
  kept = runs.make_transcripts()
  kept.chosen[0].tree.nodes[1].turns[0].response = 60 * HOSTILE
  page = tmp_path / 'index.html'
  page.write_text(render_report(runs.make_results(), [], transcripts=kept), 'utf-8')
  drawn, classes = _drawn(page, tmp_path)
  assert sum(name.split()[:1] == ['row'] for name in classes) == 2
  assert classes.count('fold') == 1
  assert not any(tag == 'img' for tag, _ in drawn.elements)
  sources = [attributes for tag, attributes in drawn.elements
             if tag == 'button' and 'aria-pressed' in attributes]
  assert len(sources) >= 2  # the arms, and filters


def test_what_arms_learnt_in_words_is_shown_best_first():
  texts = [
      Remembered(f'lesson {n}', HOSTILE, f'door-{n} episode 0', f'utility {n}', n, n)
      for n in range(50)
  ]
  page = render_report(
      runs.make_results(), [], memories={'jerp': texts, 'ace': [], HOSTILE: texts[:1]})
  assert page.index('lesson 49') < page.index('lesson 10') and 'lesson 9<' not in page
  assert '40 of 50; all are in' in page and 'door-49 episode 0' in page
  assert HOSTILE not in page and page.count('<script') == plain_page().count('<script')


def plain_page() -> str:
  return render_report(runs.make_results(), [])


def test_without_memories_the_page_says_nothing_of_them():
  assert 'learnt in words' not in plain_page()


def test_attempts_in_sequence_are_a_table_with_and_without_memory():
  sides = {'with memory': [0.1, 0.525], 'without': [0.1, 0.2]}
  page = render_report({**runs.make_results(), 'discovery': {'retro': sides}}, [])
  assert 'Attempts in sequence' in page and '52.5' in page
