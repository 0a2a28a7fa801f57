"""The text of --help: examples, flags, and a table of all options."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from leafe_jax import settings

# What people do with options -> the options and whole sections for it. Where an
# option has a group and its section another one, its own counts.
GROUPS: Mapping[str, tuple[str, ...]] = {
    'what is run and compared': ('seed', 'method', 'arms', 'study'),
    'the environment': ('env',),
    'a checkpoint': ('policy',),
    'lengths and sampling': (
        'policy.max_length', 'explore.max_response_tokens',
        'explore.max_reflection_tokens', 'explore.temperature',
        'explore.reflect_temperature',
    ),
    'memory and devices': (
        'mesh', 'sampler', 'policy.dtype', 'policy.param_dtype', 'policy.scan_layers',
        'policy.attention', 'policy.remat', 'policy.logit_chunk',
        'policy.router_loss',
    ),
    'adapters, over a frozen base': (
        'policy.lora_rank', 'policy.lora_alpha', 'policy.lora_targets',
        'policy.lora_rate_scale', 'policy.quantize',
    ),
    'no checkpoint: a policy from scratch': (
        'policy.num_layers', 'policy.embed_dim', 'policy.num_heads',
        'policy.num_kv_heads', 'policy.head_dim', 'policy.mlp_dim',
        'policy.num_experts', 'policy.experts_per_token', 'policy.expert_dim',
        'policy.shared_expert_dim', 'policy.renormalise_experts',
        'policy.vocab_size', 'policy.layer_kinds', 'policy.window', 'policy.activation',
        'policy.rope_theta', 'policy.rope_local_theta', 'policy.rope_type',
        'policy.rope_factor', 'policy.rope_low_freq_factor',
        'policy.rope_high_freq_factor', 'policy.rope_beta_slow',
        'policy.rope_beta_fast', 'policy.rope_truncate', 'policy.rope_attention_factor',
        'policy.rope_original_length', 'policy.norm_eps', 'policy.tie_embeddings',
        'policy.qkv_bias', 'policy.qk_norm', 'policy.qk_norm_wide',
        'policy.norm_plus_one', 'policy.pre_norms', 'policy.post_norms',
        'policy.embed_scale', 'policy.residual_scale',
        'policy.attention_scale', 'policy.logits_divisor',
    ),
    'the base: taught from scratch, or the cold start of a checkpoint': ('warm_start',),
    'exploration (stage 1), and the gate before it': ('gate', 'explore'),
    'training on what was explored (stage 2)': (
        'experience', 'distill', 'dpo', 'tune',
    ),
    'reinforcement learning': ('grpo',),
    'other methods': (
        'jerp', 'ace', 'r2mem', 'retro', 'early_experience', 'self_distill', 'mel',
        'step_agent',
    ),
    'evaluation and report': ('evaluate',),
}  # fmt: skip
# Whoever brings a checkpoint looks at these; variants for checkpoints set them, or
# they follow from the environment.
CHECKPOINT = frozenset({
    'env.name', 'env.options', 'env.horizon',
    'policy.checkpoint', 'policy.prompts', 'policy.template', 'policy.history_turns',
    'policy.max_length',
    'policy.dtype', 'policy.param_dtype', 'policy.scan_layers', 'policy.remat',
    'policy.lora_rank', 'policy.quantize', 'mesh.fsdp', 'mesh.tensor',
    'mesh.expert', 'policy.router_loss',
    'sampler.page_size', 'sampler.num_pages', 'sampler.num_memories',
    'sampler.num_window_pages', 'sampler.max_rows',
    'sampler.dispatch_rows', 'sampler.prefill_buckets', 'sampler.length_buckets',
    'sampler.decode_chunk', 'sampler.checkpoint_every', 'gate.min_parsed',
    'explore.num_tasks',
    'explore.wave_tasks', 'explore.attempts', 'explore.max_response_tokens',
    'explore.max_reflection_tokens', 'experience.reh_fraction', 'distill.steps',
    'distill.batch_rows', 'distill.row_length', 'distill.grad_accumulation',
    'distill.learning_rate', 'distill.momentum_dtype', 'distill.checkpoint_every',
    'dpo.learning_rate', 'dpo.momentum_dtype', 'grpo.grad_accumulation',
    'grpo.learning_rate', 'evaluate.num_tasks', 'evaluate.num_samples',
    'evaluate.wave_tasks', 'evaluate.stop_strings', 'warm_start.steps',
    'warm_start.data', 'warm_start.num_demonstrations', 'warm_start.batch_rows',
    'warm_start.row_length', 'warm_start.grad_accumulation',
    'warm_start.learning_rate', 'warm_start.momentum_dtype',
    'warm_start.checkpoint_every',
})  # fmt: skip

_INTRO = """\
leafe_jax: agents that learn from reflected experience (LEAFE), in JAX.

