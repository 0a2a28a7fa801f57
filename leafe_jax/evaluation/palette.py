"""One colour per arm, the same in every figure, after Okabe and Ito.

The hues stay apart under the common colour blindnesses; each has a darker
form for light paper and a brighter one for dark screens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Ink:
  """How an arm is drawn.

  Attributes:
    light, dark: its colour on light and on dark ground, as #rrggbb.
    dash: lengths of strokes and gaps in pixels; empty: a whole line.
    band: whether its interval is drawn.
  """

  light: str
  dark: str
  dash: tuple[int, ...] = ()
  band: bool = True


_FIXED = {
    'base': Ink('#73777f', '#9aa0a9'),
    'leafe': Ink('#cf4a0c', '#ff8a4c'),
}
_CYCLE = (
    Ink('#0067a8', '#5cb8f0'),
    Ink('#00805c', '#3fcf9f'),
    Ink('#a8508a', '#e79acb'),
    Ink('#8a6a00', '#e6c14a'),
    Ink('#4b56b0', '#a3acff'),
    Ink('#7a4a2b', '#d3a17c'),
)


_DASHES = ((), (8, 3), (2, 3), (10, 3, 2, 3))
_MOST_BANDS = 6  # more of them hide each other


def inks_of(arms: Sequence[str]) -> dict[str, Ink]:
  """Arm -> how it is drawn.

  Once the palette is spent, further arms share its colours with other strokes.
  Of many arms only those with a colour of their own keep their bands.
  """
  others = [arm for arm in arms if arm not in _FIXED]
  few = len(arms) <= _MOST_BANDS
  cycled = {
      arm: dataclasses.replace(
          _CYCLE[i % len(_CYCLE)], dash=_DASHES[i // len(_CYCLE) % len(_DASHES)],
          band=few,
      )
      for i, arm in enumerate(others)
  }
  return {arm: _FIXED.get(arm) or cycled[arm] for arm in arms}
