"""The tokens of a tree's turns, as texts, for the browser.

A page that shows every token of every turn would be large: the records of a tree are
made apart from the tree, for those that find room or when somebody asks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leafe_jax.tree import Tree, Turn

# (node, turn) -> what of it is trained: {'kind', 'weight', ...}, JSON types.
Roles = Mapping[tuple[int, int], Sequence[Mapping[str, Any]]]
Spell = Callable[[Sequence[int]], list[str]]

_MOST_PROMPT = 2000  # tokens of a prompt that are shown
_SPACE = '\u2581'  # what pieces of sentences stand for a blank with


def speller(tokenizer: Any) -> Spell:
  """Ids as the texts of single tokens; what is no text by itself as its own name.

  Args:
    tokenizer: of transformers.
  """

  @functools.cache
  def piece(token: int) -> str:
    name = str(tokenizer.convert_ids_to_tokens(token))
    text = tokenizer.decode([token])
    if not text or '\ufffd' in text:  # a part of a character
      return name
    return f' {text}' if name.startswith(_SPACE) and text[0] != ' ' else text

  return lambda ids: [piece(int(token)) for token in ids]


def spell_tree(tree: Tree, spell: Spell, roles: Roles, prompts: bool) -> list[Any]:
  """A record per turn of each node, in their order.

  Args:
    tree: whose tokens are wanted.
    spell: ids as texts.
    roles: of its turns.
    prompts: whether the tokens of prompts are wanted, or only their number.
  """
  return [
      [
          _record(turn, spell, roles.get((node.id, turn.index), ()), prompts)
          for turn in node.turns
      ]
      for node in tree.nodes
  ]


def _record(
    turn: Turn, spell: Spell, roles: Sequence[Mapping[str, Any]], prompts: bool
) -> dict[str, Any]:
  record: dict[str, Any] = {
      'response': spell(turn.response_ids),
      'logprobs': [round(value, 3) for value in turn.logprobs],
      'hint': spell(turn.hint_ids),
      'opener': spell(turn.opener_ids),
      'asked': len(turn.prompt_ids),
  }
  if prompts:
    record['prompt'] = spell(turn.prompt_ids[:_MOST_PROMPT])
  if roles:
    record['roles'] = [dict(role) for role in roles]
  return {name: value for name, value in record.items() if value not in ([], None)}
