"""README.md of exported weights: the model card that the Hugging Face Hub reads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from leafe_jax.evaluation.tables import describe_tasks, end_ks, shown_ks

# What the Hub takes for `license`: SPDX identifiers and its own, in small letters.
_LICENCE = re.compile(r'[a-z0-9]+(?:[.-][a-z0-9]+)*')


class BadCard(ValueError):
  """Something that the Hub would not take; one line."""


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a card tells.

  Attributes:
    name: of the model.
    arm: the arm whose weights they are; '' for a phase of no arm.
    arms: name -> what the arm is.
    base: id of the base on the Hub; '' if unknown, or there is none.
    base_name: what the base is called here; '' for weights taught from scratch.
    licence: identifier, as the Hub has it.
    datasets: ids on the Hub.
    environment: that the model acts in.
    taught: whether a script's episodes, or conversations, taught it first.
    method: of the run.
    adapter: whether the weights are adapters for peft.
    results: as in results.json; empty before the evaluation.
    command: of the run.
    config: of the run, without secrets.
  """

  name: str
  arm: str
  arms: Mapping[str, str]
  base: str
  base_name: str
  licence: str
  datasets: Sequence[str]
  environment: str
  taught: bool
  method: str
  adapter: bool
  results: Mapping[str, Any]
  command: str
  config: str


def check(base: str, licence: str, datasets: Sequence[str]) -> None:
  """Raises BadCard for what the Hub would not take."""
  for flag, ids in (('base_model', [base] if base else []), ('datasets', datasets)):
    for name in ids:
      try:
        validate_repo_id(name)
      except HFValidationError as error:
        raise BadCard(
            f'--{flag}={name}: give an id of the Hub, ORGANISATION/NAME'
        ) from error
  if not licence:
    raise BadCard(
        '--push_ready needs --license=ID (apache-2.0, llama3.1, other, ...): the '
        'README.md of the base names none'
    )
  if not _LICENCE.fullmatch(licence):
    raise BadCard(f'--license={licence}: give an identifier such as apache-2.0')


def licence_of(readme: str) -> str:
  """The licence that the card of a base names; '' if it is no card, or has none."""
  try:
    data = ModelCard(readme, ignore_metadata_errors=True).data
    found = data.to_dict().get('license')
  except (ValueError, yaml.YAMLError):
    return ''
  return found if isinstance(found, str) else ''


def render(facts: Facts) -> str:
  """The card. ValueError for metadata that huggingface_hub refuses."""
  data = ModelCardData(
      base_model=facts.base or None,
      datasets=list(facts.datasets) or None,
      eval_results=_figures(facts),
      language='en',
      library_name='peft' if facts.adapter else 'transformers',
      license=facts.licence,
      model_name=facts.name,
      pipeline_tag='text-generation',
      tags=['leafe', 'agent', facts.environment, *([facts.arm] if facts.arm else [])],
  )
  results = facts.results if facts.results.get('arms') else {}
  body = _template().render(
      facts=facts, results=results, ks=shown_ks(results) if results else [],
      ends=end_ks(results) if results else [], pairs=_pairs(facts.arm, results),
      tasks=describe_tasks(results['tasks']) if results.get('tasks') else '',
  )
  return ModelCard(f'---\n{data.to_yaml()}\n---\n\n{body}\n').content


def _figures(facts: Facts) -> list[EvalResult] | None:
  """Pass@k of the arm for the model index; none if it was not evaluated."""
  arm = facts.results.get('arms', {}).get(facts.arm)
  if arm is None:
    return None
  tasks = facts.results.get('tasks') or {}
  split, count = tasks.get('split', 'test'), arm['n_tasks']
  return [
      EvalResult(
          task_type='text-generation', task_name='acting in an environment',
          dataset_type=facts.environment, dataset_split=split,
          dataset_name=f'{facts.environment}, {count} tasks',
          metric_type='pass@k', metric_name=f'Pass@{k}',
          metric_value=round(100 * point['mean'], 2), metric_args={'k': int(k)},
      )
      for k, point in arm['pass_at_k'].items()
  ]  # fmt: skip


def _pairs(arm: str, results: Mapping[str, Any]) -> dict[str, Any]:
  """The differences to the other arms."""
  pairs = results.get('paired', {}).items()
  return {name: figures for name, figures in pairs if arm in name.split(' - ')}


def _template() -> jinja2.Template:
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('leafe_jax.evaluation'),
      undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
      autoescape=False,  # Markdown
  )
  environment.filters.update(interval=_interval, difference=_difference)
  return environment.get_template('model_card.md')


def _interval(point: Mapping[str, float]) -> str:
  mean, low, high = (100 * point[name] for name in ('mean', 'lo', 'hi'))
  return f'{mean:.1f} [{low:.1f}, {high:.1f}]'


def _difference(point: Mapping[str, float]) -> str:
  mean, low, high = (100 * point[name] for name in ('mean', 'lo', 'hi'))
  return f'{mean:+.1f} [{low:+.1f}, {high:+.1f}]'
