"""Writes what a run lived through as messages, for any trainer.

    python -m tools.export_experience --run=DIR --out=FILE.jsonl
    python -m tools.export_experience --run=DIR --out=FILE.jsonl --what=reh,cf \\
        --arm=leafe --format=prompt_completion

One JSON object a line: D_reh and D_cf of the arm, as they were trained, and every
episode of its trees, with `messages` of `role`, `content` and `loss` (whether an
assistant's words are learnt), and beside them kind, arm, task_id, split, node, parent,
tau, depth, turn, hint, success, score, ended_by. The hint of a branch is there alone,
never in the words. --config.warm_start.data=FILE.jsonl reads it back to the same token
ids (`token_ids` are those that the text alone would not give).

axolotl takes it with `type: chat_template` and `message_field_training: loss`; TRL with
--format=prompt_completion, one row a trained answer, as TRL knows no flag of a message;
LLaMA-Factory with `formatting: sharegpt` and the tags role, content, user, assistant,
where `mask_history` fits --format=messages of D_cf.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

from absl import flags

from leafe_jax import buckets, command_line, files, settings
from leafe_jax.experience import dataset, messages
from leafe_jax.experience.messages import Row, Scribe
from leafe_jax.methods import catalogue
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.run import Run
from leafe_jax.rundir import RunDirectory
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.tree import Tree

WHAT = ('reh', 'cf', 'trees')
FORMATS = ('messages', 'prompt_completion')


def export(
    rundir: pathlib.Path, out: pathlib.Path, arm: str, what: Sequence[str],
    form: str = 'messages',
) -> dict[str, int]:
  """Writes the file, all of it or nothing; returns the number of rows by kind.

  Args:
    rundir: of the run, which need not be finished.
    out: to write.
    arm: of the run that was trained on D_reh or D_cf.
    what: of WHAT.
    form: of FORMATS.

  Raises:
    FileNotFoundError: no run, or it has not come so far.
    ValueError: its policy has no chat template, an unknown arm, or nothing to write.
  """
  run = _open(rundir)
  transcript = run.transcript
  if not isinstance(transcript, ChatTranscript):
    raise ValueError(
        f'{rundir}: its policy was trained from scratch and has no chat template, so '
        'its episodes are no messages'
    )
  counts: collections.Counter[str] = collections.Counter()
  partial = out.with_name(f'{out.name}{files.PARTIAL}')
  with partial.open('w', encoding='utf-8') as file:
    for row in _rows(run, Scribe(transcript), arm, what):
      for shaped in messages.as_completions(row) if form != 'messages' else (row,):
        counts[row['kind']] += 1
        file.write(json.dumps({'arm': arm, **shaped}) + '\n')
  if not counts:
    partial.unlink()
    raise ValueError(f'{rundir}: {", ".join(what)} of arm {arm} are empty')
  files.replace(partial, out)
  return dict(counts)


def _open(rundir: pathlib.Path) -> Run:
  directory = RunDirectory(rundir, make=False)
  saved = directory.config() if rundir.is_dir() else None
  if saved is None:
    raise FileNotFoundError(f'no config.json of a run in {rundir}')
  config = settings.from_config_dict(saved)
  return Run(config, directory, settings.sha256(config))


def _rows(
    run: Run, scribe: Scribe, arm: str, what: Sequence[str]
) -> Iterator[Row]:
  trees = {tree.task_id: tree for tree in _trees(run, arm)}
  if {'reh', 'cf'} & set(what):
    trained = catalogue.find_arm(arm).weights
    data = _finished(run, trained, '; --what=trees writes the trees alone') / 'data'
    for example in dataset.read(data):
      if example.kind in what:
        yield messages.of_example(scribe, trees[example.task_id], example)
  if 'trees' in what:
    for tree in trees.values():
      yield from messages.of_tree(scribe, tree)


def _trees(run: Run, arm: str) -> list[Tree]:
  """Of the phase that the arm's examples come from."""
  sources = catalogue.find_arm(arm).costs
  if not sources:
    raise ValueError(f'arm {arm} has no experience of its own')
  return load_trees(_finished(run, sources[-1]))


def _finished(run: Run, phase: str, remedy: str = '') -> pathlib.Path:
  """The directory of a phase that is done, and as it was sealed."""
  place = run.directory.phase(phase)
  if not place.done():
    raise FileNotFoundError(
        f'phase {phase} of {run.directory.path} is not done{remedy}'
    )
  place.check()
  return place.dir


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  values = flags.FLAGS
  out = pathlib.Path(os.path.expanduser(values.out))
  try:
    counts = export(
        buckets.open_run(values.run), out, values.arm, values.what, values.format
    )
  except ValueError as error:
    raise command_line.UsageError(str(error)) from error
  print(f'{out}: ' + ', '.join(f'{n:,} {kind}' for kind, n in counts.items()))


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  command_line.define_path(
      'run', None, 'Directory of the run.', required=True, buckets_too=True
  )
  command_line.define_path('out', None, 'JSONL file to write.', required=True)
  flags.DEFINE_string('arm', 'leafe', 'Arm that was trained on it.')
  flags.DEFINE_list('what', list(WHAT), 'What to write: reh, cf, trees.')
  flags.register_validator(
      'what', lambda items: set(items) <= set(WHAT), 'choose from reh, cf, trees'
  )
  flags.DEFINE_enum('format', 'messages', list(FORMATS), 'Form of a row.')


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
