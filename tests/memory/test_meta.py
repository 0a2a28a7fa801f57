"""The strict form of meta-experience."""

from __future__ import annotations

import pytest

from leafe_jax.memory import meta

GOOD = (
    '<failure>step 2 bought blue</failure>\n<success>looked on</success>'
    '<reflection>I check every wish</reflection>\n'
    '<heuristics>if a wish is not met, then look on</heuristics>\n'
)


def test_four_sections():
  found = meta.parse(GOOD)
  assert found.failure == 'step 2 bought blue'
  assert found.heuristics == 'if a wish is not met, then look on'


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', '<failure> and </failure> must stand there once'),
        (GOOD.replace('<success>', '').replace('</success>', ''), '<success>'),
        (GOOD + GOOD, 'once each'),
        ('Here it is: ' + GOOD, 'nothing else'),
        (GOOD.replace('looked on', ' '), 'section success is empty'),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(text, reason):
  with pytest.raises(meta.MetaError, match=reason):
    meta.parse(text)


def test_the_sections_in_another_order_are_refused():
  first, second = GOOD.split('\n', 1)
  with pytest.raises(meta.MetaError, match='in order'):
    meta.parse(second + first)


@pytest.mark.parametrize(
    ('said', 'reason'),
    [
        ('if it costs above 50, then look on', 'the number 50'),
        ('if you see it, then  Click Large', "the action 'click large'"),
    ],
)  # fmt: skip
def test_what_is_of_this_task_alone_is_refused(said, reason):
  found = meta.parse(GOOD.replace('if a wish is not met, then look on', said))
  with pytest.raises(meta.MetaError, match=reason):
    meta.check_general(found, 'a shirt below 50 dollars', ['buy', 'click large'])


def test_numbers_and_actions_of_the_task_may_stand_in_the_first_two_sections():
  found = meta.parse(GOOD.replace('looked on', 'did click large below 50'))
  meta.check_general(found, 'a shirt below 50 dollars', ['click large', 'buy'])
