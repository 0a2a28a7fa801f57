"""Chat transcripts are cut from the template once and then only appended."""

import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers

from leafe_jax.text import chat, transcript

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


def _tokenizer(template):
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


def test_pieces_join_to_what_the_template_renders():
  tokenizer = _tokenizer(CHATML)
  spelt = chat.ChatTranscript(tokenizer)
  ids = [
      *spelt.first('Rules.', 'Buy a shirt', 'A page'),
      *spelt.opener_ids,
      *spelt.response('click[a]'),
      *spelt.next(2, 'Another page'),
      *spelt.opener_ids,
  ]
  messages = [
      {'role': 'user', 'content': 'Rules.\n\nTask: Buy a shirt\n\nStep 1\nA page'},
      {'role': 'assistant', 'content': 'click[a]'},
      {'role': 'user', 'content': 'Step 2\nAnother page'},
  ]
  whole = tokenizer.apply_chat_template(
      messages, tokenize=False, add_generation_prompt=True
  )
  assert tokenizer.decode(ids) == whole


def test_a_hint_stands_inside_the_users_turn():
  spelt = chat.ChatTranscript(_tokenizer(CHATML))
  ids = [*spelt.first('', 'T', 'O'), *spelt.hint('go back'), *spelt.opener_ids]
  text = spelt.tokenizer.decode(ids)
  assert text.index('go back') < text.index('<|im_end|>')
  assert text.endswith('<|im_start|>assistant\n')


def test_reflections_are_parsed_strictly():
  spelt = chat.ChatTranscript(_tokenizer(CHATML))
  good = spelt.reflection_response(2, 'The page had no blue; go back.')
  parsed = spelt.parse_reflection(f'Well. {good}', turn=4, terminal=True)
  assert (parsed.tau, parsed.experience) == (2, 'The page had no blue; go back.')
  for bad in ('step 2', '<rollback>2</rollback>', '<rollback>none</rollback>'):
    with pytest.raises(transcript.ReflectionError):
      spelt.parse_reflection(bad, turn=4, terminal=True)
  assert spelt.parse_reflection('<rollback>none</rollback>', 4, False).tau is None


def test_a_template_that_rewrites_history_is_refused():
  with pytest.raises(chat.TemplateError, match='changes earlier text'):
    chat.ChatTranscript(_tokenizer(FORGETFUL))


@pytest.mark.parametrize('opens', ['', '<think>\n\n</think>\n\n'])
def test_thinking_stays_as_sampled_where_the_template_would_drop_it(opens):
  """What was sampled is what the next turn is asked on, token for token."""
  template = FORGETS_THINKING.replace('{% if no_thinking %}', '{% if true %}')
  tokenizer = _tokenizer(template if opens else FORGETS_THINKING)
  spelt = chat.ChatTranscript(tokenizer)
  first = [*spelt.first('', 'T', 'A page'), *spelt.opener_ids]
  sampled = spelt.response('<think>\nhm\n</think>\n\nclick[a]')
  second = [*spelt.next(2, 'More'), *spelt.opener_ids]
  text = tokenizer.decode([*first, *sampled, *second])
  start = '<|im_start|>user\nTask: T\n\nStep 1\nA page<|im_end|>\n'
  assert text == (
      f'{start}<|im_start|>assistant\n{opens}<think>\nhm\n</think>\n\nclick[a]'
      '<|im_end|>\n<|im_start|>user\nStep 2\nMore<|im_end|>\n'
      f'<|im_start|>assistant\n{opens}'
  )
  messages = [
      {'role': 'user', 'content': 'Task: T\n\nStep 1\nA page'},
      {'role': 'assistant', 'content': '<think>\nhm\n</think>\n\nclick[a]'},
      {'role': 'user', 'content': 'Step 2\nMore'},
  ]
  again = str(tokenizer.apply_chat_template(messages, tokenize=False))
  assert 'hm' not in again
  assert 'click[a]' in again


def test_a_template_that_drops_messages_is_refused():
  with pytest.raises(chat.TemplateError, match='drops or repeats a message'):
    chat.ChatTranscript(_tokenizer(SHORT_MEMORY))


def test_a_missing_template_is_refused():
  with pytest.raises(chat.TemplateError, match='no chat template'):
    chat.ChatTranscript(_tokenizer(None))


def test_a_memory_is_shown_between_the_task_and_the_first_step():
  tokenizer = _tokenizer(CHATML)
  spelt = chat.ChatTranscript(tokenizer)
  with_memory = tokenizer.decode(spelt.first('Rules.', 'Buy.', 'o', 'one\ntwo'))
  assert 'Task: Buy.\n\nLessons from earlier attempts:\none\ntwo\n\nStep 1\no' in (
      with_memory
  )
  assert 'Lessons' not in tokenizer.decode(spelt.first('Rules.', 'Buy.', 'o'))


def test_a_question_is_a_conversation_of_its_own():
  tokenizer = _tokenizer(CHATML)
  asked = tokenizer.decode(chat.ChatTranscript(tokenizer).question('Which rules?'))
  assert asked == (
      '<|im_start|>user\nWhich rules?<|im_end|>\n<|im_start|>assistant\n'
  )
