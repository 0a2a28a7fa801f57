"""Compares our policy with transformers on a checkpoint.

    python -m tools.check_parity --checkpoint=DIR

prints the largest difference of logits, whether greedy decoding gives the same
tokens, and the relative differences of loss and gradients, all in float32 on
random tokens; exits with 1 when one is above what rounding explains. Adapters
beside the weights are left out of both. Needs torch, which the library does not.

For gradients transformers reads layers with the gated delta rule token by token. Its
form in chunks subtracts sums that are nearly equal where a head fades fast: up to two
fifths of what it gives for `A_log` there is rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from leafe_jax import command_line
from leafe_jax.config import Mesh, Policy
from leafe_jax.policy import hf_experts, hf_names, huggingface, model, sharding

ROWS, NEW_TOKENS = 2, 64
MAX_LOGITS, MAX_RELATIVE = 2e-4, 1e-4

# Tokens, positions, segments.
_Rows = tuple[jax.Array, jax.Array, jax.Array]


class NotReadByBoth(ValueError):
  """A checkpoint that ours reads and transformers does not; one line."""


# What `compare` raises where one of the two does not read a checkpoint.
REFUSALS = (OSError, huggingface.UnsupportedCheckpoint, NotReadByBoth)


@dataclasses.dataclass(frozen=True)
class Parity:
  """How far two implementations are apart.

  Attributes:
    logits: largest absolute difference.
    same_greedy: whether greedy decoding gives the same tokens.
    loss: relative difference of the mean negative log-likelihood.
    gradients: largest relative difference of a tensor's gradient, as the norm
      of the difference over the norm; None when not compared.
    worst: the tensor that has it.
  """

  logits: float
  same_greedy: bool
  loss: float
  gradients: float | None = None
  worst: str = ''

  def holds(self) -> bool:
    """Whether rounding explains all differences."""
    relative = max(self.loss, self.gradients or 0.0)
    return (
        self.same_greedy and self.logits < MAX_LOGITS and relative < MAX_RELATIVE
    )


class Ours:
  """The policy as this library computes it."""

  def __init__(self, checkpoint: str):
    self.shape = huggingface.read_shape(checkpoint, Policy(scan_layers=True))
    mesh = sharding.make_mesh(Mesh())
    self.params = huggingface.load_params(checkpoint, self.shape, mesh)

  def logits(self, tokens: np.ndarray) -> np.ndarray:
    forward = jax.jit(model.forward, static_argnums=1)
    rows = _rows(tokens)
    return np.asarray(forward(self.params, self.shape.policy, *rows))

  def loss(self, tokens: np.ndarray) -> float:
    """Mean negative log-likelihood of all tokens but the first."""
    return float(jax.jit(self._loss)(self.params, _rows(tokens)))

  def loss_and_gradients(
      self, tokens: np.ndarray
  ) -> tuple[float, dict[str, np.ndarray]]:
    """As `loss`, and its gradients by the names of the checkpoint."""
    call = jax.jit(jax.value_and_grad(self._loss))
    loss, found = call(self.params, _rows(tokens))
    return float(loss), {
        name: array
        for ours, weight in found.items()
        for name, array in hf_names.split(ours, weight, self.shape.policy)
    }

  def _loss(self, params: model.Params, rows: _Rows) -> jax.Array:
    logprobs = model.token_logprobs(params, self.shape.policy, *rows)
    return -logprobs.sum() / rows[0][:, 1:].size


def _rows(tokens: np.ndarray) -> _Rows:
  places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  return jnp.asarray(tokens, jnp.int32), places, jnp.ones_like(places)


def compare(checkpoint: str, length: int, gradients: bool = True) -> Parity:
  """Runs both on the same random tokens.

  Args:
    checkpoint: a directory that both can read.
    length: tokens per row.
    gradients: whether to compare these too.

  Raises:
    OSError, UnsupportedCheckpoint: ours does not read it.
    NotReadByBoth: transformers does not.
  """
  import torch

  ours = Ours(checkpoint)
  reference = load_reference(checkpoint)
  # torch keeps the padding token's embedding fixed: it has no gradient there.
  padding = reference.config.get_text_config().pad_token_id
  usable = [i for i in range(ours.shape.vocab_size) if i != padding]
  tokens = np.random.default_rng(0).choice(usable, (ROWS, length))
  with torch.no_grad():
    expected = reference(torch.as_tensor(tokens)).logits.numpy()
  logits = float(np.abs(ours.logits(tokens) - expected).max())
  batch = torch.as_tensor(tokens)
  with _token_by_token(reference):
    loss = reference(batch, labels=batch).loss
  greedy = _agree_on_greedy(ours, reference, tokens)
  if not gradients:
    return Parity(logits, greedy, abs(ours.loss(tokens) / loss.item() - 1))
  loss.backward()
  found, arrays = ours.loss_and_gradients(tokens)
  size, worst = _compare_gradients(arrays, reference)
  return Parity(logits, greedy, abs(found / loss.item() - 1), size, worst)


def load_reference(checkpoint: str) -> Any:
  """What transformers makes of it, by its files alone.

  With peft it would add an adapter that lies beside the weights.
  """
  import torch
  import transformers

  with tempfile.TemporaryDirectory() as bare:
    for path in pathlib.Path(checkpoint).absolute().iterdir():
      if path.name != 'adapter_config.json':
        (pathlib.Path(bare) / path.name).symlink_to(path)
    try:
      return transformers.AutoModelForCausalLM.from_pretrained(
          bare, dtype=torch.float32, attn_implementation='eager',
          experts_implementation='eager',  # the other asks for widths of 16 bytes
          local_files_only=True, trust_remote_code=False,
      ).eval()
    except (OSError, ValueError, TypeError, LookupError, RuntimeError) as error:
      lines = str(error).strip().splitlines() or ['']
      raise NotReadByBoth(
          f'transformers does not load it: {type(error).__name__}: {lines[0]}'
      ) from error


@contextlib.contextmanager
def _token_by_token(reference: Any) -> Iterator[None]:
  """Its recurrent layers, where it has any, take the rule as it stands."""
  module = sys.modules[type(reference).__module__]
  exact = getattr(module, 'torch_recurrent_gated_delta_rule', None)
  if exact is None:
    yield
  else:
    with mock.patch.object(module, 'torch_chunk_gated_delta_rule', exact):
      yield


def _agree_on_greedy(ours: Ours, reference: Any, prompts: np.ndarray) -> bool:
  """Whether our best token is theirs after each prefix of their continuation.

  Then decoding on our own would give the same tokens.
  """
  import torch
  import transformers

  # Never to stop: the end-of-text token is one like any other here.
  options = transformers.GenerationConfig(
      do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0
  )
  reference.generation_config = options
  batch = torch.as_tensor(prompts)
  rows = reference.generate(
      batch, attention_mask=torch.ones_like(batch), generation_config=options
  ).numpy()
  best = ours.logits(rows[:, :-1])[:, prompts.shape[1] - 1 :].argmax(-1)
  return bool((best == rows[:, prompts.shape[1] :]).all())


def _compare_gradients(
    ours: dict[str, np.ndarray], reference: Any
) -> tuple[float, str]:
  """The largest relative difference and the tensor that has it."""
  zero = hf_names.output_biases(reference.config.get_text_config().num_hidden_layers)
  named: dict[str, Any] = dict(reference.named_parameters())
  if any(name.startswith('model.language_model.') for name in named):
    named = huggingface.text_tensors(named)
  theirs = {
      name: gradient
      for whole, parameter in named.items()
      for name, gradient in hf_experts.matrices(whole, parameter.grad.numpy())
      if name not in zero  # in a Llama with biases; ours has none there
  }
  if ours.keys() != theirs.keys():
    raise ValueError(f'tensors differ: {sorted(ours.keys() ^ theirs.keys())}')
  return max((_apart(ours[name], wanted), name) for name, wanted in theirs.items())


def _apart(found: np.ndarray, wanted: np.ndarray) -> float:
  """Relative difference; an expert that no token went to has no gradient."""
  size = float(np.linalg.norm(wanted))
  return float(np.linalg.norm(found - wanted)) / size if size else float(found.any())


def define_flags() -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  command_line.define_path(
      'checkpoint', None, 'Directory of the checkpoint.', required=True
  )
  flags.DEFINE_integer('length', 64, 'Tokens per row.', lower_bound=2)
  flags.DEFINE_bool(
      'gradients', True, 'Compare gradients too; takes twice the memory.'
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments: {argv[1:]}')
  values = flags.FLAGS
  # Accelerators round products to fewer bits unless asked not to.
  jax.config.update('jax_default_matmul_precision', 'highest')
  try:
    parity = compare(values.checkpoint, values.length, values.gradients)
  except ModuleNotFoundError as error:
    sys.exit(f'this check runs the original beside ours: pip install {error.name}')
  except REFUSALS as error:
    sys.exit(f'{values.checkpoint}: {error}')
  print(f'logits: largest difference {parity.logits:.1e}')
  print(f'greedy: {NEW_TOKENS} tokens {"agree" if parity.same_greedy else "DIFFER"}')
  print(f'loss: relative difference {parity.loss:.1e}')
  if parity.gradients is not None:
    print(
        f'gradients: relative difference {parity.gradients:.1e} ({parity.worst})'
    )
  sys.exit(0 if parity.holds() else 1)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
