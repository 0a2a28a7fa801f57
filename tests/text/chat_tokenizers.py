"""Chat templates, and a byte-level tokenizer that speaks any of them."""

from __future__ import annotations

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Says something else about the past once the conversation goes on.
FORGETFUL = (
    "{{ messages|length }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen3: thinking before the last question is dropped when rendered again.
FORGETS_THINKING = (
    "{% set last = namespace(user=0) %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{% set last.user = loop.index %}{% endif %}"
    "{% endfor %}"
    "{% for m in messages %}{% set text = m['content'] %}"
    "{% if m['role'] == 'assistant' and loop.index < last.user %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if no_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Keeps the last message alone.
SHORT_MEMORY = (
    "<|im_start|>{{ messages[-1]['role'] }}\n{{ messages[-1]['content'] }}<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(template: str | None) -> transformers.PreTrainedTokenizerFast:
  """Every byte is a token."""
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  vocabulary = {symbol: i for i, symbol in enumerate(sorted(alphabet))}
  backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=backend,
      eos_token='<|im_end|>',
      additional_special_tokens=['<|im_start|>'],
  )
  tokenizer.chat_template = template
  return tokenizer
