"""Reads the catalogue that WebShop was published with, from a directory.

Files, the first found of each line:

* products: items_shuffle_1000.json, items_shuffle.json (as published), or
  products_1000.json (the same after the original's own normalisation);
* attributes and instructions: items_ins_v2_1000.json, items_ins_v2.json;
* with human_goals: items_human_ins.json, items_human_ins_subset13.json;
* optional: color_words.json, the colours that options are compared by.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from envs.webshop import goals as goal_lib
from envs.webshop import reward
from envs.webshop.catalogue import Goal, Product

PRODUCT_FILES = (
    'items_shuffle_1000.json',
    'items_shuffle.json',
    'products_1000.json',
)
ATTRIBUTE_FILES = ('items_ins_v2_1000.json', 'items_ins_v2.json')
HUMAN_FILES = ('items_human_ins.json', 'items_human_ins_subset13.json')
COLOR_FILE = 'color_words.json'
DEFAULT_PRICE = 100.0
_NEEDED = (
    'name', 'full_description', 'small_description', 'product_category', 'query',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Official:
  """The published shop.

  Attributes:
    products: in the order of the file.
    goals: in the original's order.
    colors: colour words, in the order in which they are looked for.
  """

  products: tuple[Product, ...]
  goals: tuple[Goal, ...]
  colors: tuple[str, ...]


def load(
    data_dir: str | pathlib.Path, seed: int = 42, human_goals: bool = False
) -> Official:
  """Reads the catalogue and makes its goals.

  Args:
    data_dir: the directory with the files above.
    seed: draws one price within each price range, then the price caps; not
      the seed of a run. 42 gives the goals of common small setups.
    human_goals: goals written by people instead of synthetic ones.

  Raises:
    FileNotFoundError: a needed file is missing; names the choices.
    ValueError: a file is not what it should be; names file and record.
  """
  folder = pathlib.Path(data_dir)
  rng = random.Random(seed)
  # An original session seeded like this draws one word before its first price:
  # with it prices, caps and goal order come out equal.
  rng.getrandbits(32)
  path = _find(folder, PRODUCT_FILES)
  instructions = _read(_find(folder, ATTRIBUTE_FILES), dict)
  products = read_products(_read(path, list), instructions, rng, str(path))
  if human_goals:
    annotations = _read(_find(folder, HUMAN_FILES), dict)
    goals = goal_lib.human_goals(products, annotations, rng)
  else:
    goals = goal_lib.synthetic_goals(products, instructions, rng)
  color_path = folder / COLOR_FILE
  colors = _read(color_path, list) if color_path.exists() else reward.COLORS
  return Official(products, goal_lib.shuffle_goals(list(goals)), tuple(colors))


def _find(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
  for name in names:
    if (folder / name).is_file():
      return folder / name
  raise FileNotFoundError(
      f'no file of the WebShop catalogue in data_dir={str(folder)!r}; expected '
      f'one of {", ".join(names)}'
  )


def _read(path: pathlib.Path, kind: type) -> Any:
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:  # covers bad JSON and bad UTF-8
    raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(content, kind):
    raise ValueError(  # noqa: TRY004 - about content, not types
        f'{path} holds a {type(content).__name__}; expected a {kind.__name__}'
    )
  return content


def read_products(
    records: Sequence[Mapping[str, Any]],
    attributes: Mapping[str, Mapping[str, Any]],
    rng: random.Random,
    source: str = 'products',
) -> tuple[Product, ...]:
  """Products of raw or already normalised records, in order.

  As the original: records without a usable asin and repeated ones are skipped.
  `rng` draws the one price of products that have a range. ValueError names
  `source`, the record and what is wrong with it.
  """
  products: dict[str, Product] = {}
  for number, record in enumerate(records):
    try:
      asin = record['asin']
      if asin == 'nan' or len(asin) > 10 or asin in products:
        continue
      products[asin] = _read_product(record, attributes.get(asin, {}), rng)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
      raise ValueError(
          f'{source}: product {number} is malformed ({error!r}); expected '
          f'asin, {", ".join(_NEEDED)}'
      ) from error
  return tuple(products.values())


def _read_product(
    record: Mapping[str, Any],
    attributes: Mapping[str, Any],
    rng: random.Random,
) -> Product:
  bullets = record['small_description']
  prices, tag = _read_prices(record.get('pricing'))
  own = attributes.get('attributes', record.get('Attributes', ()))
  return Product(
      asin=record['asin'],
      title=record['name'],
      description=record['full_description'] or '',
      bullets=tuple(bullets) if isinstance(bullets, list) else (bullets or '',),
      price=prices[0] if len(prices) == 1 else rng.uniform(*prices),
      price_tag=tag,
      options=_read_options(record),
      attributes=tuple(own),
      category=record['product_category'],
      query=record['query'].lower().strip(),
  )


def _read_prices(pricing: str | Sequence[float] | None) -> tuple[list[float], str]:
  """One price or a range of two, and how pages show it."""
  if isinstance(pricing, str):
    parts = pricing.split('$')[1:]
    pricing = [float(re.sub(r'[^\d.]', '', part)) for part in parts]
  prices = list(pricing or [DEFAULT_PRICE])[:2]
  return prices, ' to '.join(f'${price}' for price in prices)


def _read_options(record: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
  if 'options' in record:  # normalised already
    return {name: tuple(values) for name, values in record['options'].items()}
  raw = record.get('customization_options') or {}
  return {
      name.lower(): tuple(
          entry['value'].strip().replace('/', ' | ').lower() for entry in entries
      )
      for name, entries in raw.items()
      if entries is not None
  }
