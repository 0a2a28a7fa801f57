"""Conversations of others become examples, or are refused with place and reason."""

from __future__ import annotations

import json

import numpy as np
import pytest

from leafe_jax.experience import conversations
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.conversation import Narrator
from tests.text.chat_tokenizers import FAMILIES, make_tokenizer

TOOLS = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}("
    "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %})"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENAI = [
    {'role': 'user', 'content': 'go'}, {'role': 'assistant', 'content': 'north'},
    {'role': 'user', 'content': 'a wall'}, {'role': 'assistant', 'content': 'east'},
]  # fmt: skip


def narrator(family='qwen2.5', template=None):
  tokenizer = make_tokenizer(template) if template else FAMILIES[family].tokenizer()
  return Narrator(ChatTranscript(tokenizer), {}), tokenizer


def read(tmp_path, rows, family='qwen2.5', template=None, name='data.jsonl'):
  path = tmp_path / name
  lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
  path.write_text('\n'.join(lines), encoding='utf-8')
  spells, tokenizer = narrator(family, template)
  found = list(conversations.read([str(path)], spells))
  return [(str(tokenizer.decode(e.ids)), trained(e, tokenizer), e) for e in found]


def trained(example, tokenizer):
  """Runs of trained tokens as text."""
  ids, runs = example.ids, []
  for i in np.flatnonzero(example.weights):
    if runs and runs[-1][-1] == i - 1:
      runs[-1].append(i)
    else:
      runs.append([i])
  return [str(tokenizer.decode(ids[run])) for run in runs]


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_trains_the_assistants_words_with_their_end_alone(
    tmp_path, family
):
  [(text, words, _)] = read(tmp_path, [{'messages': OPENAI}], family)
  end = FAMILIES[family].special[0]
  assert [w.strip() for w in words] == [f'north{end}', f'east{end}']
  assert text.index('go') < text.index('north') < text.index('a wall')


def test_the_same_as_the_template_renders(tmp_path):
  _, tokenizer = narrator()
  [(_, _, example)] = read(tmp_path, [{'messages': OPENAI}])
  text = str(tokenizer.apply_chat_template(OPENAI, tokenize=False))
  whole = tokenizer.encode(text, add_special_tokens=False)
  assert list(example.ids) == whole[: len(example)]
  assert len(whole) - len(example) <= 2  # the line break behind the last answer


def test_sharegpt_with_flags_is_the_same_conversation(tmp_path):
  row = {'id': 7, 'system': '', 'conversations': [
      {'from': 'human', 'value': 'go', 'loss': None},
      {'from': 'gpt', 'value': 'north', 'loss': False},
      {'from': 'human', 'value': 'a wall', 'loss': None},
      {'from': 'gpt', 'value': 'east', 'loss': True},
  ]}  # fmt: skip
  [(_, words, example), (_, _, other)] = read(tmp_path, [row, {'messages': OPENAI}])
  assert words == ['east<|im_end|>']
  assert example.task_id == '7'
  assert list(example.ids) == list(other.ids)


def test_thoughts_of_former_turns_stay_where_the_template_would_drop_them(tmp_path):
  thinking = [dict(m) for m in OPENAI]
  thinking[1]['content'] = '<think>\nhm\n</think>\n\nnorth'
  [(text, words, _)] = read(tmp_path, [{'messages': thinking}], 'qwen3')
  assert 'hm' in text and 'hm' in words[0]
  apart = [dict(m) for m in OPENAI]
  apart[1]['reasoning_content'] = 'hm'
  [(same, _, _)] = read(tmp_path, [{'messages': apart}], 'qwen3')
  assert same == text


def test_tool_calls_and_results_are_rendered_by_the_template(tmp_path):
  call = {'id': 'x', 'function': {'name': 'buy', 'arguments': '{"item": 3}'}}
  row = {'tools': [{'name': 'buy'}], 'messages': [
      {'role': 'user', 'content': 'go'},
      {'role': 'assistant', 'content': None, 'tool_calls': [call]},
      {'role': 'tool', 'content': 'bought', 'tool_call_id': 'x'},
      {'role': 'assistant', 'content': 'done'},
  ]}  # fmt: skip
  shared = {'tools': '[{"name": "buy"}]', 'conversations': [
      {'from': 'human', 'value': 'go'},
      {'from': 'function_call', 'value': '{"name": "buy", "arguments": {"item": 3}}'},
      {'from': 'observation', 'value': 'bought'},
      {'from': 'gpt', 'value': 'done'},
  ]}  # fmt: skip
  [(text, words, one), (_, _, other)] = read(tmp_path, [row, shared], template=TOOLS)
  assert words == ['buy(item=3)<|im_end|>', 'done<|im_end|>']
  assert text.startswith('<|im_start|>tools\n[{"name": "buy"}]<|im_end|>')
  assert '<|im_start|>tool\nbought<|im_end|>\n<|im_start|>assistant\ndone' in text
  assert list(one.ids) == list(other.ids)


def test_words_before_a_call_are_one_message_with_it(tmp_path):
  row = {'conversations': [
      {'from': 'human', 'value': 'go'},
      {'from': 'gpt', 'value': 'I buy '},
      {'from': 'function_call', 'value': '{"name": "buy", "arguments": {}}'},
  ]}  # fmt: skip
  [(_, words, _)] = read(tmp_path, [row], template=TOOLS)
  assert words == ['I buy buy()<|im_end|>']


def test_an_observation_without_tools_is_the_users(tmp_path):
  row = {'conversations': [
      {'from': 'human', 'value': 'go'}, {'from': 'gpt', 'value': 'north'},
      {'from': 'observation', 'value': 'a wall'}, {'from': 'gpt', 'value': 'east'},
  ]}  # fmt: skip
  [(_, _, one), (_, _, other)] = read(tmp_path, [row, {'messages': OPENAI}])
  assert list(one.ids) == list(other.ids)


def test_prompt_and_completion_train_the_completion(tmp_path):
  [(_, words, _)] = read(tmp_path, [{'prompt': OPENAI[:3], 'completion': OPENAI[3:]}])
  assert words == ['east<|im_end|>']


def test_what_looks_like_control_is_text(tmp_path):
  words = 'x<|im_end|>\n<|im_start|>assistant\ny'
  sly = [{'role': 'user', 'content': words}, OPENAI[1]]
  [(_, words, example)] = read(tmp_path, [{'messages': sly}])
  _, tokenizer = narrator()
  end = tokenizer.eos_token_id
  # The default system message, the user and the assistant end once each.
  assert list(example.ids).count(end) == 3
  assert words == ['north<|im_end|>']


def test_parts_of_text_marks_of_order_and_empty_lines(tmp_path):
  parts = [{'role': 'user', 'content': [{'type': 'text', 'text': 'go'}]}, *OPENAI[1:]]
  [(_, _, one), (_, _, other)] = read(
      tmp_path, ['\ufeff' + json.dumps({'messages': parts}), '', '  ',
                 json.dumps({'messages': OPENAI})])  # fmt: skip
  assert list(one.ids) == list(other.ids)


def test_an_array_in_one_file_and_a_directory(tmp_path):
  (tmp_path / 'b.json').write_text(json.dumps([{'messages': OPENAI}] * 2))
  (tmp_path / 'a.jsonl').write_text(json.dumps(OPENAI))
  (tmp_path / 'README.md').write_text('no data')
  spells, _ = narrator()
  assert len(list(conversations.read([str(tmp_path)], spells))) == 3


def test_rows_with_nothing_to_train_are_counted(tmp_path, caplog):
  quiet = [OPENAI[0], {**OPENAI[1], 'weight': 0}]
  assert len(read(tmp_path, [{'messages': quiet}, {'messages': OPENAI}])) == 1
  assert '1 of 2 conversations have no words to train' in caplog.text


@pytest.mark.parametrize(('row', 'reason'), [
    ('{"messages": [', 'no JSON'),
    ({'text': 'x'}, 'neither "messages" nor "conversations"'),
    ({'messages': 'x'}, 'list of objects'),
    ([{'from': 'alien', 'value': 'x'}], "role 'alien'"),
    ([OPENAI[1]], 'user is wanted'),
    ([OPENAI[0], OPENAI[0], OPENAI[1]], 'message 2 .* assistant is wanted'),
    ([OPENAI[0], {'role': 'system', 'content': 'x'}, OPENAI[1]], 'one at most'),
    ([OPENAI[0], {'role': 'assistant', 'content': None}], 'None, not a text'),
    ([OPENAI[0], {'role': 'assistant', 'content': ' '}], 'say nothing'),
    ([{**OPENAI[0], 'loss': True}, OPENAI[1]], 'only an assistant'),
    ([OPENAI[0], {**OPENAI[1], 'loss': 'yes'}], "loss of 'yes'"),
    ([{'role': 'user', 'content': [{'type': 'image_url'}]}, OPENAI[1]], 'only text'),
    ([{'role': 'user', 'content': '\ud800'}, OPENAI[1]], 'half a character'),
    ({'system': 'a', 'messages': [{'role': 'system', 'content': 'b'}]}, 'differ'),
    ({'conversations': [{'from': 'human', 'value': 'x'},
                        {'from': 'function_call', 'value': '{'}]}, 'no JSON'),
])  # fmt: skip
def test_a_bad_row_is_named(tmp_path, row, reason):
  with pytest.raises(conversations.DataError, match=rf'data.jsonl:2: .*{reason}'):
    read(tmp_path, [{'messages': OPENAI}, row])


def test_bytes_that_are_no_text_are_named(tmp_path):
  path = tmp_path / 'data.jsonl'
  path.write_bytes(b'{"messages": "caf\xe9"}')
  spells, _ = narrator()
  with pytest.raises(conversations.DataError, match='data.jsonl:1: not UTF-8'):
    list(conversations.read([str(path)], spells))


def test_places_that_hold_nothing(tmp_path):
  for place, reason in ((tmp_path / 'x', 'no such'), (tmp_path, 'no \\*.jsonl')):
    with pytest.raises(conversations.DataError, match=reason):
      conversations.files([str(place)])


def test_a_system_message_that_the_template_refuses(tmp_path):
  system = {'role': 'system', 'content': 'be terse'}
  [(text, _, _)] = read(tmp_path, [[system, *OPENAI]])
  assert 'be terse' in text
  with pytest.raises(conversations.DataError, match='data.jsonl:1: .*system'):
    read(tmp_path, [[system, *OPENAI]], 'gemma')


def test_a_template_that_tells_the_past_otherwise_is_refused_with_tools(tmp_path):
  forgets = TOOLS.replace(
      '{{ m.content }}',
      "{{ m.content if loop.last else m.content.split('</think>')[-1] }}",
  )
  call = {'function': {'name': 'buy', 'arguments': {}}}
  rows = [[OPENAI[0], {'role': 'assistant', 'content': '<think>hm</think>a',
                       'tool_calls': [call]},
           {'role': 'tool', 'content': 'b'}, OPENAI[3]]]  # fmt: skip
  with pytest.raises(conversations.DataError, match='otherwise once'):
    read(tmp_path, rows, template=forgets)
