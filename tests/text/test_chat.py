"""Chat transcripts are cut from the template once and then only appended."""

import pytest

from leafe_jax.text import chat, transcript
from tests.text.chat_tokenizers import (
  CHATML,
  FORGETFUL,
  FORGETS_THINKING,
  SHORT_MEMORY,
  make_tokenizer,
)


def test_pieces_join_to_what_the_template_renders():
  tokenizer = make_tokenizer(CHATML)
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
  spelt = chat.ChatTranscript(make_tokenizer(CHATML))
  ids = [*spelt.first('', 'T', 'O'), *spelt.hint('go back'), *spelt.opener_ids]
  text = spelt.tokenizer.decode(ids)
  assert text.index('go back') < text.index('<|im_end|>')
  assert text.endswith('<|im_start|>assistant\n')


def test_reflections_are_parsed_strictly():
  spelt = chat.ChatTranscript(make_tokenizer(CHATML))
  good = spelt.reflection_response(2, 'The page had no blue; go back.')
  parsed = spelt.parse_reflection(f'Well. {good}', turn=4, terminal=True)
  assert (parsed.tau, parsed.experience) == (2, 'The page had no blue; go back.')
  for bad in ('step 2', '<rollback>2</rollback>', '<rollback>none</rollback>'):
    with pytest.raises(transcript.ReflectionError):
      spelt.parse_reflection(bad, turn=4, terminal=True)
  assert spelt.parse_reflection('<rollback>none</rollback>', 4, False).tau is None


def test_a_template_that_rewrites_history_is_refused():
  with pytest.raises(chat.TemplateError, match='changes earlier text'):
    chat.ChatTranscript(make_tokenizer(FORGETFUL))


@pytest.mark.parametrize('opens', ['', '<think>\n\n</think>\n\n'])
def test_thinking_stays_as_sampled_where_the_template_would_drop_it(opens):
  """What was sampled is what the next turn is asked on, token for token."""
  template = FORGETS_THINKING.replace('{% if no_thinking %}', '{% if true %}')
  tokenizer = make_tokenizer(template if opens else FORGETS_THINKING)
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
    chat.ChatTranscript(make_tokenizer(SHORT_MEMORY))


def test_a_missing_template_is_refused():
  with pytest.raises(chat.TemplateError, match='no chat template'):
    chat.ChatTranscript(make_tokenizer(None))


def test_a_memory_is_shown_between_the_task_and_the_first_step():
  tokenizer = make_tokenizer(CHATML)
  spelt = chat.ChatTranscript(tokenizer)
  with_memory = tokenizer.decode(spelt.first('Rules.', 'Buy.', 'o', 'one\ntwo'))
  assert 'Task: Buy.\n\nLessons from earlier attempts:\none\ntwo\n\nStep 1\no' in (
      with_memory
  )
  assert 'Lessons' not in tokenizer.decode(spelt.first('Rules.', 'Buy.', 'o'))


def test_a_question_is_a_conversation_of_its_own():
  tokenizer = make_tokenizer(CHATML)
  asked = tokenizer.decode(chat.ChatTranscript(tokenizer).question('Which rules?'))
  assert asked == (
      '<|im_start|>user\nWhich rules?<|im_end|>\n<|im_start|>assistant\n'
  )
