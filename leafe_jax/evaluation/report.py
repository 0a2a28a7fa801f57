"""report/index.html: one self-contained page about a run.

The page loads nothing: styles, scripts and data are inline, fonts are the
reader's own, and its content security policy forbids the rest.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from leafe_jax.evaluation import specimens
from leafe_jax.evaluation.memories import Remembered, shelves
from leafe_jax.evaluation.pages import templates
from leafe_jax.evaluation.palette import inks_of
from leafe_jax.evaluation.tables import (
  describe_tasks,
  end_ks,
  excludes_zero,
  shown_arms,
  shown_ks,
  shown_pairs,
  trouble_notes,
  type_rows,
)
from leafe_jax.evaluation.transcripts import Transcripts, encode_transcripts
from leafe_jax.tree import Tree

MAX_TREES = 60
MAX_TREE_BYTES = 2_600_000
MAX_TRANSCRIPT_BYTES = 2_600_000
MAX_TOKEN_BYTES = 2_000_000
NONE = Transcripts()
NO_MEMORIES: Mapping[str, Sequence[Remembered]] = {}
# The tokens of a tree's turns (`tokens.spell_tree`), None where they are not known.
Spelling = Callable[[Tree], Any]


def unspelt(tree: Tree) -> None:
  """For reports that show no tokens."""
  del tree


def write_report(
    directory: pathlib.Path,
    results: Mapping[str, Any],
    trees: Sequence[Tree],
    config_text: str = '',
    name: str = 'run',
    date: str = '',
    max_trees: int = MAX_TREES,
    transcripts: Transcripts = NONE,
    spelling: Spelling = unspelt,
    memories: Mapping[str, Sequence[Remembered]] = NO_MEMORIES,
) -> pathlib.Path:
  """Writes index.html and passk.png into `directory`, which may be new.

  Args:
    directory: where to write.
    results: as from `results.build_results`; perhaps with `stopped`, why a run
      ended early, whose arms may be none, and `gaps`, seed -> the same of a study.
    trees: of Stage 1; a mix of at most `max_trees` is embedded.
    config_text: the config, shown as it is.
    name: of the run.
    date: shown when given; without it the page depends on its inputs alone.
    max_trees: trees in the browser.
    transcripts: episodes of the evaluation, shown in the same browser.
    spelling: gives the tokens of trees and transcripts, for as many as have room.
    memories: what arms learnt in words, by their names.

  Returns:
    The path of the page.
  """
  from leafe_jax.evaluation.plots import save_passk  # and matplotlib

  directory.mkdir(parents=True, exist_ok=True)
  if results['arms']:
    save_passk(directory / 'passk.png', results)
  page = directory / 'index.html'
  page.write_text(
      render_report(
          results, trees, config_text, name, date, max_trees, transcripts, spelling,
          memories,
      ),
      encoding='utf-8',
  )
  return page


def render_report(
    results: Mapping[str, Any],
    trees: Sequence[Tree],
    config_text: str = '',
    name: str = 'run',
    date: str = '',
    max_trees: int = MAX_TREES,
    transcripts: Transcripts = NONE,
    spelling: Spelling = unspelt,
    memories: Mapping[str, Sequence[Remembered]] = NO_MEMORIES,
) -> str:
  """The page as text; arguments as for `write_report`."""
  chosen = specimens.choose_trees(trees, max_trees)
  trees_json, embedded = specimens.encode_trees(chosen, MAX_TREE_BYTES)
  transcripts_json, shown = encode_transcripts(
      transcripts.chosen, MAX_TRANSCRIPT_BYTES
  )
  browsed = [
      *chosen[:embedded], *(found.tree for found in transcripts.chosen[:shown])
  ]
  spelt = specimens.encode_sparsely(map(spelling, browsed), MAX_TOKEN_BYTES)
  arms = list(results['arms'])
  pairs = shown_pairs(results) if arms else {}
  pages = templates()
  pages.tests['clear_of_zero'] = excludes_zero
  return pages.get_template('report.html').render(
      results=results,
      ks=shown_ks(results) if arms else [],
      ends=end_ks(results) if arms else [],
      pairs=pairs,
      shown_pairs=shown_pairs,
      trouble_notes=trouble_notes,
      types=type_rows(results) if results.get('by_type') else {},
      types_arms=shown_arms(results),
      describe_tasks=describe_tasks,
      inks=inks_of(arms),
      arms_json=Markup(specimens.embed_json(_curves(results))),
      trees_json=Markup(trees_json),
      trees_embedded=embedded,
      trees_total=len(trees),
      transcripts_json=Markup(transcripts_json),
      transcripts_embedded=shown,
      transcripts_total=transcripts.total,
      tokens_json=Markup(spelt),
      shelves=shelves(memories),
      config_text=config_text,
      name=name,
      date=date,
  )


def _curves(results: Mapping[str, Any]) -> list[dict[str, Any]]:
  inks = inks_of(list(results['arms']))
  return [
      {
          'name': arm,
          'dash': ' '.join(map(str, inks[arm].dash)),
          'band': inks[arm].band,
          'points': [
              {'k': int(k), **point} for k, point in figures['pass_at_k'].items()
          ],
      }
      for arm, figures in results['arms'].items()
  ]
