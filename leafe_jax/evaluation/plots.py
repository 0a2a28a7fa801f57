"""passk.png: Pass@k against k, one curve per arm, with 95 % bands over tasks."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leafe_jax.evaluation.palette import Ink, inks_of

_TEXT, _MUTED, _GRID = '#22252a', '#6b7078', '#e6e8eb'
_SIZE_INCHES, _DPI = (8.0, 4.6), 150  # 1200 x 690 pixels
_LABEL_GAP = 0.052  # of the height of the axes, per line of a label


def draw_passk(results: Mapping[str, Any], title: str = '') -> Figure:
  """The figure; `results` as from `build_results`."""
  figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, facecolor='white')
  FigureCanvasAgg(figure)
  arms = results['arms']
  axes = figure.add_axes((0.07, 0.115, 0.9 - _label_width(arms), 0.735))
  inks = inks_of(list(arms))
  for arm, figures in arms.items():
    _draw_curve(axes, figures['pass_at_k'], inks[arm])
  _set_scales(axes, arms)
  _label_ends(axes, arms, {arm: ink.light for arm, ink in inks.items()})
  _write_titles(figure, arms, title)
  return figure


def save_passk(
    path: pathlib.Path, results: Mapping[str, Any], title: str = ''
) -> None:
  """Writes the figure as a PNG; the same results give the same bytes."""
  draw_passk(results, title).savefig(path, metadata={'Software': None})


def _label_width(arms: Mapping[str, Any]) -> float:
  """Share of the figure's width that the longest label takes, roughly."""
  return min(0.4, 0.0125 * (max(map(len, arms)) + 7))


def _draw_curve(
    axes: Axes, pass_at_k: Mapping[str, Mapping[str, float]], ink: Ink
) -> None:
  ks = [int(k) for k in pass_at_k]
  points = list(pass_at_k.values())
  lows, highs = ([100 * p[end] for p in points] for end in ('lo', 'hi'))
  if ink.band:
    axes.fill_between(ks, lows, highs, color=ink.light, alpha=0.11, linewidth=0)
  axes.plot(
      ks, [100 * p['mean'] for p in points], color=ink.light, linewidth=2.2,
      linestyle=(0, [length / 2.2 for length in ink.dash]) if ink.dash else '-',
      marker='o', markersize=4.5, markeredgecolor='white', markeredgewidth=0.9,
      clip_on=False, zorder=3,
  )


def _set_scales(axes: Axes, arms: Mapping[str, Any]) -> None:
  ks = sorted({int(k) for figures in arms.values() for k in figures['pass_at_k']})
  tops = [p['hi'] for a in arms.values() for p in a['pass_at_k'].values()]
  axes.set_xscale('log', base=2)
  axes.set_xlim(ks[0], max(ks[-1], ks[0] * 1.5))
  axes.set_xticks(ks, [str(k) for k in ks])
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.set_ylim(0, min(100.0, 10 * np.ceil(10 * max(tops) + 0.01)))
  axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0))
  axes.grid(axis='y', color=_GRID, linewidth=0.9)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right', 'left']].set_visible(False)
  axes.spines['bottom'].set_color('#b5b9bf')
  axes.tick_params(colors=_MUTED, labelsize=10, length=0, pad=7)
  axes.set_xlabel('k, samples per task', color=_MUTED, fontsize=10.5, labelpad=6)


def spread(places: Sequence[float], gap: float) -> list[float]:
  """Moves places apart to at least `gap`, keeping their order and centre."""
  order = np.argsort(places, kind='stable')
  moved = np.array(places, float)[order]
  for _ in range(200):
    overlap = gap - np.diff(moved)
    if np.all(overlap < 1e-9):
      break
    push = np.maximum(overlap, 0) / 2
    moved[:-1] -= push
    moved[1:] += push
  result = np.empty_like(moved)
  result[order] = moved
  return result.tolist()


def _label_ends(
    axes: Axes, arms: Mapping[str, Any], colors: Mapping[str, str]
) -> None:
  ends = [100 * list(a['pass_at_k'].values())[-1]['mean'] for a in arms.values()]
  heights = spread([end / axes.get_ylim()[1] for end in ends], _LABEL_GAP)
  above = max(0.0, max(heights) - 1)  # the subtitle's place
  heights = [height - above for height in heights]
  for arm, end, height in zip(arms, ends, heights, strict=True):
    axes.annotate(
        f'{arm}  {end:.1f}%', xy=(1.0, end / axes.get_ylim()[1]),
        xytext=(1.02, height), xycoords='axes fraction', color=colors[arm],
        fontsize=10.5, fontweight='bold', va='center', annotation_clip=False,
    )


def _write_titles(figure: Figure, arms: Mapping[str, Any], title: str) -> None:
  first = next(iter(arms.values()))
  figure.text(
      0.022, 0.945, title or 'Tasks solved by one of k samples', color=_TEXT,
      fontsize=14, fontweight='bold', va='center',
  )
  figure.text(
      0.022, 0.895,
      f'Unbiased Pass@k from {first["n_samples"]} samples on each of '
      f'{first["n_tasks"]} tasks; bands are 95 % bootstrap intervals over tasks',
      color=_MUTED, fontsize=10, va='center',
  )
