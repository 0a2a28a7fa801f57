"""What a checkpoint does in an environment, in two minutes, before any training.

  python -m tools.try_checkpoint --checkpoint=DIR --env=webshop \\
      --options='{"view": "text"}'

loads it, plays a few episodes, lets it reflect on each failure and take the
branch that it asks for, and prints what was sent and said with tokens counted,
how much of it could be read, speed and memory, and what to change. Exits with 1
where something stands in the way of a run. The defaults are for a first look at a
small model on two CPU cores; with a GPU, take more --episodes, --horizon and
--max_tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from envs import api, registry
from leafe_jax import command_line
from leafe_jax.config import Env
from leafe_jax.methods.run import Run
from leafe_jax.policy import huggingface
from leafe_jax.rollout.explore import explore
from leafe_jax.rollout.grow import Limits
from leafe_jax.sampler import NonFiniteLogits
from leafe_jax.text import thoughts
from leafe_jax.tree import Tree
from tools import chat

SHOWN = 1500  # characters of a text, without --full
ROUGHLY_ALL = 0.9


@dataclasses.dataclass(frozen=True)
class Figures:
  """What a few episodes came to; shares are NaN where there is nothing to share.

  Attributes:
    to_start: tokens of the first prompt, the longest one.
    a_turn: mean tokens that a later observation adds.
    said: mean tokens of a response.
    turns: taken in all.
    cut_off, in_thought: share of responses that came to the limit, and of these
      the share that ended inside a thought.
    read, accepted: share of responses that held an action, and that the world
      took.
    asked, reflected: reflections asked for, and the share that could be read.
    solved: episodes that succeeded.
    overlong: episodes that ended for want of room.
    complaint: what was said of the first response without an action.
  """

  to_start: int
  a_turn: float
  said: float
  turns: int
  cut_off: float
  in_thought: float
  read: float
  accepted: float
  asked: int
  reflected: float
  solved: int
  overlong: int
  complaint: str


def measure(trees: Sequence[Tree]) -> Figures:
  """The figures of some trees."""
  nodes = [node for tree in trees for node in tree.nodes]
  turns = [turn for node in nodes for turn in node.turns]
  cut = [turn for turn in turns if turn.cut_off]
  asked = [r for node in nodes for r in node.reflections]
  later = [len(turn.prompt_ids) for turn in turns if turn.index > 1]
  complaints = [turn.error for turn in turns if turn.error and not turn.cut_off]
  return Figures(
      to_start=max((len(t.prompt_ids) for t in turns if t.index == 1), default=0),
      a_turn=sum(later) / max(len(later), 1),
      said=sum(len(turn.response_ids) for turn in turns) / max(len(turns), 1),
      turns=len(turns),
      cut_off=_share(len(cut), len(turns)),
      in_thought=_share(sum(thoughts.is_open(t.response) for t in cut), len(cut)),
      read=_share(sum(turn.action is not None for turn in turns), len(turns)),
      accepted=_share(sum(turn.valid for turn in turns), len(turns)),
      asked=len(asked),
      reflected=_share(sum(r.error is None for r in asked), len(asked)),
      solved=sum(node.success for node in nodes),
      overlong=sum(node.ended_by == 'overlong' for node in nodes),
      complaint=complaints[0] if complaints else '',
  )


def _share(part: int, whole: int) -> float:
  return part / whole if whole else math.nan


def advise(
    found: Figures, horizon: int, max_length: int, max_tokens: int, template: str
) -> list[str]:
  """What to change, most important first; nothing where all is well.

  Args:
    found: in the episodes.
    horizon: turns of an episode.
    max_length, max_tokens: of a transcript and of a response.
    template: the source of the chat template.
  """
  advice = []
  if found.turns and found.cut_off > ROUGHLY_ALL:
    advice.append(
        f'hardly any response came to its end within {max_tokens} tokens: raise '
        '--config.explore.max_response_tokens; if long ones do not end either, the '
        'template is not the one that the model was trained with, or it is a base '
        'model'
    )
  elif found.cut_off > 1 - ROUGHLY_ALL:
    advice.append(
        f'{found.cut_off:.0%} of the responses were cut off at {max_tokens} tokens: '
        'raise --config.explore.max_response_tokens'
    )
  if found.in_thought > 0.5:
    off = 'enable_thinking' in template
    way = '--config.policy.template.enable_thinking=False' if off else 'policy.prompts'
    advice.append(f'most of those were still thinking: ask for less with {way}')
  if found.read < ROUGHLY_ALL and found.complaint:
    advice.append(
        f'only {found.read:.0%} of the responses held an action ({found.complaint}): '
        'show the form with --config.policy.prompts, or teach it first'
    )
  if found.reflected < 0.5:
    advice.append(
        f'only {found.reflected:.0%} of {found.asked} reflections could be read: '
        'the gate before Stage 1 would refuse (gate.min_parsed)'
    )
  whole = found.to_start + horizon * (found.a_turn + found.said)
  if found.overlong or whole > max_length:
    advice.append(
        f'an episode of {horizon} turns takes about {whole:.0f} tokens, a transcript '
        f'holds {max_length}: raise --config.policy.max_length, or show '
        '--config.policy.history_turns=2 turns alone'
    )
  return advice


def show_sent(run: Run, trees: Sequence[Tree], full: bool) -> None:
  """The first episode as it was sent and said, and its reflection."""
  spell = run.tokenizer.decode
  node = trees[0].nodes[0]
  for turn in node.turns[:2]:
    ids = [*turn.prompt_ids, *turn.opener_ids]
    _show(f'turn {turn.index}, sent ({len(ids)} tokens)', str(spell(ids)), full)
    said = f'turn {turn.index}, said ({len(turn.response_ids)} tokens)'
    _show(said, str(spell(turn.response_ids)), full)
    _show('read as', turn.action or turn.error or '', full)
  for answer in node.reflections[:1]:
    ids = run.transcript.reflection(answer.turn, answer.terminal)
    _show(f'reflection, sent ({len(ids)} tokens)', str(spell(ids)), full)
    _show('reflection, said', answer.raw, full)
    read = f'go back to turn {answer.tau}: {answer.experience}'
    _show('read as', answer.error or read, full)


def _show(title: str, text: str, full: bool) -> None:
  more = len(text) - SHOWN
  if more > 0 and not full:
    text = f'{text[: SHOWN // 2]}\n[... {more} characters, see --full ...]\n'
    text += text[-SHOWN // 2 :]
  chat.show(title, text)


def show_figures(found: Figures, run: Run, seconds: float, loading: float) -> None:
  sampled = run.sampler.stats.sampled_tokens
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  lines = [
      f'tokens: {found.to_start} to start, {found.a_turn:.0f} a turn, '
      f'{found.said:.0f} a response',
      f'responses: {found.turns}, {found.cut_off:.0%} cut off, {found.read:.0%} with '
      f'an action, {found.accepted:.0%} accepted by the world',
      f'reflections: {found.asked} asked for, {found.reflected:.0%} readable',
      f'solved: {found.solved} episodes',
      f'speed: loaded in {loading:.1f} s, {sampled} tokens sampled in {seconds:.1f} s '
      f'({sampled / max(seconds, 1e-9):.1f} a second, compiling included)',
      f'memory: {peak:.2f} GiB of this process at most',
  ]
  print('\n'.join(['figures:', *(f'  {line}' for line in lines)]))


def attempt(values: Any, place: pathlib.Path) -> list[str]:
  """Loads, plays, prints; returns the advice."""
  env = Env(values.env, json.loads(values.options), horizon=values.horizon)
  run = chat.of_checkpoint(
      values.checkpoint, env, place, values, values.episodes,
      prompts=values.prompts, template=json.loads(values.template),
  )
  tasks = run.world.tasks(values.split)[: values.episodes]
  if not tasks:
    raise ValueError(f'--split={values.split}: {values.env} has no tasks in it')
  run.check()  # before the weights are read
  start = time.monotonic()
  params = huggingface.load_params(run.checkpoint, run.shape, run.mesh)
  player = run.player(params, 0)
  loading = time.monotonic() - start
  count = sum(math.prod(array.shape) for array in params.values())
  print(f'{count:,} weights, {run.shape.vocab_size:,} rows in the vocabulary')
  stops = run.tokenizer.convert_ids_to_tokens(list(run.transcript.stop_ids))
  print(f'responses end with {", ".join(map(repr, stops))}')
  options = dataclasses.replace(
      run.config.explore, num_roots=1, reflect_every=0, max_depth=1, restart=False,
      temperature=values.temperature,
  )
  trees = explore(player, tasks, options, lambda task: Limits(2, 0), values.episodes)
  show_sent(run, trees, values.full)
  found = measure(trees)
  show_figures(found, run, time.monotonic() - start - loading, loading)
  return advise(
      found, values.horizon, run.shape.policy.max_length, options.max_response_tokens,
      str(run.tokenizer.chat_template),
  )


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  command_line.define_path(
      'checkpoint', None, 'Directory of the checkpoint.', required=True,
      buckets_too=True,
  )
  flags.DEFINE_string(
      'env', None, f'One of {", ".join(registry.names())}, or package.module:function.',
      required=True,
  )
  flags.DEFINE_string('options', '{}', 'Options of the world, as JSON.')
  flags.DEFINE_string('template', '{}', 'Variables of the chat template, as JSON.')
  flags.DEFINE_string('prompts', '', 'TOML file of what is said, see configs/prompts.')
  flags.DEFINE_enum('split', 'train', api.SPLITS, 'Split of the tasks.')
  flags.DEFINE_integer('episodes', 2, 'Tasks to try, an episode each.', lower_bound=1)
  flags.DEFINE_integer('horizon', 3, 'Turns of an episode.', lower_bound=1)
  flags.DEFINE_integer('max_tokens', 96, 'Of a response.', lower_bound=1)
  flags.DEFINE_integer('max_length', 0, 'Of a transcript; 0: up to 8192.')
  flags.DEFINE_float('temperature', 1.0, 'Of sampling.', lower_bound=0)
  flags.DEFINE_enum('dtype', 'float32', ('float32', 'bfloat16'), 'Of the weights.')
  flags.DEFINE_bool('full', False, 'Show texts whole.')


def main(argv: Sequence[str]) -> int:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  sys.stdout.reconfigure(errors='backslashreplace')  # pyright: ignore
  try:
    with tempfile.TemporaryDirectory() as place:
      advice = attempt(flags.FLAGS, pathlib.Path(place))
  except (ValueError, TypeError, api.EnvError, NonFiniteLogits) as error:
    raise command_line.UsageError(' '.join(str(error).split())) from error
  if not advice:
    print('nothing stands in the way of a run')
    return 0
  print('\n'.join(['what to change:', *(f'  - {line}' for line in advice)]))
  return 1


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
