"""What README and the site tell their readers: commands, links, pictures, reference."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags

from docs import drawings, reference
from leafe_jax import experiment, launch, settings
from leafe_jax.methods import catalogue

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text('utf-8')
    for path in sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')])
}
# What tells a reader what to type; results and notes tell what was typed.
SPEAKING = [
    name for name in TEXTS
    if 'results/' not in name and name not in ('BUILD_NOTES.md', 'CHANGELOG.md')
]
# Run as they stand; the tests of the tools run the longer ones.
LOOKS = ('tools.tasks', 'tools.play')


def commands(text: str) -> list[list[str]]:
  """The commands of blocks without a language, as a shell reads them."""
  fences = re.findall(r'^ *```(\w*)\n(.*?)^ *```', text, flags=re.DOTALL | re.MULTILINE)
  blocks = [block for language, block in fences if not language]
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [(name, words) for name in SPEAKING for words in commands(TEXTS[name])]
PROGRAMS = sorted({
    tuple(words[words.index('-m') + 1 :]) for _, words in COMMANDS if '-m' in words
})


def runs(module: str) -> list[tuple[str, ...]]:
  return [words for words in PROGRAMS if words[0] == module]


def test_there_is_something_to_check():
  assert len(runs('leafe_jax.main')) > 8
  assert {words[0] for words in PROGRAMS} > {'tools.plan', 'tools.try_checkpoint'}


@pytest.mark.parametrize('words', [words for _, words in COMMANDS], ids=' '.join)
def test_a_command_is_one_of_those_we_know(words):
  words = [word for word in words if not re.fullmatch(r'[A-Z_]+=\S+', word)]
  if words[0] == 'make':
    targets = re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert words[1] in targets
  elif words[0] == 'pip':
    text = (ROOT / 'setup.py').read_text('utf-8')
    extras = re.findall(r"^        '(\w+)':", text, re.MULTILINE)
    for extra in re.findall(r'\[(.*?)\]', ' '.join(words)):
      assert set(extra.split(',')) <= set(extras)
  elif words[0] == 'python':
    assert words[1] == '-m'
    assert importlib.util.find_spec(words[2]), words[2]
  else:
    assert words[0] in ('.', 'git')


@pytest.mark.parametrize('words', runs('leafe_jax.main'), ids=' '.join)
def test_a_run_would_start(monkeypatch, words):
  """Flags, config and phases, as the run checks them before it does anything."""
  monkeypatch.chdir(ROOT)
  own = 'docs.examples.number_guess:World'
  given = [word.replace('my_package.my_world:make', own) for word in words[1:]]
  argv = ['main', *given]
  monkeypatch.setattr(sys, 'argv', argv)
  values = flags.FlagValues()
  launch.define_flags(values)
  assert launch.parse_flags(values, argv) == ['main']
  config = launch.check(values.config)
  experiment.phase_inputs(config)
  experiment.check_until(config, values.until)


@pytest.mark.parametrize(
    'words',
    [words for words in PROGRAMS if words[0].startswith('tools.')],
    ids=' '.join,
)
def test_a_tool_has_the_flags_it_is_given(words):
  own = ROOT / f'{words[0].replace(".", "/")}.py'
  text = own.read_text('utf-8') + (ROOT / 'tools' / 'targets.py').read_text('utf-8')
  for name in re.findall(r'--(\w+)', ' '.join(words)):
    assert f"'{name}'" in text or (name == 'config' and 'define_config' in text), name


@pytest.mark.parametrize(
    'words',
    [next(words for words in PROGRAMS if words[0] == module) for module in LOOKS],
    ids=' '.join,
)
def test_a_look_needs_no_more_than_is_said(words):
  done = subprocess.run(
      [sys.executable, '-m', *words],
      cwd=ROOT, input='', capture_output=True, text=True, check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout


@pytest.mark.parametrize('name', TEXTS)
def test_links_lead_somewhere(name):
  place = (ROOT / name).parent
  prose = re.sub(r'```.*?```', '', TEXTS[name], flags=re.DOTALL)
  for link in re.findall(r'\]\(([^)#]+)', prose):
    if not link.startswith('http'):
      path = (place / link).resolve()
      known = path.is_relative_to(ROOT / 'docs') and (
          path.relative_to(ROOT / 'docs').as_posix() in reference.PAGES
      )
      assert path.exists() or known, link


def test_options_in_prose_exist():
  known = {option.path for option in settings.options()}
  for name in SPEAKING:
    for path in re.findall(r'--config\.([a-z_]+\.[a-z_]+)=', TEXTS[name]):
      assert path in known or path.startswith(('env.options', 'policy.template')), path


def test_readme_fits_two_screens_and_names_every_method():
  readme = TEXTS['README.md']
  assert len(readme.splitlines()) <= 125
  for method in catalogue.METHODS:
    assert f'`{method}`' in readme, method
  for word in ('L_cf', 'L_reh', 'leafe_reh', 'D_cf'):
    assert word not in readme, word


@pytest.mark.parametrize('name', drawings.PICTURES)
def test_pictures_are_as_the_script_draws_them(name):
  drawn = (drawings.FOLDER / f'{name}.svg').read_text('utf-8')
  assert drawn == drawings.PICTURES[name](), 'run python -m docs.drawings'


def test_the_reference_has_every_option_arm_environment_and_record():
  options = reference.options()
  for option in settings.options():
    assert f'`{option.path}`' in options
  arms = reference.arms()
  for arm in (*catalogue.ARMS, *catalogue.METHODS):
    assert f'`{arm}`' in arms
  environments = reference.environments()
  assert '## webshop' in environments and '`data_dir`' in environments
  assert 'logprobs' in reference.records()
  assert 'Known gaps' in reference.PAGES['decisions.md']()


def test_rows_of_the_reference_have_as_many_cells_as_their_heads():
  for write in (reference.options, reference.arms, reference.environments):
    for block in re.findall(r'(?:^\|.*\n)+', write(), flags=re.MULTILINE):
      assert len({row.count('|') for row in block.splitlines()}) == 1


def test_programs_speak_for_themselves():
  assert 'play' in reference.programs()
  assert '--index' in reference.say('tools.play')
  assert str(ROOT) not in reference.say('tools.play')
