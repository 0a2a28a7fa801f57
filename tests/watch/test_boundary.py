"""Whoever asks gets the runs and nothing else, and no text of a run is ever code."""

from __future__ import annotations

import html.parser
import re
import shutil
import socket
import subprocess

import pytest

from leafe_jax import command_line
from leafe_jax.watch.server import encode
from leafe_jax.watch.several import Runs
from tests.evaluation import runs
from tests.watch.live import PHASES, LiveRun, serving
from tools import watch

HOSTILE = '</script><script>console.error("run")</script><img src=x onerror="run()">'
_CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
    None,
)


@pytest.fixture(name='reader')
def _reader(tmp_path):
  live = LiveRun(tmp_path / 'run')
  live.grow([runs.root_tree()])
  (tmp_path / 'secret.jsonl').write_text(runs.lost_tree().to_json())
  with serving(live.path) as reader:
    yield reader


@pytest.mark.parametrize(
    'host', ['localhost', 'localhost:80', '127.0.0.1:8090', '[::1]:8090', '10.1.2.3']
)
def test_this_machine_may_be_called_by_its_addresses(reader, host):
  assert reader.ask('/api/state', host=host)[0] == 200


@pytest.mark.parametrize(
    'host', ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example:8090',
             '', '[::1', 'localhost@evil.example', '2130706433x'],
)  # fmt: skip
def test_another_name_is_refused_whatever_it_points_at(reader, host):
  for path in ('/', '/api/state', '/watch.js', '/report'):
    status, found = reader.ask(path, host=host)
    assert (status, found) == (403, {'error': 'this name is not known here'})


@pytest.mark.parametrize(
    'path',
    ['/../secret.jsonl', '/%2e%2e/secret.jsonl', '/api/../../secret.jsonl',
     '//etc/passwd', '/config.json', '/run/config.json', '/watch.py', '/api',
     '/templates/watch.js'],
)  # fmt: skip
def test_no_path_of_a_request_is_a_path_of_a_file(reader, path):
  assert reader.ask(path)[0] == 404


@pytest.mark.parametrize(
    'query',
    [
        {'run': 0, 'source': '..', 'file': 'secret.jsonl', 'line': 0},
        {'run': 0, 'source': 'explore', 'file': '../../secret.jsonl', 'line': 0},
        {'run': 0, 'source': 'explore', 'file': '/etc/passwd', 'line': 0},
        {'run': 0, 'source': 'explore', 'file': 'growing_0000.jsonl', 'line': 7},
        {'run': 0, 'source': 'explore', 'file': 'growing_0000.jsonl', 'line': '-1'},
        {'run': 0, 'source': 'explore', 'file': 'growing_0000.jsonl', 'line': '1e9'},
        {'run': 5, 'source': 'explore', 'file': 'growing_0000.jsonl', 'line': 0},
        {'run': '../..', 'source': 'explore', 'file': 'growing_0000.jsonl', 'line': 0},
        {},
    ],
)
def test_only_trees_that_are_listed_are_shown(reader, query):
  for path in ('/api/tree', '/api/tokens'):
    status, found = reader.ask(path, **query)
    assert status == 404 and found['error'], found


