"""One colour per arm, the same in every figure, after Okabe and Ito.

The hues stay apart under the common colour blindnesses; each has a darker
form for light paper and a brighter one for dark screens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Ink:
  """A colour on light and on dark ground, as #rrggbb."""

  light: str
  dark: str


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


def inks_of(arms: Sequence[str]) -> dict[str, Ink]:
  """Arm -> colour; further arms share colours once the palette is spent."""
  others = [arm for arm in arms if arm not in _FIXED]
  cycled = {arm: _CYCLE[i % len(_CYCLE)] for i, arm in enumerate(others)}
  return {arm: _FIXED.get(arm) or cycled[arm] for arm in arms}
