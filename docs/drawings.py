"""Draws the pictures of README and the site: python -m docs.drawings

Each is an SVG that carries its own colours for light and dark pages.
"""

from __future__ import annotations

import html
import pathlib
from collections.abc import Callable, Mapping

FOLDER = pathlib.Path(__file__).parent / 'pictures'
_STYLE = """
svg { --paper: #fcfcfa; --ink: #24292f; --soft: #6a737d; --line: #b9c0c7;
  --good: #1a7f37; --bad: #c0392b; --way: #0969da; --fill: #eef3f8; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #1c2128; --ink: #e6edf3; --soft: #9aa4af; --line: #4b545e;
    --good: #57c26f; --bad: #ff8a7a; --way: #6cb6ff; --fill: #28313b; } }
text { font: 14px system-ui, 'Segoe UI', sans-serif; fill: var(--ink); }
.small { font-size: 12.5px; fill: var(--soft); }
.head { font-weight: 600; }
.line { fill: none; stroke: var(--line); stroke-width: 2; }
.way { fill: none; stroke: var(--way); stroke-width: 2; }
.dash { stroke-dasharray: 5 4; }
.good { fill: var(--good); } .bad { fill: var(--bad); } .blue { fill: var(--way); }
.node { fill: var(--paper); stroke: var(--ink); stroke-width: 1.8; }
.box { fill: var(--fill); stroke: var(--line); stroke-width: 1.2; }
""".strip()


def text(x: float, y: float, words: str, kind: str = '', anchor: str = 'start') -> str:
  """One line of text; y is its base line."""
  return (
      f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">'
      f'{html.escape(words)}</text>'
  )


def line(points: str, kind: str = 'line', arrow: bool = False) -> str:
  """A path through SVG path commands."""
  end = ' marker-end="url(#arrow)"' if arrow else ''
  return f'<path d="{points}" class="{kind}"{end}/>'


def node(x: float, y: float, words: str = '', kind: str = 'node') -> str:
  """A decision point."""
  return f'<circle cx="{x:g}" cy="{y:g}" r="13" class="{kind}"/>' + text(
      x, y + 5, words, anchor='middle'
  )


def box(x: float, y: float, width: float, height: float) -> str:
  """A rectangle that groups."""
  return (
      f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" '
      'class="box"/>'
  )


def picture(width: int, height: int, title: str, *parts: str) -> str:
  """A whole SVG."""
  return '\n'.join([
      f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
      f'width="{width}" height="{height}" role="img" aria-label="{html.escape(title)}">',
      f'<title>{html.escape(title)}</title>',
      f'<style>{_STYLE}</style>',
      '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
      'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" class="blue"/>'
      '</marker></defs>',
      f'<rect width="{width}" height="{height}" rx="10" fill="var(--paper)"/>',
      *parts,
      '</svg>\n',
  ])


def tree() -> str:
  """An episode that fails, the way back, and the branch that succeeds."""
  first = [
      node(40 + 105 * i, 105, str(i + 1)) + text(92 + 105 * i, 92, word, 'small', 'middle')
      for i, word in enumerate(['search', 'open', 'choose', 'buy'])
  ]  # fmt: skip
  return picture(
      760, 290, 'An agent fails, goes back to the turn it names, and tries again',
      text(20, 34, '1 It acts, and fails.', 'head'),
      line('M53 105H132'), line('M158 105H237'), line('M263 105H342'),
      line('M368 105H440'), *first,
      text(450, 110, 'the wrong product', 'bad'),
      line('M470 122C430 190 260 190 153 124', 'way dash', arrow=True),
      text(490, 152, '2 It says where it went wrong'),
      text(504, 171, 'and what to know there: "turn 2, the', 'small'),
      text(504, 188, 'second page has it". It goes back.', 'small'),
      line('M150 118C150 200 170 228 237 228'), node(250, 228, '3'),
      line('M263 228H342'), node(355, 228, '4'), line('M368 228H440'),
      text(190, 250, 'next page', 'small', 'middle'),
      text(302, 250, 'open', 'small', 'middle'), text(404, 250, 'buy', 'small', 'middle'),
      text(450, 233, 'the right product', 'good'),
      text(20, 276, '3 It learns to go to the next page at turn 2 by itself, without '
           'the advice.', 'head'),
  )  # fmt: skip


