"""ALFWorld's own texts, for language models."""

from __future__ import annotations

import re

from envs import api
from envs.alfworld.engine import Node
from envs.alfworld.problems import Goal

_TAGGED = re.compile(r'<action>(.*?)</action>', re.DOTALL | re.IGNORECASE)
# What games of earlier grammars call 'move X to Y'.
_PUT = re.compile(r'put (?P<thing>.+?) (?:in/on|into|in|on|to) (?P<place>.+)')

INSTRUCTIONS = """\
You are in a room of a house and have a task to do there. Every turn, answer with
one action in tags, e.g. <action>go to drawer 1</action>. Write names as you read
them, with their numbers; OBJ is an object, RECEP is furniture or an appliance that
holds things. You see what is in or on RECEP once you are there and it is open, and
can carry one object at a time. The actions are:
go to RECEP
open RECEP, close RECEP: where you are
take OBJ from RECEP, move OBJ to RECEP: where you are
clean OBJ with RECEP: what you carry, at a sinkbasin
heat OBJ with RECEP: what you carry, at a microwave
cool OBJ with RECEP: what you carry, at a fridge
use OBJ: switch on a lamp where you are
slice OBJ with OBJ: with a knife that you carry
examine OBJ, examine RECEP
look, inventory, help
"Nothing happens." means that the action cannot be done now."""


class TextView:
  """Implements `envs.alfworld.env.View`."""

  def __init__(self, show_commands: bool = False):
    self._show_commands = show_commands

  def first(self, text: str, node: Node, goal: Goal) -> str:
    del goal
    return self.render(text, node)

  def to_command(self, response: str, node: Node) -> str:
    """Spelling is forgiven where it leaves no doubt."""
    command = ' '.join(response.split()).removesuffix('.')
    if command not in node.menu.operators:
      command = command.lower()
    if command not in node.menu.operators and (found := _PUT.fullmatch(command)):
      return f'move {found["thing"]} to {found["place"]}'
    return command

  def render(self, text: str, node: Node) -> str:
    if not self._show_commands or node.won:
      return text
    return f'{text}\nYou can: {", ".join(node.menu.commands)}'

  def instructions(self) -> str:
    return INSTRUCTIONS

  def parse_response(self, response: str) -> str:
    """What the last <action>...</action> holds, else the last line."""
    found = _TAGGED.findall(response) or response.strip().splitlines()[-1:]
    action = ' '.join(found[-1].split()) if found else ''
    if not action:
      raise api.InvalidAction('no action found; write <action>look</action>')
    return action