def test_only_reading_is_possible(reader):
  for method in ('POST', 'PUT', 'DELETE', 'OPTIONS'):
    with socket.create_connection(('127.0.0.1', reader.server.server_port)) as sock:
      sock.sendall(f'{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
      assert sock.recv(64).split()[1] == b'501'


def test_the_page_runs_its_own_script_alone(reader):
  status, headers, page = reader.get('/')
  policy = headers['Content-Security-Policy']
  assert status == 200 and 'unsafe' not in policy and "default-src 'none'" in policy
  assert "frame-ancestors 'none'" in policy
  assert headers['Cross-Origin-Resource-Policy'] == 'same-origin'
  assert not re.search(rb'https?://|<script>|\son\w+=|\sstyle=', page)
  assert 'Access-Control-Allow-Origin' not in headers


def test_a_report_that_a_run_brings_along_is_shut_in(reader, tmp_path):
  assert reader.get('/report', run=0)[0] == 404
  place = tmp_path / 'run' / 'report'
  place.mkdir()
  (place / 'index.html').write_text(HOSTILE)
  status, headers, page = reader.get('/report', run=0)
  assert (status, page) == (200, HOSTILE.encode())
  assert headers['Content-Security-Policy'].startswith('sandbox allow-scripts;')
  assert 'allow-same-origin' not in headers['Content-Security-Policy']


def test_numbers_that_json_has_not_become_null():
  content = {'a': [float('nan'), (float('-inf'), 1.5)]}
  assert encode(content) == b'{"a": [null, [null, 1.5]]}'
  assert encode({'text': '\udcff \u2028'}) == b'{"text":"\\udcff \\u2028"}'


def test_a_port_that_is_in_use_is_one_clear_line(tmp_path):
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(command_line.UsageError, match=f'--port={port} .* in use'):
      watch.listen(Runs([tmp_path]), '127.0.0.1', port, ())


def test_places_and_hosts_that_are_not_there_are_one_clear_line(tmp_path):
  with pytest.raises(command_line.UsageError, match='no such directory'):
    watch.check_places([str(tmp_path / 'no')])
  with pytest.raises(command_line.UsageError, match='--host=999.9.9.9'):
    watch.listen(Runs([tmp_path]), '999.9.9.9', 0, ())


class _Page(html.parser.HTMLParser):
  """Elements and classes of a page."""

  def __init__(self, text: str):
    super().__init__()
    self.tags: list[str] = []
    self.classes: list[str] = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.classes += (dict(attrs).get('class') or '').split()


def hostile_run(path):
  live = LiveRun(path)
  tree = runs.branching_tree(task_id=HOSTILE, lesson=HOSTILE)
  tree.instruction = tree.nodes[0].turns[0].observation = HOSTILE
  tree.nodes[3].turns[0].response = tree.nodes[3].error = 30 * HOSTILE
  tree.nodes[3].ended_by = HOSTILE
  live.grow([tree], 'wave_0000.jsonl')
  figures = {HOSTILE: HOSTILE}
  bar = {'name': HOSTILE, 'unit': HOSTILE, 'total': 3, 'done': 1, 'figures': figures}
  live.beat(phase='explore', phases=[HOSTILE, 'explore'], bar=bar)
  (live.path / 'log.txt').write_text(f'W1126 15:09:20.5 1 run.py:1] {HOSTILE}\n')
  return live.path


def opened(reader, place, part):
  """The page in a browser that shows a part, a class, and what was said of it."""
  for attempt in range(3):  # a busy machine's browser may give up waiting
    done = subprocess.run(
        [
            str(_CHROMIUM), '--headless', '--no-sandbox', '--disable-gpu',
            '--no-first-run', '--disable-background-networking',
            '--disable-component-update', '--disable-sync', '--disable-quic',
            f'--user-data-dir={place}/profile{attempt}',
            '--enable-logging=stderr', '--virtual-time-budget=5000', '--dump-dom',
            reader.server.url,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )
    if part in _Page(done.stdout).classes:
      break
  assert 'CONSOLE' not in done.stderr
  return done.stdout


@pytest.mark.skipif(_CHROMIUM is None, reason='chromium is not installed')
@pytest.mark.parametrize('over', [False, True])
def test_only_of_a_run_that_goes_on_figures_are_called_so_far(tmp_path, over):
  live = LiveRun(tmp_path / 'run')
  live.grow([runs.branching_tree()], 'wave_0000.jsonl')
  for phase in PHASES if over else PHASES[:1]:
    live.finish(phase)
  live.beat(phase='' if over else 'explore')
  with serving(live.path) as reader:
    page = opened(reader, tmp_path, 'tiles')
  card = page[page.index('id="runs"') :]
  assert ('solved so far' in card) != over and 'solved' in card


@pytest.mark.skipif(_CHROMIUM is None, reason='chromium is not installed')
def test_it_opens_in_a_browser_with_hostile_texts_as_texts(tmp_path):
  with serving(hostile_run(tmp_path / HOSTILE.replace('/', '_')[:60])) as reader:
    page = _Page(opened(reader, tmp_path, 'turns'))
  assert page.tags.count('script') == 1 and 'img' not in page.tags
  for name in ('card', 'rail', 'row', 'turns', 'hint', 'tokens', 'fold'):
    assert name in page.classes, name
