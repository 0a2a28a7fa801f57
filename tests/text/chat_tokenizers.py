"""Chat templates, and a byte-level tokenizer that speaks any of them."""

from __future__ import annotations

import dataclasses
import json

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

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


@dataclasses.dataclass(frozen=True)
class Family:
  """How the models of one family talk: what their templates do, in small.

  Attributes:
    template: renders a conversation.
    special: its control tokens, the first one ends a turn.
    bos: begins a conversation; '' for none.
    sentencepiece: blanks are letters, and some texts get one in front.
    strips: whether control tokens swallow the blanks after them.
    thinks: whether the policy may think aloud.
    date: whether the template reads the clock.
  """

  template: str
  special: tuple[str, ...]
  bos: str = ''
  sentencepiece: str = ''
  strips: bool = False
  thinks: bool = False
  date: bool = False

  def tokenizer(self) -> transformers.PreTrainedTokenizerFast:
    return make_family_tokenizer(self)


_CHATML_MARKS = ('<|im_end|>', '<|im_start|>', '<|endoftext|>')
_CHATML_TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
_CHATML_OPENER = '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
# A system prompt of its own where the conversation brings none.
_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    'You are an able assistant.<|im_end|>\n{% endif %}'
)
# Thoughts of turns before the last question are left out; thinking can be
# switched off, which puts an empty thought into the opener.
_QWEN3 = (
    "{% set last = namespace(user=0) %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{% set last.user = loop.index %}{% endif %}"
    "{% endfor %}"
    "{% for m in messages %}{% set text = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.index > last.user %}"
    "{% set text = '<think>\n' + thought + '\n</think>\n\n' + text %}{% endif %}"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if tools %}<tool_call>{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# The opener begins the thought too, every answer after the last question has one, and
# there must be a question.
_QWEN35 = (
    "{% set last = namespace(user=0) %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{% set last.user = loop.index %}{% endif %}"
    "{% endfor %}{% if last.user == 0 %}"
    "{{ raise_exception('No user query found in messages.') }}{% endif %}"
    "{% for m in messages %}{% set text = m['content'] | trim %}"
    "{% if m['role'] == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "{% if m['role'] == 'assistant' %}{% set thought = '' %}"
    "{% if '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1] | trim %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index > last.user %}"
    "{% set text = '<think>\n' + thought + '\n</think>\n\n' + text %}{% endif %}"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)
# The opener itself begins the thought.
_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "<|User|>{{ m['content'] }}{% else %}"
    "<|Assistant|>{{ m['content'].split('</think>')[-1] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
# Contents are trimmed, and the system turn says the day.
_LLAMA32 = (
    "{{ bos_token }}{% if date_string is not defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    '<|start_header_id|>system<|end_header_id|>\n\nToday: {{ date_string }}<|eot_id|>'
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    '{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n'
    '{% endif %}'
)
# No system turns, and the assistant is called the model.
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "<start_of_turn>{{ role }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    '{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}'
)
# Marks around the user's words only, turns strictly in turn.
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
# Roles are plain text, and a blank goes before whatever follows a control token.
_ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    '{% if add_generation_prompt %}<|assistant|>\n{% endif %}'
)
# Control tokens swallow the blanks and line ends after them.
_PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
FAMILIES = {
    'qwen2.5': Family(
        _DEFAULT_SYSTEM + '{% for m in messages %}' + _CHATML_TURN + '{% endfor %}'
        + _CHATML_OPENER, _CHATML_MARKS,
    ),
    'qwen3': Family(_QWEN3, _CHATML_MARKS, thinks=True),
    'qwen3.5': Family(_QWEN35, _CHATML_MARKS, thinks=True),
    'r1': Family(_R1, ('<|end|>', '<|begin|>', '<|User|>', '<|Assistant|>'),
                 bos='<|begin|>', thinks=True),
    'llama3.2': Family(
        _LLAMA32,
        ('<|eot_id|>', '<|begin_of_text|>', '<|start_header_id|>', '<|end_header_id|>'),
        bos='<|begin_of_text|>', date=True,
    ),
    'smollm2': Family(
        '{% for m in messages %}{% if loop.first %}' + _DEFAULT_SYSTEM + '{% endif %}'
        + _CHATML_TURN + '{% endfor %}' + _CHATML_OPENER, _CHATML_MARKS,
    ),
    'gemma': Family(
        _GEMMA, ('<end_of_turn>', '<start_of_turn>', '<bos>'), bos='<bos>',
        sentencepiece='never',
    ),
    'tinyllama': Family(
        _ZEPHYR, ('</s>', '<s>'), sentencepiece='always',
    ),
    'phi3': Family(_PHI3, ('<|end|>', '<|user|>', '<|assistant|>'), strips=True),
    'mistral': Family(
        _MISTRAL, ('</s>', '<s>', '[INST]', '[/INST]'), bos='<s>',
        sentencepiece='first',
    ),
}  # fmt: skip

_CORPUS = (
    'You are an able assistant. Today: the user and the model take steps.',
    'Task: buy a red shirt\n\nStep 1\nA page with a list of things: a shirt, a box.',
    'click[a shirt] search[red shirt] <action>click[back]</action> user assistant',
    'The attempt failed after step 2. Look back over the numbered steps above.',
)


def make_family_tokenizer(family: Family) -> transformers.PreTrainedTokenizerFast:
  """A small BPE, trained, so that tokens depend on what stands around them."""
  backend = tokenizers.Tokenizer(models.BPE(byte_fallback=bool(family.sentencepiece)))
  if family.sentencepiece:
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme=family.sentencepiece, split=True
    )
    backend.decoder = decoders.Sequence([
        decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(),
        *([decoders.Strip(' ', 1, 0)] if family.sentencepiece != 'never' else []),
    ])  # fmt: skip
    alphabet = [f'<0x{byte:02X}>' for byte in range(256)]
    own = [chr(code) for code in range(33, 127)] + ['▁', '\n']
  else:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet, own = [], pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
      vocab_size=700, min_frequency=1, initial_alphabet=own, show_progress=False,
      special_tokens=[*family.special, *alphabet],
  )
  backend.train_from_iterator(_CORPUS, trainer)
  fields = json.loads(backend.to_str())  # bytes are no added tokens
  fields['added_tokens'] = fields['added_tokens'][: len(family.special)]
  for token in fields['added_tokens']:
    token['rstrip'] = family.strips
  backend = tokenizers.Tokenizer.from_str(json.dumps(fields))
  if family.thinks:
    backend.add_tokens([
        tokenizers.AddedToken(tag, special=False, normalized=False)
        for tag in ('<think>', '</think>', '<tool_call>')
        if tag in family.template
    ])
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=backend, eos_token=family.special[0],
      **({'bos_token': family.bos} if family.bos else {}),
  )
  tokenizer.chat_template = family.template
  return tokenizer
