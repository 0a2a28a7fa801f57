"""The four parts of a household task, and which of them an episode came to.

The names are those of RetroAgent's trained variant (arXiv 2603.08561). What was
done is read from what the game answered, in the words of either view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.alfworld import compact
from envs.alfworld.problems import Goal

LOCATE, ACQUIRE, MODIFY, PLACE = 'locate', 'acquire', 'modify', 'place'
SUBTASKS: Mapping[str, str] = {
    LOCATE: 'come to where a wanted object is in sight',
    ACQUIRE: 'pick it up',
    MODIFY: 'bring it into the wanted state, or switch on the lamp to look at it with',
    PLACE: 'put it where it belongs',
}


def completed(goal: Goal, observations: Sequence[str], compact_view: bool) -> list[str]:
  """Names of `SUBTASKS` that were completed.

  Args:
    goal: of the game.
    observations: what the game answered to each action.
    compact_view: whether it did so in the compact view's words.
  """
  kind, wanted = goal.obj.lower(), compact.WANTED[goal.task_type]
  treated = {compact.LIT} if wanted == compact.LIGHT else {wanted}
  done, place = set(), ''
  for seen in observations:
    page = compact.parse_page(seen if compact_view else compact.abridge_text(seen))
    about = kind in {name for name, _ in page.names}
    if page.kind == compact.AT:
      place = page.place[0]
      done |= {LOCATE} if about else set()
    elif page.kind == compact.HAVE and about:
      done |= {LOCATE, ACQUIRE}
    elif page.kind in treated and (about or _lit(page, done)):
      done.add(MODIFY)
    elif page.kind == compact.PUT and about and place == goal.recep.lower():
      done.add(PLACE)
  return [name for name in SUBTASKS if name in done]


def _lit(page: compact.Page, done: set[str]) -> bool:
  """Whether a lamp was switched on by who has the object."""
  return page.kind == compact.LIT and ACQUIRE in done
