"""What tests of ALFWorld share."""

from __future__ import annotations

import importlib.util

import pytest

needs_engine = pytest.mark.skipif(
    any(
        importlib.util.find_spec(name) is None
        for name in ('alfworld', 'textworld', 'fast_downward')
    ),
    reason='pip install --no-deps -r requirements-optional.lock',
)
