"""Writes the policy of a phase as a Hugging Face checkpoint.

    python -m tools.export_hf --checkpoint=RUNDIR --phase=distill/leafe --out=DIR

RUNDIR is the workdir of a run, --phase=warm_start its base (a checkpoint after its
cold start, if it had one). DIR gets
config.json, safetensors and the tokenizer; transformers loads it. Adapters are
merged into the base that they were trained on. With --adapter they are written
alone, as peft loads them: adapter_config.json and adapter_model.safetensors. With
--push_ready DIR gets a model card too (README.md), for the Hugging Face Hub: base,
figures with intervals, command, options, licence. Nothing is uploaded.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from leafe_jax import buckets, command_line, settings
from leafe_jax.config import Experiment, Mesh
from leafe_jax.endings import RunStopped
from leafe_jax.evaluation import model_card
from leafe_jax.evaluation.model_card import BadCard
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.methods.run import Run, imported
from leafe_jax.policy import hf_export, hf_files, huggingface, lora, model
from leafe_jax.rundir import RunDirectory
from tools import cards


def export(
    rundir: pathlib.Path, phase: str, out: pathlib.Path, max_shard_bytes: int
) -> str:
  """Writes the checkpoint; returns its architecture.

  Raises:
    FileNotFoundError: no run in `rundir`, or no weights of that phase.
  """
  run = open_phase(rundir, phase)
  config, policy = run.config, run.shape.policy
  source = run.checkpoint or rundir / 'tokenizer'
  fields = _further_fields(run, config)
  hf_export.write(out, _whole(run, phase), run.shape, source, fields, max_shard_bytes)
  return hf_export.architecture(policy, fields)


def export_adapter(rundir: pathlib.Path, phase: str, out: pathlib.Path) -> None:
  """Writes the adapters of a phase alone.

  Raises:
    FileNotFoundError: as `export`, or the phase has no adapters.
  """
  run = open_phase(rundir, phase)
  adapters = run.trained(phase)
  if not lora.are_adapters(adapters):
    raise FileNotFoundError(f'phase {phase!r} in {rundir} has no adapters')
  fields = hf_files.read_fields(run.checkpoint) if run.checkpoint else None
  hf_export.write_adapter(out, adapters, run.shape.policy, run.checkpoint, fields)


def open_phase(rundir: pathlib.Path, phase: str) -> Run:
  """The run in a directory, on this machine's devices.

  FileNotFoundError: no run there, or no weights of that phase.
  """
  saved = RunDirectory(rundir).config() if rundir.is_dir() else None
  if saved is None:
    raise FileNotFoundError(f'no config.json of a run in {rundir}')
  _check_phase(rundir, phase)
  # The weights fit any mesh; the run's own may not fit this machine.
  config = dataclasses.replace(settings.from_config_dict(saved), mesh=Mesh())
  return Run(config, RunDirectory(rundir), settings.sha256(config))


def _whole(run: Run, phase: str) -> model.Params:
  """All weights of a phase's policy; the base as it was before it was frozen."""
  if phase == imported(run.config):
    return load_params(run.params_path(phase), run.abstract_params())
  params = run.trained(phase)
  if not lora.are_adapters(params):
    return params
  return lora.merge(run.frozen, params, run.shape.policy)


def _check_phase(rundir: pathlib.Path, phase: str) -> None:
  seals = sorted(rundir.rglob('params/seal.json'))
  known = [str(seal.parent.parent.relative_to(rundir)) for seal in seals]
  if phase not in known:
    raise FileNotFoundError(
        f'no weights of phase {phase!r} in {rundir}; choose from {", ".join(known)}'
    )


def _further_fields(run: Run, config: Experiment) -> dict[str, Any]:
  """What the weights do not say: special tokens and the longest context."""
  if config.policy.checkpoint:
    return huggingface.read_fields(run.checkpoint)
  return {
      # Of a Qwen2, transformers would build the tokenizer anew, with other ids.
      'architectures': ['LlamaForCausalLM'],
      'bos_token_id': run.tokenizer.bos_token_id,
      'eos_token_id': run.tokenizer.eos_token_id,
      'pad_token_id': run.tokenizer.pad_token_id,
      'max_position_embeddings': config.policy.max_length,
  }


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  command_line.define_path(
      'checkpoint', None, 'Directory of the run.', required=True, buckets_too=True
  )
  flags.DEFINE_string('phase', 'distill/leafe', 'Phase whose policy to write.')
  command_line.define_path('out', None, 'Directory to write.', required=True)
  flags.DEFINE_bool('adapter', False, 'Write the adapters alone, for peft.')
  flags.DEFINE_bool('push_ready', False, 'Write a model card, too.')
  flags.DEFINE_string(
      'base_model', '', "Card: the base's id on the Hub; by default as it says itself."
  )
  flags.DEFINE_string(
      'license', '', 'Card: identifier of the licence; by default that of the base.'
  )
  flags.DEFINE_list('datasets', [], "Card: the data's ids on the Hub, if any.")
  flags.DEFINE_integer(
      'max_shard_mb', 5000, 'Largest safetensors file, in MB.', lower_bound=1
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  values = flags.FLAGS
  rundir, out = values.checkpoint, pathlib.Path(values.out)
  try:
    rundir = buckets.open_run(rundir)
    card = _card(values, rundir, out) if values.push_ready else ''
    if values.adapter:
      export_adapter(rundir, values.phase, out)
      name = 'adapter'
    else:
      name = export(rundir, values.phase, out, values.max_shard_mb * 10**6)
    if card:
      (out / 'README.md').write_text(card, encoding='utf-8')
  except BadCard as error:
    raise command_line.UsageError(str(error)) from error
  except (OSError, RunStopped, ValueError) as error:
    sys.exit(f'{rundir}: {error}')
  print(f'{name} in {out}')


def _card(values: flags.FlagValues, rundir: pathlib.Path, out: pathlib.Path) -> str:
  """The model card, before anything is written. Raises as `export`; and BadCard."""
  given = cards.Given(
      out.absolute().name, values.phase, values.adapter, values.base_model,
      values.license, tuple(values.datasets),
  )
  return model_card.render(cards.gather(open_phase(rundir, values.phase), given))


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
