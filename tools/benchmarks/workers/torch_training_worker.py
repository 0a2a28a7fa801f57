"""Supervised updates of a checkpoint with transformers on torch, timed.

    python torch_training_worker.py DIR ROWS LENGTH REPEATS

prints a line of JSON: by type, seconds of each update after the first; and versions.
Types are float32, bfloat16 (weights and products), and autocast (products alone).
Only torch and transformers are needed: it runs in an environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch
import transformers


def measure(
    directory: str, rows: int, length: int, repeats: int, dtype: str
) -> list[float]:
  """Wall seconds of updates with AdamW."""
  torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
  loader: Any = transformers.AutoModelForCausalLM
  stored = torch.bfloat16 if dtype == 'bfloat16' else torch.float32
  model = loader.from_pretrained(directory, dtype=stored).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
  tokens = torch.randint(4, model.config.vocab_size, (rows, length))
  seconds = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == 'autocast'):
      loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - start)
  return seconds[1:]


def main() -> None:
  replies = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # libraries print; the pipe is for the reply alone
  directory, *sizes = sys.argv[1:]
  rows, length, repeats = map(int, sizes)
  seconds = {
      dtype: measure(directory, rows, length, repeats, dtype)
      for dtype in ('float32', 'bfloat16', 'autocast')
  }
  versions = {'torch': torch.__version__, 'transformers': transformers.__version__}
  replies.write(json.dumps({'seconds': seconds, 'versions': versions}) + '\n')
  replies.flush()


if __name__ == '__main__':
  main()
