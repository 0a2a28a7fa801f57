"""One run, looked at from outside: its state as JSON, its trees one by one."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from leafe_jax import redaction, settings
from leafe_jax.evaluation import specimens, tokens
from leafe_jax.experience import roles, scores
from leafe_jax.experience.build import HintLeak
from leafe_jax.tree import Tree
from leafe_jax.watch import logbook, outcome, reading, standing
from leafe_jax.watch.forest import Recent, Source
from leafe_jax.watch.reading import LinesFile
from leafe_jax.watch.scalars import Scalars

_MOST_TROUBLES = 8
_SCORED = 'explore'
_LOOK_S = 1.0  # of reading trees, after which the rest is left for the next look
_SAMPLED = ('evaluate/', 'groups/')  # where no tree of Stage 1 is


class WatchedRun:
  """A run's directory; it is only read, and may be incomplete, damaged or gone.

  Attributes:
    path: of the directory.

  Methods may be called from several threads.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path
    self._lock = threading.RLock()
    self._spelling = threading.Lock()  # a tokenizer takes seconds to read
    self._beat = standing.Beat(path)
    self._done = standing.Done(path)
    self._scalars = Scalars(path / 'tensorboard')
    self._sources: dict[str, Source] = {}
    self._recent = Recent()
    self._scores: dict[str, LinesFile[str]] = {}
    self._spell: tokens.Spell | None = None

  def state(self) -> dict[str, Any]:
    """What the page shows of it, JSON types."""
    with self._lock:
      self._refresh()
      done = self._done.refresh()
      results, trouble = reading.read_object(self.path / 'results.json')
      facts = self._beat.facts
      phases, bar = standing.phases_of(facts, done), standing.bar_of(facts)
      order = [phase['name'] for phase in phases]
      sources = sorted(
          self._sources.values(),
          key=lambda s: order.index(s.name) if s.name in order else len(order),
      )
      stopped = str(results.get('stopped') or '')
      return {
          'status': standing.status_of(self.path, self._beat, done, stopped),
          'phases': phases, 'bar': bar, 'left': standing.left_of(phases, bar),
          'memory': facts.get('memory'), 'age_s': self._beat.age if facts else None,
          'sources': [_describe(source) for source in sources],
          'recent': self._recent.last(),
          'scalars': self._scalars.series(),
          'log': logbook.tail(self.path / 'log.txt'),
          'troubles': self._troubles(trouble), 'unread': self._unread,
          'report': (self.path / 'report' / 'index.html').exists(),
      }

  def _refresh(self) -> None:
    self._beat.refresh()
    self._scalars.refresh()
    for place in standing.places(self.path):
      name = place.relative_to(self.path).as_posix()
      self._sources.setdefault(name, Source(name, place))
    until = time.monotonic() + _LOOK_S
    for source in self._sources.values():
      source.refresh(until)
      self._recent.see(source)
    self._sources = {name: found for name, found in self._sources.items() if found}

  @property
  def _unread(self) -> int:
    return sum(source.unread for source in self._sources.values())

  def _troubles(self, of_results: str) -> list[str]:
    found = [self._beat.trouble, of_results, reading.read_object(self._config)[1]]
    found += [text for source in self._sources.values() for text in source.troubles]
    kept = [text for text in found if text]
    more = len(kept) - _MOST_TROUBLES
    return kept[:_MOST_TROUBLES] + ([f'and {more} more'] if more > 0 else [])

  @property
  def _config(self) -> pathlib.Path:
    return self.path / 'config.json'

  def config(self) -> dict[str, Any]:
    """Option -> value without secrets; empty if it cannot be read (now)."""
    return redaction.hide(settings.flatten(reading.read_object(self._config)[0]))

  def trees(self, name: str, wanted: str) -> list[dict[str, Any]]:
    """Short entries of a file's trees; none if the file is gone.

    LookupError if there is no such source.
    """
    with self._lock:
      source = self._source(name)
      versions = source.versions()
      return [
          {
              'file': file, 'line': place, 'version': versions[file],
              'id': entry.task_id, 'title': entry.title, 'kind': entry.kind,
              'episodes': entry.episodes, 'branches': entry.branches,
              'solved': entry.solved,
          }
          for file, place, entry in source.trees()
          if file == wanted
      ]

  def tree(self, name: str, file: str, place: int) -> dict[str, Any]:
    """A tree for the browser, without tokens. LookupError if it is not there."""
    return specimens.compact(self._tree(name, file, place))

  def tokens(self, name: str, file: str, place: int) -> dict[str, Any]:
    """Tokens of a tree's turns, `nodes`, and `note` where something is missing.

    LookupError if the tree is not there.
    """
    tree, notes = self._tree(name, file, place), []
    config = reading.read_object(self._config)[0]
    with self._spelling:
      try:
        self._spell = self._spell or _speller(self._place(config))
      except (OSError, ValueError) as error:
        notes.append(f'Ids instead of texts, as the tokenizer cannot be read: {error}')
    try:
      explored = tree.split == 'train' and not name.startswith(_SAMPLED)
      found = roles_of(tree, config) if explored else {}
    except (settings.ConfigError, HintLeak, TypeError) as error:
      found = {}
      notes.append(f'What is trained is not known: {error}')
    spell = self._spell or (lambda ids: [f'{token} ' for token in ids])
    nodes = tokens.spell_tree(tree, spell, found, prompts=True)
    under = self._under(tree) if name == _SCORED else {}
    return {'nodes': nodes, 'note': ' '.join(notes), 'under': under}

  def _under(self, tree: Tree) -> dict[str, Any]:
    """Arm -> log-probabilities of the tree, as tools.score_trees left them."""
    found = {}
    for entry in reading.entries(self.path / 'scores'):
      arm = entry.name.removesuffix('.jsonl')
      with self._lock:
        made = LinesFile[str](pathlib.Path(entry.path), lambda line: line['task_id'])
        file = self._scores.setdefault(arm, made)
        file.refresh()
        places = {line.value: place for place, line in enumerate(file.lines)}
      with contextlib.suppress(LookupError):
        nodes = file.value_at(places[tree.task_id]).get('nodes')
        if scores.fits(tree, nodes):
          found[arm] = nodes
    return found

  def _tree(self, name: str, file: str, place: int) -> Tree:
    with self._lock:
      return self._source(name).tree(file, place)

  def _place(self, config: Mapping[str, Any]) -> pathlib.Path:
    """Of the tokenizer."""
    policy = config.get('policy')
    checkpoint = policy.get('checkpoint') if isinstance(policy, dict) else ''
    return pathlib.Path(checkpoint) if checkpoint else self.path / 'tokenizer'

  def _source(self, name: str) -> Source:
    if name not in self._sources:
      self._refresh()
    if name not in self._sources:
      raise LookupError(f'no trees of a phase {name!r}')
    return self._sources[name]


