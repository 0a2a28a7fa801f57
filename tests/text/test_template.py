"""Templates are cut into stable pieces, or refused by name before a run starts."""

import json
import signal

import pytest

from leafe_jax.text import chat, endings, template
from tests.text.chat_tokenizers import CHATML, FAMILIES, make_tokenizer

_TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
ALPACA = (
    "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
BLANK_END = (
    "{% for m in messages %}{{ m['content'] }} {% endfor %}"
)
# Numbers its turns from the end.
COUNTS_DOWN = (
    '{% for m in messages %}{{ messages|length - loop.index if loop.index > 2 }}'
    + _TURN + '{% endfor %}'
    '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)


@pytest.mark.parametrize(
    ('broken', 'named'),
    [
        ("{{ raise_exception('only for tools') }}", 'only for tools'),
        ('{% for m in messages %}', 'cannot render'),
        ('{{ messages[0].content.nothing.more }}', 'cannot render'),
        ("{{ messages[0]['content'] + 1 }}", 'cannot render'),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", 'begins with text'),
        (ALPACA, 'begins with text'),
        (BLANK_END, 'begins with text'),
        (COUNTS_DOWN, 'changes earlier text'),
    ],
)
def test_a_template_that_cannot_work_is_refused_in_one_line(broken, named):
  with pytest.raises(template.TemplateError, match=named) as error:
    chat.ChatTranscript(make_tokenizer(broken))
  assert '\n' not in str(error.value)


def test_one_of_several_templates_is_named():
  tokenizer = make_tokenizer(None)
  tokenizer.chat_template = {'tool_use': ALPACA, 'plain': CHATML}
  with pytest.raises(template.TemplateError, match='default.*tool_use, plain'):
    template.cut(tokenizer)
  assert '<|im_start|>' in template.cut(tokenizer, {'chat_template': 'plain'}).head


def test_variables_of_the_template_are_options():
  tokenizer = FAMILIES['qwen3'].tokenizer()
  assert not template.cut(tokenizer).opener.endswith('</think>\n\n')
  quiet = template.cut(tokenizer, {'enable_thinking': False})
  assert quiet.opener.endswith('<think>\n\n</think>\n\n')
  dated = template.cut(FAMILIES['llama3.2'].tokenizer(), {'date_string': '1 May'})
  assert 'Today: 1 May' in dated.head


@pytest.mark.parametrize('name', ['enable_thinkin', 'messages', 'tokenize'])
def test_an_option_that_the_template_does_not_read_is_refused(name):
  with pytest.raises(template.TemplateError, match=f'policy.template.{name}'):
    template.cut(FAMILIES['qwen3'].tokenizer(), {name: False})


def test_every_end_that_the_checkpoint_names_ends_a_response(tmp_path):
  (tmp_path / 'config.json').write_text('{"eos_token_id": 1}')
  assert endings.read_eos(tmp_path) == (1,)
  (tmp_path / 'generation_config.json').write_text('{"eos_token_id": [7, 9, 7]}')
  assert endings.read_eos(tmp_path) == (7, 9)
  spelt = chat.ChatTranscript(make_tokenizer(CHATML), eos_ids=(7, 9))
  end = spelt.tokenizer.eos_token_id
  assert spelt.stop_ids == (end, 7, 9)
  for stop in spelt.stop_ids:
    assert spelt.text([*spelt.response('ok')[:-1], stop]) == 'ok'


@pytest.mark.parametrize(
    ('text', 'named'),
    [
        ('{"eos_token_id": ', 'generation_config.json is not JSON'),
        ('[2]', 'not an object'),
        ('{"eos_token_id": "<eos>"}', "'<eos>'"),
        ('{"eos_token_id": [2, -1]}', '-1'),
    ],
)
def test_an_end_that_is_no_token_is_named(tmp_path, text, named):
  (tmp_path / 'generation_config.json').write_text(text)
  with pytest.raises(endings.BadEnding, match=named):
    endings.read_eos(tmp_path)


def test_no_file_names_no_end(tmp_path):
  (tmp_path / 'generation_config.json').write_text(json.dumps({'eos_token_id': None}))
  assert endings.read_eos(tmp_path) == ()


def test_text_comes_back_as_it_was_sampled():
  """Cleaning up blanks would change what can be clicked."""
  tokenizer = make_tokenizer(CHATML)
  tokenizer.clean_up_tokenization_spaces = True
  spelt = chat.ChatTranscript(tokenizer)
  text = "women 's shoes , size 5 . do n't"
  assert spelt.text(spelt.response(text)) == text


# Twelve zeros of steps.
LOOPS = '{% for i in range(9999) %}' * 3 + '{% set x = i %}' + '{% endfor %}' * 3


@pytest.mark.parametrize(
    ('hostile', 'named'),
    [
        (LOOPS, 'not done after 0.2 s'),
        ('{% for i in range(10 * 9) %}{{ 9 ** 9 ** 9 ** 9 }}{% endfor %}', 'powers'),
        ('{% for i in range(999999999) %}{% endfor %}', 'Range too big'),
        ('{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}', 'recursion'),
        ("{{ 'x' * 99999999999999999999 }}", 'cannot render'),
        ("{{ lipsum.__globals__['os'].getcwd() }}", 'unsafe'),
        ("{{ ().__class__.__bases__[0].__subclasses__() }}", 'unsafe'),
        ("{{ messages.append(messages[0]) }}", 'unsafe'),
        ("{% include 'tokenizer_config.json' %}", 'cannot render'),
    ],
)
def test_a_hostile_template_is_refused_in_one_line(hostile, named, monkeypatch):
  monkeypatch.setattr(template, 'MAX_SECONDS', 0.2)
  with pytest.raises(template.TemplateError, match=named) as error:
    chat.ChatTranscript(make_tokenizer(hostile))
  assert '\n' not in str(error.value)


def test_the_limit_leaves_no_alarm_behind(monkeypatch):
  monkeypatch.setattr(template, 'MAX_SECONDS', 3600.0)
  before = signal.getsignal(signal.SIGALRM)
  template.cut(make_tokenizer(CHATML))
  assert signal.getsignal(signal.SIGALRM) is before
  assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize('change', ['[:-9]', '"role"', None])
def test_kept_pieces_that_were_changed_are_named(tmp_path, change):
  path = tmp_path / 'chat_template.json'
  template.keep(path, make_tokenizer(CHATML), {})
  text = path.read_text()
  others = {'[:-9]': text[:-9], '"role"': text.replace('user', 'usher')}
  path.write_text(others.get(change, '{}'))
  with pytest.raises(template.TemplateError, match=r'chat_template.json.*remove it'):
    template.keep(path, make_tokenizer(CHATML), {})