usage: python -m leafe_jax.main --config=FILE[:VARIANT] --workdir=DIR [flags]

examples:
  the embedded default, from nothing, on two CPU cores
    python -m leafe_jax.main --config=configs/webshop.py --workdir=runs/webshop
  every phase at toy size, to see that it works
    python -m leafe_jax.main --config=configs/webshop.py:debug --workdir=runs/debug
  other options
    python -m leafe_jax.main --config=configs/webshop.py --workdir=runs/beta4 \\
        --config.distill.beta=4 --config.arms=base,leafe
  go on after a kill: the same command again
  other options, without doing again what they leave as it was
    python -m leafe_jax.main --config=configs/webshop.py --workdir=runs/beta8 \\
        --config.distill.beta=8 --fork_from=runs/beta4
  explore only, and read the trees; later, the same without --until
    python -m leafe_jax.main --config=FILE --workdir=DIR --until=explore
  an environment of your own, or one by name, with a checkpoint
    python -m leafe_jax.main --config=configs/custom.py:my_package.my_module:make \\
        --config.policy.checkpoint=DIR --config.env.options.size=5 --workdir=DIR
  on several hosts: the same command on each, with a directory that all share
    python -m leafe_jax.main --config=FILE --workdir=DIR --distributed=on

flags:
  --config=FILE[:VARIANT]       the config file; its docstring lists its variants
  --config.SECTION.OPTION=...   sets one of the options below
  --config.env.options.KEY=VALUE        any option of the world, and
  --config.env.teacher.KEY=VALUE        of its teacher, where the file lists none
  --config.policy.template.KEY=VALUE    a variable of the checkpoint's chat template;
                                VALUEs: JSON or Python literals, else texts
  --workdir=DIR                 the run: made when missing, resumed when there
  --fork_from=DIR               take over the phases of another run that the
                                changed options leave as they are
  --dry_run                     say, phase by phase, what would be kept and what
                                done (again) and why, and stop; writes nothing
  --until=PHASE                 stop after this phase (the name of its directory in
                                DIR: import, warm_start, gate, explore, distill/ARM,
                                evaluate/ARM, ...)
  --tracker=NAME,...            who is told of the run: tensorboard (the default),
                                wandb, trackio
  --tracker_project=NAME        what the last two collect runs under (leafe_jax)
  --distributed=auto|on|off     join the processes that SLURM, a TPU slice or
                                JAX_COORDINATOR_ADDRESS name (on: any that jax
                                finds); or name them by the next three
  --coordinator=HOST:PORT       where process 0 listens
  --num_processes=N             processes of the run
  --process_id=I                number of this one, from 0
  --join_timeout=SECONDS        how long to wait for the others (300)
  --help, --helpfull            this text; also the flags of the libraries

options (with the defaults of leafe_jax/config.py; a config file may change them),
by what they are for; * marks what matters for a checkpoint:
"""


def text(width: int = 88) -> str:
  """The whole help text."""
  return _INTRO + '\n'.join(
      _table(group, options, width) for group, options in grouped().items()
  )


def grouped() -> dict[str, list[settings.Option]]:
  """Group -> its options, each option in one. KeyError: an option without one."""
  place = {path: group for group, paths in GROUPS.items() for path in paths}
  found: dict[str, list[settings.Option]] = {group: [] for group in GROUPS}
  for option in settings.options():
    own = place.get(option.path)
    found[own or place[option.path.partition('.')[0]]].append(option)
  return found


def _table(name: str, options: Iterable[settings.Option], width: int) -> str:
  lines = [f'\n  {name}']
  for option in options:
    lines.extend(_entry(option, width))
  return '\n'.join(lines)


def _entry(option: settings.Option, width: int) -> Iterator[str]:
  mark = '*' if option.path in CHECKPOINT else ' '
  kind, default = settings.type_name(option.type), _value(option.default)
  yield f'  {mark} {option.path}: {kind} = {default}'
  doc = option.doc
  if option.choices:
    doc += f' [{", ".join(map(str, option.choices))}]'
  if option.range:
    doc += f' [{option.range}]'
  indent = ' ' * 8
  yield from textwrap.wrap(doc, width, initial_indent=indent, subsequent_indent=indent)


def _value(value: object) -> str:
  if isinstance(value, tuple):
    return ','.join(map(str, value))
  return json.dumps(value)