def _speller(place: pathlib.Path) -> tokens.Spell:
  """OSError or TokenizerError, a ValueError, where there is none to be read."""
  from leafe_jax.text.tokenizers import load_tokenizer  # takes seconds

  return tokens.speller(load_tokenizer(place))


def roles_of(
    tree: Tree, config: Mapping[str, Any]
) -> dict[tuple[int, int], list[dict[str, Any]]]:
  """What is trained of a tree of Stage 1, by the run's config; see `tokens.Roles`.

  ConfigError for a config of another release, or none.
  """
  if not config:
    raise settings.ConfigError('config.json cannot be read')
  experiment = settings.from_config_dict(config)
  found = roles.of_tree(tree, experiment.experience, experiment.distill.beta)
  return {
      place: [dataclasses.asdict(role) for role in of_turn]
      for place, of_turn in found.items()
  }


def _describe(source: Source) -> dict[str, Any]:
  counts = source.counts()
  return {
      'name': source.name, 'files': source.versions(), 'figures': source.figures(),
      'passk': outcome.so_far(counts) if counts else {},
  }


def differences(runs: Sequence[WatchedRun]) -> list[dict[str, Any]]:
  """Options in which runs differ: `path` and `values`, one a run."""
  configs = [run.config() for run in runs]
  paths = dict.fromkeys(path for config in configs for path in config)
  rows = [(path, [config.get(path) for config in configs]) for path in paths]
  return [
      {'path': path, 'values': [_show(value) for value in values]}
      for path, values in rows
      if any(value != values[0] for value in values)
  ]  # fmt: skip


def _show(value: Any) -> str:
  if isinstance(value, list):
    return ', '.join(map(str, value))[:200] or 'none'
  return '–' if value in (None, '') else str(value)[:200]
