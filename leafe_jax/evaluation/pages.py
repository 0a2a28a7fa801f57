"""What the report and the live page are made with: templates and their filters."""

from __future__ import annotations

import jinja2


def templates() -> jinja2.Environment:
  """The pages' own; what they are given is escaped."""
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('leafe_jax.evaluation'),
      autoescape=True,
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
  )
  environment.filters.update(
      percent=_percent, signed=_signed, seconds=_seconds, thousands=_thousands
  )
  return environment


def _percent(share: float | None, digits: int = 1) -> str:
  return '–' if share is None else f'{100 * share:.{digits}f}'


def _signed(share: float) -> str:
  return f'{100 * share:+.1f}'.replace('-', '−')


def _thousands(number: float) -> str:
  return f'{number:,}'.replace(',', '\u2009')


def _seconds(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes:02d} min'
  return f'{minutes} min {rest:02d} s' if minutes else f'{seconds:.1f} s'
