"""How pages read and how responses become actions.

The engine moves between `PageState`s by official actions (`search[...]`,
`click[...]`). A view turns states into text for the agent and the agent's
responses into official actions. Two views exist: `pages.TextView`, the
official text mode, and `compact.CompactView`, a few words a page for small
policies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from envs.webshop.catalogue import PageState

if TYPE_CHECKING:
  from envs.webshop.shop import Shop


class View(Protocol):

  def render(
      self,
      shop: Shop,
      state: PageState,
      previous: PageState | None,
      valid: bool,
  ) -> str:
    """The observation for `state`.

    Args:
      shop: products, index, rules.
      state: the new state.
      previous: the state before the action; None after reset.
      valid: whether the action did anything.
    """
    ...

  def to_action(self, shop: Shop, state: PageState, response: str) -> str:
    """The official action meant by a response given in `state`.

    An unintelligible response is returned as it is: the shop then answers as
    it does to every bad action.
    """
    ...

  def admissible(self, shop: Shop, state: PageState) -> tuple[str, ...]:
    """Responses that do something in `state`."""
    ...

  def instructions(self) -> str:
    """Rules and action grammar for language models."""
    ...

  def vocabulary(self, shop: Shop) -> tuple[str, ...]:
    """Every word that its texts can hold.

    NotImplementedError where they are open-ended.
    """
    ...
