"""Programs with one small mistake, made from a right one.

A mistake is another operator, a number that is one too large, `min` for `max`, `any`
for `all`, `True` for `False`, or two arguments the wrong way round, at one place of
the text; everything else stays as it was written.
Some change nothing that a test sees.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from envs.codecontests.syntax import try_parse

_OTHERS = {
    '<': '<=', '<=': '<', '>': '>=', '>=': '>', '==': '!=', '!=': '==',
    '+': '-', '-': '+', '*': '+', '/': '//', '//': '/', '%': '//', '**': '*',
    '+=': '-=', '-=': '+=', '*=': '+=', '//=': '-=', 'and': 'or', 'or': 'and',
    'in': 'not in', 'not in': 'in',
}  # fmt: skip
_NAMES = {'min': 'max', 'max': 'min', 'any': 'all', 'all': 'any'}
_PLAIN = (ast.Name, ast.Constant)
# What may stand around an operator, on one line.
_OPERATOR = re.compile(rb'(?P<before>[ )]*)(?P<operator>[^ ()]+|not in)[ (]*')
# Numbers are written anew; none is longer.
_MAX_NUMBER = 10**15


class _Edit(NamedTuple):
  """Bytes of the text, from `start` to `end`, and what takes their place."""

  start: int
  end: int
  text: str


@functools.lru_cache(maxsize=4096)
def mutants(program: str) -> tuple[str, ...]:
  """The program with a mistake, in every way; in order, each once.

  Args:
    program: Python; what cannot be parsed has none.
  """
  tree = try_parse(program)
  if tree is None:
    return ()
  source = program.encode(errors='replace')
  edits = sorted(
      edit for node in _nodes(tree) for edit in _edits(node, _Text(source))
  )  # fmt: skip
  found = dict.fromkeys(_apply(source, edit) for edit in edits)
  return tuple(text for text in found if text != program and try_parse(text))


def _apply(source: bytes, edit: _Edit) -> str:
  changed = source[: edit.start] + edit.text.encode() + source[edit.end :]
  return changed.decode(errors='replace')


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
  """All nodes but those of f-strings, whose places are not to be trusted."""
  if not isinstance(tree, ast.JoinedStr):
    yield tree
    for child in ast.iter_child_nodes(tree):
      yield from _nodes(child)


class _Text:
  """A program's bytes, and where nodes stand in them."""

  def __init__(self, source: bytes):
    self.source = source
    self._lines = [0]
    for line in source.splitlines(keepends=True):
      self._lines.append(self._lines[-1] + len(line))

  def edit(self, node: ast.expr, other: str) -> _Edit:
    return _Edit(self.start(node), self.end(node), other)

  def show(self, node: ast.expr) -> str:
    return self.source[self.start(node) : self.end(node)].decode(errors='replace')

  def start(self, node: ast.expr) -> int:
    return self._lines[node.lineno - 1] + node.col_offset

  def end(self, node: ast.expr) -> int:
    assert node.end_lineno is not None and node.end_col_offset is not None
    return self._lines[node.end_lineno - 1] + node.end_col_offset


def _edits(node: ast.AST, text: _Text) -> Iterator[_Edit]:
  match node:
    case ast.Compare():
      terms = [node.left, *node.comparators]
    case ast.BinOp():
      terms = [node.left, node.right]
    case ast.BoolOp():
      terms = node.values
    case ast.AugAssign():
      terms = [node.target, node.value]
    case ast.Constant(value=bool() as value):
      yield text.edit(node, str(not value))
      return
    case ast.Constant(value=int() as value) if value < _MAX_NUMBER:
      yield text.edit(node, str(value + 1))
      return
    case ast.Name(id=name, ctx=ast.Load()) if name in _NAMES:
      yield text.edit(node, _NAMES[name])
      return
    case ast.Call(args=[ast.expr() as a, ast.expr() as b], keywords=[]) if (
        isinstance(a, _PLAIN) and isinstance(b, _PLAIN)
        and text.show(node.func) not in _NAMES
    ):
      start, end = text.start(a), text.end(b)
      yield _Edit(start, end, f'{text.show(b)}, {text.show(a)}')
      return
    case _:
      return
  for left, right in zip(terms, terms[1:]):
    yield from _between(text, text.end(left), text.start(right))


def _between(text: _Text, start: int, end: int) -> Iterator[_Edit]:
  """The other operator where there is one between two terms."""
  found = _OPERATOR.fullmatch(text.source[start:end])
  if found is None:
    return
  operator = found['operator'].decode(errors='replace')
  if operator in _OTHERS:
    place = start + len(found['before'])
    yield _Edit(place, place + len(found['operator']), _OTHERS[operator])
