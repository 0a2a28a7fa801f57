"""Measures the sampler against other samplers and against itself without reuse.

    python -m tools.bench_sampler --preset=4m --cores=1 --clock=cpu \
        --tunix_python=A/bin/python --torch_python=B/bin/python \
        --json=tools/baselines/sampler_cpu.json

All of them get the same weights, prompts and cores, and sample at temperature
1. Their repeats take turns within one run; a ratio is rival / ours of one
repeat, above 1 where ours is faster. Workloads:

    single_B    B prompts of 64 tokens, 48 new ones
    multi_turn  episodes of 10 turns: 60 tokens observed, 12 answered
    tree        branches that leave 1,000-token episodes at random turns

`tunix` and `transformers` read the whole history at every turn, as `no_reuse`
does with our sampler; `no_reuse` alone runs the tree. Then come the cost of one
rollback, and the shares of the machine's bounds that decoding reaches.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from absl import flags

from leafe_jax import command_line
from leafe_jax import config as config_lib
from leafe_jax.policy import hf_export, model, runtime, sharding
from leafe_jax.policy.huggingface import Shape
from leafe_jax.progress import Progress
from tools.benchmarks import bounds, figures, machine, rollback, workloads
from tools.benchmarks.ours import Ours
from tools.benchmarks.peers import NEEDS, Peer, PeerUnavailable
from tools.benchmarks.presets import PRESETS, Preset

_RIVALS = (*NEEDS, 'no_reuse')
# Trees of the run that compiles: a forest without reuse takes many minutes.
_FIRST_TREES = 4
_WORKLOADS = ('single_1', 'single_16', 'single_64', 'multi_turn', 'tree')

Workload = workloads.Conversation | workloads.Tree
Run = Callable[[Any], machine.Seconds]  # of the workloads that it can take


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  flags.DEFINE_enum('preset', '4m', list(PRESETS), 'Shape of the policy.')
  flags.DEFINE_enum(
      'dtype', '', ['', 'float32', 'bfloat16'],
      "Type of weights and products, for all; empty: the preset's.",
  )  # fmt: skip
  _define_choices('against', _RIVALS, 'Rivals.')
  _define_choices('workloads', _WORKLOADS, 'What to run.')
  flags.DEFINE_integer(
      'repeats', 5, 'Timed runs of each, after two to compile.', lower_bound=1
  )
  flags.DEFINE_integer('episodes', 64, 'Episodes of multi_turn.', lower_bound=1)
  flags.DEFINE_integer('tasks', 64, 'Trees.', lower_bound=1)
  flags.DEFINE_integer('turns', 14, 'Turns of the episodes in trees.', lower_bound=1)
  flags.DEFINE_integer(
      'attempts', 16, 'Episodes per tree, the root included.', lower_bound=1
  )
  flags.DEFINE_integer(
      'history', 1000, 'Tokens before the decision gone back to.', lower_bound=1
  )
  command_line.define_numbers('bounds', ['1', '64'], 'Batches held against the bounds.')
  flags.DEFINE_boolean('rollback', True, 'Measure a rollback.')
  command_line.define_numbers('cores', [], 'Cores to stay on, numbers; none: all.')
  flags.DEFINE_enum(
      'clock', 'wall', ['wall', 'cpu'],
      'What counts; cpu is steadier where neighbours take the cores, and fair on'
      ' one core alone.',
  )  # fmt: skip
  flags.DEFINE_string('tunix_python', '', 'Interpreter with google-tunix.')
  flags.DEFINE_string('torch_python', '', 'Interpreter with torch, transformers.')
  command_line.define_path('json', '', 'File that takes the result.')
  command_line.define_path('baseline', '', 'File to compare with.')


def _define_choices(name: str, choices: Sequence[str], what: str) -> None:
  flags.DEFINE_list(name, list(choices), f'{what} Of: {", ".join(choices)}.')
  flags.register_validator(
      name,
      lambda chosen: set(chosen) <= set(choices),
      f'choose from {", ".join(choices)}',
  )


def make_workload(name: str, vocab_size: int, most_trees: int) -> Workload:
  """The workload of a name, in the numbers that the flags say."""
  values = flags.FLAGS
  if name == 'multi_turn':
    return workloads.conversation(values.episodes, 10, 60, 12, vocab_size)
  if name == 'tree':
    shape = (min(values.tasks, most_trees), values.attempts, values.turns)
    return workloads.tree(*shape, 60, 12, vocab_size)
  return workloads.conversation(int(name.split('_')[1]), 1, 64, 48, vocab_size)


@contextlib.contextmanager
def peers(
    preset: Preset, params: model.Params, names: Sequence[str]
) -> Iterator[list[Peer]]:
  """The other samplers that can be run here, with our weights."""
  with contextlib.ExitStack() as stack:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    checkpoint = pathlib.Path(directory) / 'policy'
    shape = Shape(preset.policy, preset.vocab_size)
    length = {'max_position_embeddings': preset.policy.max_length}
    hf_export.write(checkpoint, params, shape, fields=length)
    started = []
    for name in names:
      try:
        python = str(flags.FLAGS[NEEDS[name][0]].value)
        peer = Peer(name, python, checkpoint)
      except PeerUnavailable as error:
        print(error)
        continue
      started.append(stack.enter_context(contextlib.closing(peer)))
    yield started


def runs_of(
    workload: Workload, ours: Ours, others: Sequence[Peer], no_reuse: bool
) -> dict[str, Run]:
  """A call per sampler that can take the workload, ours first."""
  runs: dict[str, Run] = {'ours': ours.runner(workload, reuse=True)}
  if isinstance(workload, workloads.Conversation):
    runs |= {peer.name: peer.run for peer in others}
  several = isinstance(workload, workloads.Tree) or len(workload.observations) > 1
  if no_reuse and several:
    runs['no_reuse'] = ours.runner(workload, reuse=False)
  return runs


def measure(
    name: str, runs: dict[str, Run], workload: Workload, first: Workload
) -> dict[str, list[float]]:
  """Seconds per sampler and repeat, after two of `first` that compile."""
  clock, repeats = flags.FLAGS.clock, flags.FLAGS.repeats
  times: dict[str, list[float]] = {sampler: [] for sampler in runs}
  with Progress(name, (2 + repeats) * len(runs), 'run') as bar:
    for _ in range(2):  # the second puts away what the first has read
      for run in runs.values():
        run(first)
        bar.advance()
    for _ in range(repeats):
      for sampler, run in runs.items():
        times[sampler].append(getattr(run(workload), clock))
        bar.advance()
  return times


def measure_workload(
    name: str, preset: Preset, ours: Ours, others: Sequence[Peer]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Times of a workload, printed, and the rivals' ratios."""
  values = flags.FLAGS
  workload = make_workload(name, preset.vocab_size, values.tasks)
  first = make_workload(name, preset.vocab_size, _FIRST_TREES)
  runs = runs_of(workload, ours, others, 'no_reuse' in values.against)
  seconds = measure(name, runs, workload, first)
  ratios = {}
  for rival, theirs in seconds.items():
    rate = workload.num_sampled / min(theirs)
    print(f'  {name:<12}{rival:<14}{min(theirs):9.3f} s{rate:12,.0f} tokens/s')
    if rival != 'ours':
      pairs = zip(theirs, seconds['ours'], strict=True)
      ratios[f'{name} vs {rival}'] = figures.spread([a / b for a, b in pairs])
  times = {
      'command': figures.command('bench_sampler'),
      'rows': workload.num_rows,
      'sampled_tokens': workload.num_sampled,
  }
  return times | {'seconds': seconds}, ratios


