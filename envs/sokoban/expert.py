"""A scripted teacher for small rooms.

An observation shows the whole state, so the teacher knows the shortest solution
of what it sees (`solver.table`) and needs nothing else. The demonstrator plays
it badly on purpose: it pushes a box that is in front of it where it should walk
around it, and now and then it moves at random; many a box is stuck after that.
The critic goes back to the move that lost the game, or to the one that wasted
most, and names the move of the shortest solution.

Experience texts are a reason and an action: 'walk around left'.
"""

from __future__ import annotations

import math
import random

from envs import api, teaching
from envs.sokoban import engine, solver
from envs.sokoban.engine import ACTIONS, State
from envs.sokoban.view import View

# Why to make a move: it brings a box home, pushes one, keeps one from getting
# stuck, or goes to where a push can be made.
HOME, PUSH, CAREFUL, AROUND, LOST = (
    'box home', 'push box', 'box stuck', 'walk around', 'all lost',
)  # fmt: skip
WORDS = tuple(' '.join((HOME, PUSH, CAREFUL, AROUND, LOST)).split())


class SokobanTeacher(teaching.ScriptedTeacher):
  """See the module's docstring.

  Attributes:
    quality: chance that the demonstrator does not move at random.
    haste: chance that it pushes a box in reach of one move, where it should
      walk.
    reflection_quality: chance that a diagnosis is the script's.
  """

  def __init__(
      self,
      view: View,
      quality: float = 0.85,
      haste: float = 0.7,
      reflection_quality: float = 0.9,
  ):
    """ValueError names an option that is not a probability.

    Args:
      view: reads the observations.
      quality, haste, reflection_quality: see the class.
    """
    teaching.check_chances(
        quality=quality, haste=haste, reflection_quality=reflection_quality
    )
    self._view = view
    self.quality, self.haste = quality, haste
    self.reflection_quality = reflection_quality

  def act(self, history: api.History, rng: random.Random) -> str:
    """What the demonstrator does."""
    state = self._view.parse(history.observations[-1])
    moving = [action for action in range(4) if _changes(state, action)]
    if rng.random() >= self.quality:
      return ACTIONS[rng.choice(moving or [0])]
    best = best_action(state)
    pushes = [action for action in moving if _pushes(state, action)]
    if pushes and best not in pushes and rng.random() < self.haste:
      return ACTIONS[rng.choice(pushes)]
    return ACTIONS[best]

  def correct(self, history: api.History) -> str:
    """The first move of a shortest solution."""
    return ACTIONS[best_action(self._view.parse(history.observations[-1]))]

  def advise(self, history: api.History, action: str) -> str:
    """A reason and the action."""
    return self.explain(self._view.parse(history.observations[-1]), action)

  def explain(self, state: State, action: str) -> str:
    """A reason to take `action` in a state, and the action; three words."""
    return f'{find_reason(state, action)} {action}'

  def find_fault(self, history: api.History, failed: bool) -> api.Diagnosis | None:
    """The turn that lost the game, else the first that wasted most moves.

    While nothing is lost, an unfinished history is left to go on. The last
    turn is named where a failed history has no fault.
    """
    states = [self._view.parse(text) for text in history.observations]
    turn = _find_fault(states, failed)
    if turn is None:
      return None
    state = states[turn - 1]
    action = ACTIONS[best_action(state)]
    return api.Diagnosis(turn, self.explain(state, action))

  def misjudge(self, history: api.History, rng: random.Random) -> api.Diagnosis:
    """Any turn, and any move."""
    turn = rng.randint(1, len(history.actions))
    state = self._view.parse(history.observations[turn - 1])
    return api.Diagnosis(turn, self.explain(state, rng.choice(ACTIONS)))


def best_action(state: State) -> int:
  """First move of a shortest solution; in a lost state, of a walk that pushes
  nothing if there is one."""
  table = solver.table(state.room)
  order = [action for action in range(4) if _changes(state, action)]
  order.sort(key=lambda action: _pushes(state, action))
  if not order:
    return 0
  return min(order, key=lambda action: table.moves(engine.move(state, action)[0]))


def find_reason(state: State, action: str) -> str:
  """The reason to take `action` in a state: one of those above."""
  table = solver.table(state.room)
  if math.isinf(table.moves(state)):
    return LOST
  if action in ACTIONS and _pushes(state, ACTIONS.index(action)):
    after, reward = engine.move(state, ACTIONS.index(action))
    return HOME if after.solved or reward > 0 else PUSH
  tempting = (engine.move(state, a)[0] for a in range(4) if _pushes(state, a))
  return CAREFUL if any(math.isinf(table.moves(s)) for s in tempting) else AROUND


def _find_fault(states: list[State], failed: bool) -> int | None:
  """The turn (from 1) to blame; see `SokobanTeacher.find_fault`."""
  table = solver.table(states[0].room)
  left = [table.moves(state) for state in states]
  for turn, moves in enumerate(left[1:], start=1):
    if math.isinf(moves):
      return turn
  if not failed:
    return None
  wasted = [after - before + 1 for before, after in zip(left, left[1:])]
  if max(wasted) <= 0:
    return len(wasted)
  return wasted.index(max(wasted)) + 1


def _changes(state: State, action: int) -> bool:
  return engine.move(state, action)[0].player != state.player


def _pushes(state: State, action: int) -> bool:
  return engine.move(state, action)[0].boxes != state.boxes


# Reasons in sentences; {box} is where the box that matters stands.
_SENTENCES = {
    HOME: 'This push brings a box home.',
    PUSH: 'The box{box} can be pushed {action} from here.',
    CAREFUL: 'To push the box{box} here would get it stuck.',
    AROUND: 'I walk {action} to get behind a box.',
    LOST: 'A box is stuck, nothing can be won.',
}


class SpokenSokobanTeacher(SokobanTeacher):
  """The same in sentences, for the text view."""

  def explain(self, state: State, action: str) -> str:
    return teaching.advise(_sentence(state, action), action)

  def say(self, history: api.History, action: str) -> str:
    state = self._view.parse(history.observations[-1])
    return teaching.respond(_sentence(state, action), action)

  def agrees(self, said: str, meant: str) -> bool:
    return teaching.advised(said) == teaching.advised(meant)


def _sentence(state: State, action: str) -> str:
  pushed = next((a for a in range(4) if _pushes(state, a)), None)
  if action in ACTIONS and _pushes(state, ACTIONS.index(action)):
    pushed = ACTIONS.index(action)
  box = '' if pushed is None else f' {_BESIDE[ACTIONS[pushed]]} me'
  return _SENTENCES[find_reason(state, action)].format(box=box, action=action)


_BESIDE = {'up': 'above', 'down': 'below', 'left': 'left of', 'right': 'right of'}
