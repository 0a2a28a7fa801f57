"""The environment contract on WebShop, small and official."""

from __future__ import annotations

import functools

from envs import registry
from envs.contract import EnvironmentContract
from tests.envs import small_shop


class TestSmallShop(EnvironmentContract):

  def world(self):
    return small_shop.world()

  def actions(self, task):
    return (
        'search[red shirt]', 'click[next >]', 'click[< prev]', 'click[no]',
        'click[b000000001]', 'click[red]', 'click[features]', 'click[< prev]',
        'click[small]', 'click[buy now]',
    )  # fmt: skip


class TestSmallShopWithALimit(EnvironmentContract):

  def world(self):
    return small_shop.world(max_steps=3)

  def actions(self, task):
    return ('search[shirt]', 'click[next >]', 'click[back to search]', 'x')


@functools.cache
def _official_world():
  return registry.make(
      'webshop', catalogue='official', data_dir=str(small_shop.DATA_DIR)
  )


@small_shop.needs_data
class TestOfficialShop(EnvironmentContract):

  def world(self):
    return _official_world()

  def task(self, world):
    """One whose target is on the first page that its own text finds."""
    return next(
        task
        for task in world.tasks('test')
        if task.payload['asin']
        in world.shop.search(tuple(task.instruction.lower().split(' ')))[:10]
    )

  def actions(self, task):
    asin = task.payload['asin'].lower()
    return (
        f'search[{task.instruction}]', f'click[{asin}]', 'click[description]',
        'click[< prev]', 'click[buy now]',
    )  # fmt: skip
