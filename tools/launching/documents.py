"""YAML that people read: keys in their order, texts of several lines as blocks."""

from __future__ import annotations

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
  pass


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
  style = '|' if '\n' in text else None
  return dumper.represent_scalar('tag:yaml.org,2002:str', text, style=style)


_Dumper.add_representer(str, _text)


def dump(document: Any) -> str:
  """JSON types as YAML."""
  return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000)