def decision() -> str:
  """A decision point and its two halves."""
  return picture(
      760, 250, 'A decision point owns two halves of its state',
      box(20, 50, 220, 150), text(36, 76, 'A decision point', 'head'),
      text(36, 104, 'what was seen and done'), text(36, 126, 'so far; whoever keeps it'),
      text(36, 148, 'can go on from here,'), text(36, 170, 'as often as wanted'),
      line('M240 100H320', 'way', arrow=True), line('M240 160H320', 'way', arrow=True),
      box(328, 40, 412, 76), text(344, 66, 'The world: a snapshot', 'head'),
      text(344, 92, 'restored in microseconds; nothing is played again', 'small'),
      box(328, 134, 412, 76),
      text(344, 160, 'The policy: KV pages of the past tokens', 'head'),
      text(344, 186, 'shared by all branches; nothing is read again', 'small'),
  )


def data_flow() -> str:
  """From a task to a figure."""
  names = [
      ('task', 'what to do'), ('episode', 'turns of one try'),
      ('reflection', 'turn and advice'), ('branch', 'a try from there'),
      ('corrections', 'action, no advice'), ('update', 'fine-tuning'),
      ('evaluation', 'held-out tasks'),
  ]  # fmt: skip
  places = [(20 + 186 * (i % 4), 50 + 110 * (i // 4)) for i in range(len(names))]
  boxes = [
      box(x, y, 150, 64) + text(x + 75, y + 28, name, 'head', 'middle')
      + text(x + 75, y + 49, words, 'small', 'middle')
      for (x, y), (name, words) in zip(places, names)
  ]  # fmt: skip
  arrows = [
      line(f'M{x + 150} {y + 32}H{x + 183}', 'way', arrow=True)
      for i, (x, y) in enumerate(places[:-1])
      if i != 3
  ]
  return picture(
      760, 250, 'The data on its way from a task to a figure', *boxes, *arrows,
      line('M653 114V137H95V157', 'way', arrow=True),
      text(20, 32, 'Stage 1: explore', 'head'),
      text(578, 200, 'Stage 2: distil, then', 'small'), text(578, 218, 'evaluate', 'small'),
  )  # fmt: skip


def budget() -> str:
  """What the arms may spend."""
  rows = [
      ('explore', 'way', [(60, 'first try'), (150, 'branch'), (110, 'branch')]),
      ('rejection sampling', 'line', [(110, 'try'), (100, 'try'), (110, 'try')]),
  ]
  parts = []
  for i, (name, kind, pieces) in enumerate(rows):
    y, x = 70 + 74 * i, 180.0
    parts.append(text(20, y + 26, name, 'head'))
    for width, words in pieces:
      parts.append(box(x, y, width * 1.3, 40))
      parts.append(text(x + width * 0.65, y + 25, words, 'small', 'middle'))
      x += width * 1.3
    parts.append(line(f'M180 {y + 48}H{x:g}', kind))
  return picture(
      760, 250, 'Equal budgets: environment steps, task by task',
      text(20, 34, 'One task: every arm has the same number of steps in the world.', 'head'),
      *parts,
      text(180, 232, 'Going back is free, so a branch pays only for the steps after it.',
           'small'),
  )  # fmt: skip


def intervals() -> str:
  """How to read a difference with its interval."""
  rows = [('+12.3 [7.9, 16.7]', 79, 167, 'better, beyond chance', 'good'),
          ('+2.3 [-0.9, 5.5]', -9, 55, 'not shown either way', 'soft'),
          ('-3.5 [-5.6, -1.4]', -56, -14, 'worse, beyond chance', 'bad')]  # fmt: skip
  parts = [line('M330 52V210', 'line dash'), text(330, 44, '0', 'small', 'middle')]
  for i, (label, low, high, meaning, kind) in enumerate(rows):
    y = 84 + 48 * i
    middle = 330 + (low + high) / 2
    parts += [
        text(20, y + 5, label), line(f'M{330 + low} {y}H{330 + high}', 'way'),
        f'<circle cx="{middle:g}" cy="{y}" r="6" class="blue"/>',
        text(530, y + 5, meaning, kind if kind != 'soft' else 'small'),
    ]
  return picture(
      760, 250, 'A difference of two arms in points, with its 95 % interval', *parts,
      text(20, 236, 'An interval that leaves out 0 is marked with * in the tables.', 'small'),
  )  # fmt: skip


PICTURES: Mapping[str, Callable[[], str]] = {
    'tree': tree, 'decision': decision, 'data_flow': data_flow, 'budget': budget,
    'intervals': intervals,
}  # fmt: skip


def main() -> None:
  """Writes all pictures."""
  FOLDER.mkdir(exist_ok=True)
  for name, draw in PICTURES.items():
    (FOLDER / f'{name}.svg').write_text(draw(), encoding='utf-8')


if __name__ == '__main__':
  main()
