"""transformers' generate on torch behind `protocol`."""

from __future__ import annotations

import os
from typing import Any

import protocol
import torch
import transformers


def make(directory: str) -> protocol.Generate:
  torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  loader: Any = transformers.AutoModelForCausalLM
  model = loader.from_pretrained(
      directory, dtype='auto', local_files_only=True, trust_remote_code=False
  ).to(device).eval()

  def generate(prompts, new_tokens):
    ids = torch.tensor(prompts, device=device)  # all of one length
    with torch.inference_mode():
      output = model.generate(
          ids,
          attention_mask=torch.ones_like(ids),
          do_sample=True,
          temperature=1.0,
          top_k=0,
          top_p=1.0,
          max_new_tokens=new_tokens,
          min_new_tokens=new_tokens,
          pad_token_id=0,
          eos_token_id=None,
      )
    return output[:, ids.shape[1] :].tolist()

  return generate


def about() -> dict:
  return {'torch': torch.__version__, 'transformers': transformers.__version__}


if __name__ == '__main__':
  protocol.serve(make, about)