def measure_machine(preset: Preset, ours: Ours) -> dict[str, Any]:
  """The cost of a rollback and the shares of the bounds."""
  values = flags.FLAGS
  found: dict[str, Any] = {}
  if values.rollback:
    found['rollback'] = rollback.measure(
        ours, values.history, preset.vocab_size, values.clock, values.repeats
    )
  if values.bounds:
    found['bounds'] = [
        bounds.decode_bounds(preset, ours, rows, values.clock, values.repeats)
        for rows in map(int, values.bounds)
    ]
  for row in filter(None, [*found.get('bounds', []), found.get('rollback')]):
    print('  ' + ', '.join(f'{name} {value:.4g}' for name, value in row.items()))
  return found


def keep(result: dict[str, Any]) -> None:
  """Saves what is there, lest a killed workload take it along."""
  values = flags.FLAGS
  if values.json:
    figures.save(values.json, values.preset, result)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  values = flags.FLAGS
  machine.pin([int(core) for core in values.cores])
  runtime.keep_freed_memory()
  baseline = figures.load(values.baseline, values.preset) if values.baseline else None
  preset = PRESETS[values.preset].typed(values.dtype)
  mesh = sharding.make_mesh(config_lib.Mesh())
  key = jax.random.key(0)
  params = model.init_params(preset.policy, preset.vocab_size, key, mesh)
  ours = Ours(preset, params)
  result: dict[str, Any] = {
      'machine': machine.description(),
      'clock': values.clock,
      'weights': bounds.num_params(preset),
      'times': {},
      'ratios': {},
  }
  print(f'{values.preset} on {result["machine"]["device"]}, {values.clock} time')
  result |= measure_machine(preset, ours)
  keep(result)
  wanted = [name for name in NEEDS if name in values.against]
  with peers(preset, params, wanted) as others:
    result['peers'] = {peer.name: peer.versions for peer in others}
    for name in values.workloads:
      result['times'][name], ratios = measure_workload(name, preset, ours, others)
      result['ratios'] |= ratios
      keep(result)
  print('\n'.join(figures.ratio_lines(result, baseline)))


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
