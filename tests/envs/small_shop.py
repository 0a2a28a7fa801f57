"""A shop of four products, and where the official data lies."""

from __future__ import annotations

import os
import pathlib

import pytest

from envs.webshop import pages
from envs.webshop.catalogue import Goal, Product
from envs.webshop.env import WebShopWorld
from envs.webshop.shop import Shop

_ROOT = pathlib.Path(__file__).parents[2]
DATA_DIR = pathlib.Path(
    os.environ.get('LEAFE_DATA_DIR', _ROOT.parent / 'shared' / 'data')
) / 'webshop'  # fmt: skip

needs_data = pytest.mark.skipif(
    not (DATA_DIR / 'products_1000.json').exists(),
    reason='needs the WebShop data; set LEAFE_DATA_DIR to its parent directory',
)


def product(asin: str, title: str, price: float = 20.0, **changes) -> Product:
  fields = {
      'description': f'A fine {title}.',
      'bullets': ('machine washable', 'made to last'),
      'price_tag': f'${price}',
      'options': {'color': ('red', 'blue'), 'size': ('small', 'x-large')},
      'attributes': ('soft cotton',),
      'category': 'Clothing › Men › Shirts',
      'query': 'shirts',
  }
  return Product(asin=asin, title=title, price=price, **{**fields, **changes})


PRODUCTS = (
    product('B000000001', 'Red Cotton Shirt'),
    product('B000000002', 'Wool Shirt', 35.0),
    product('B000000003', 'Silk Shirt', 50.0, options={}),
    product(
        'B000000004',
        'Garden Hose',
        9.5,
        options={'length': ('10 m',), 'color': ('red',), 'trim': ('red',)},
        attributes=('leak proof',),
        category='Garden › Watering',
        query='hoses',
    ),
)


def goal(target: Product = PRODUCTS[0], text: str = 'a red shirt', **changes) -> Goal:
  fields = {
      'attributes': ('soft cotton',),
      'options': (('color', 'red'), ('size', 'small')),
      'price_upper': 30.0,
  }
  return Goal(
      asin=target.asin,
      instruction=text,
      title=target.title,
      query=target.query,
      category=target.category,
      **{**fields, **changes},
  )


def shop(**options) -> Shop:
  return Shop(PRODUCTS, **{'page_size': 2, **options})


def world(max_steps: int = 0, rich: bool = False) -> WebShopWorld:
  goals = {
      'train': (goal(), goal(text='a small red shirt')),
      'validation': (goal(PRODUCTS[1], 'a wool shirt'),),
      'test': (goal(PRODUCTS[3], 'a hose'),),
  }
  view = pages.TextView(rich)
  return WebShopWorld('webshop-small', 'small', shop(), view, goals, max_steps)
