"""The official text observations of WebShop, character by character.

Text mode lists the visible texts of a page, joined by ' [SEP] '. Rich mode
('text_rich') breaks lines instead, puts buttons in [button] marks and says
what was clicked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from envs.webshop.catalogue import PageState, Product
from envs.webshop.shop import Shop

SEPARATOR = ' [SEP] '

_HTML_SAFE = str.maketrans(
    {char: f'\\u{ord(char):04x}' for char in "<>&'"}
)

_INSTRUCTIONS = """\
You are shopping in a text-based web store. The instruction says what to buy.
Search, open a product, choose the options that are asked for, then buy it.
Actions, one per turn:
search[words]  search the store
click[text]    press a button, open a product by its id, or choose an option
Reply with the action between <action> and </action>."""

_RECEIPT_BEFORE = (
    'Thank you for shopping with us!', 'Your code:', 'None',
    '(Paste it in your MTurk interface.)', 'Purchased', 'asin',
)  # fmt: skip
_RECEIPT_AFTER = (
    'attrs', 'None', 'category', 'None', 'query', 'None', 'product category',
    'None', 'Target', 'asin', 'options', 'attrs', 'price upper',
    'instuction text', 'category', 'product category', 'query', 'Goal', 'None',
    'Reward', 'Your score (min 0.0, max 1.0)',
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
  """A visible text; `kind` is 'text', 'button', 'clicked' or 'product'."""

  text: str
  kind: str = 'text'


def page_pieces(shop: Shop, state: PageState) -> list[Piece]:
  """The visible texts of a page, from top to bottom."""
  if state.page == 'done':
    return _receipt(state)
  pieces = _texts('Instruction:', state.goal.instruction)
  match state.page:
    case 'search':
      return _texts('WebShop') + pieces + _buttons('Search')
    case 'results':
      return pieces + _results(shop, state)
    case 'item':
      return pieces + _buttons('Back to Search', '< Prev') + _item(shop, state)
    case 'sub':
      sub = _texts(*_sub_page(shop.product(state), state.sub_page or ''))
      return pieces + _buttons('Back to Search', '< Prev') + sub
    case page:
      raise ValueError(f'unknown page {page!r}')


def _texts(*texts: str) -> list[Piece]:
  return [Piece(text) for text in texts]


def _buttons(*texts: str) -> list[Piece]:
  return [Piece(text, 'button') for text in texts]


def _results(shop: Shop, state: PageState) -> list[Piece]:
  total = len(shop.search(state.keywords))
  pieces = _buttons('Back to Search')
  pieces += _texts(f'Page {state.page_number} (Total results: {total})')
  pieces += _buttons(*(['< Prev'] if state.page_number > 1 else []), 'Next >')
  for asin in shop.results(state):
    product = shop.by_asin[asin]
    pieces.append(Piece(asin, 'product'))
    pieces += _texts(product.title, product.price_tag)
  return pieces


def _item(shop: Shop, state: PageState) -> list[Piece]:
  product, chosen = shop.product(state), dict(state.options)
  pieces = []
  for name, values in product.options.items():
    pieces += _texts(name)
    for value in values:
      kind = 'clicked' if chosen.get(name) == value else 'button'
      pieces.append(Piece(value, kind))
  pieces += _texts(product.title, f'Price: {product.price_tag}', 'Rating: N.A.')
  return pieces + _buttons(*shop.sub_pages, 'Buy Now')


def _sub_page(product: Product, name: str) -> Iterable[str]:
  match name:
    case 'Description':
      return (product.description,) if product.description else ()
    case 'Features':
      return product.bullets
    case 'Attributes':
      return (*product.attributes, product.query, product.category)
    case _:
      return ()  # no listing of the data has reviews


def _receipt(state: PageState) -> list[Piece]:
  # As the original's template filter writes JSON: sorted, and safe in HTML.
  options = json.dumps(dict(state.options), sort_keys=True)
  options = options.translate(_HTML_SAFE)
  return _texts(
      *_RECEIPT_BEFORE, state.asin or '', 'options', options, *_RECEIPT_AFTER,
      str(state.reward), 'Reward Details', 'None',
  )  # fmt: skip


class TextView:
  """The original's observations; responses are official actions.

  Args:
    rich: 'text_rich' instead of 'text'.
  """

  def __init__(self, rich: bool = False):
    self._rich = rich

  def render(
      self,
      shop: Shop,
      state: PageState,
      previous: PageState | None,
      valid: bool,
  ) -> str:
    """The observation; `previous` and `valid` do not matter to it."""
    del previous, valid
    pieces = page_pieces(shop, state)
    if self._rich:
      return _render_rich(pieces)
    return SEPARATOR.join(piece.text.strip() for piece in pieces)

  def to_action(self, shop: Shop, state: PageState, response: str) -> str:
    """The response itself."""
    del shop, state
    return response

  def admissible(self, shop: Shop, state: PageState) -> tuple[str, ...]:
    buttons = (name for name in shop.clickables(state) if name != 'search')
    return ('search[<words>]', *(f'click[{button}]' for button in buttons))

  def instructions(self) -> str:
    return _INSTRUCTIONS

  def vocabulary(self, shop: Shop) -> tuple[str, ...]:
    raise NotImplementedError('the text views have no closed vocabulary')


def _render_rich(pieces: Iterable[Piece]) -> str:
  lines = []
  clicked = ''
  for piece in pieces:
    text = piece.text.strip()
    match piece.kind:
      case 'button':
        lines.append(f'[button] {text} [button_]')
      case 'product':
        lines.append(f'\n[button] {text} [button_]')
      case 'clicked':
        lines.append(f'  [clicked button] {text} [clicked button_]')
        clicked += f'You have clicked {text}.\n'
      case _:
        lines.append(text)
  return clicked + '\n'.join(lines)
