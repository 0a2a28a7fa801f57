"""How a memory reads and how responses become commands.

`TextView`, for language models, has whole sentences:

    keyword[town of Ann]      ->  [D2:3] (session 2) Ann: My town is Paris.
    vector[where Ann lives]   ->  the same form, the nearest texts
    page[D2]                  ->  all of session 2; page[D2:9] from there on
    plan[..]                  ->  Noted.
    answer[Rome]              ->  ends the episode

`CompactView`, for small policies on the generated conversations, a few words:

    ask now ann city
    keyword ann town          ->  found 2 ann town paris 5 ann town rome left 2
    vector ann town           ->  the same
    page 2                    ->  page 2 bob hello ann town paris left 1
    answer rome               ->  score 4   (quarters of F1, rounded down)

A number before a fact is its session; 'left' is the number of searches to come.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from envs import api
from envs.memsearch import embedded
from envs.memsearch.embedded import Fact
from envs.memsearch.library import Memory, Page, Passage, Question
from envs.memsearch.scoring import UNKNOWN

PLAN, KEYWORD, VECTOR, PAGE, ANSWER = 'plan', 'keyword', 'vector', 'page', 'answer'
SEARCHES = (KEYWORD, VECTOR, PAGE)
VERBS = (PLAN, *SEARCHES, ANSWER)
FULL_SCORE = 4
# Why a command does nothing.
REFUSED, EXHAUSTED, NO_PAGE, NO_WORDS = 'refused', 'exhausted', 'no page', 'no words'


class Command(NamedTuple):
  """One of `VERBS`, and what it is about."""

  verb: str
  text: str


class Asked(NamedTuple):
  """What a generated question asks for."""

  kind: str
  name: str
  topic: str


class View(Protocol):
  """Writes what is seen and reads what is said, both ways."""

  def question(self, question: Question, memory: Memory, budget: int) -> str: ...
  def noted(self) -> str: ...
  def found(self, passages: Sequence[Passage], memory: Memory, left: int) -> str: ...
  def page(self, page: Page, start: int, left: int) -> str: ...
  def refused(self, why: str) -> str: ...
  def answered(self, score: float) -> str: ...
  def read(self, action: str) -> Command | None: ...
  def write(self, verb: str, text: str) -> str: ...
  def parse_response(self, response: str) -> str: ...
  def rules(self, budget: int) -> str: ...
  def asked(self, observation: str) -> Asked: ...
  def facts(self, observation: str) -> list[Fact]: ...


_BARE = re.compile(rf'\b(?:{"|".join(VERBS)})\[[^\[\]\n]*\]', re.IGNORECASE)
_COMMAND = re.compile(rf'({"|".join(VERBS)})\[(.*)\]', re.IGNORECASE | re.DOTALL)
_SAID = re.compile(r'\[D(\d+):\d+\][^\n:]*?(\w+): My (\w+) is (\w+)\.')
_QUESTIONS = {
    kind: re.compile(
        re.escape(text).replace(r'\{topic\}', r'(?P<topic>\w+)')
        .replace(r'\{name\}', r'(?P<name>\w+)')
    )
    for kind, text in embedded.QUESTIONS.items()
}  # fmt: skip
_REASONS = {
    REFUSED: 'This is no action. Write <action>keyword[words]</action>, '
    'vector[sentence], page[id], plan[text] or answer[text].',
    EXHAUSTED: 'No search is left. Answer now: <action>answer[text]</action>.',
    NO_PAGE: 'There is no such page.',
    NO_WORDS: 'Nothing stands between the brackets.',
}
_RULES = """\
Answer a question about a memory that you cannot see: search it, then answer in as \
few words as possible. Facts may change over time. Actions:
plan[what to look for]: a note to yourself, costs nothing
keyword[words]: passages with these words
vector[a sentence]: passages that are most like it
page[id]: the whole page of a passage, such as page[{page}]
answer[text]: your answer, which ends the task; where the memory does not say it, \
answer[{unknown}]
You have {budget} for keyword, vector and page together. Think first if you like, and \
end with one action, e.g. <action>keyword[words]</action>"""


class TextView:
  """Sentences; see the module.

  Args:
    max_page_chars: of one page; what is longer says where it goes on.
  """

  def __init__(self, max_page_chars: int = 6000):
    self._most = max_page_chars

  def question(self, question: Question, memory: Memory, budget: int) -> str:
    first, last = memory.pages[0].id, memory.pages[-1].id
    pages = f'pages {first} to {last}' if first != last else f'page {first}'
    return (
        f'Question: {question.text}\nThe memory has {pages}. {_searches(budget)} left.'
    )

  def noted(self) -> str:
    return 'Noted.'

  def found(self, passages: Sequence[Passage], memory: Memory, left: int) -> str:
    titles = {page.id: page.title for page in memory.pages}
    lines = [_line(passage, titles[passage.page]) for passage in passages]
    return '\n'.join([*(lines or ['Nothing was found.']), f'{_searches(left)} left.'])

  def page(self, page: Page, start: int, left: int) -> str:
    lines, room = [f'Page {page.id}, {page.title}:'], self._most
    for passage in page.passages[start:]:
      line = f'[{passage.id}] {passage.text}'
      room -= len(line) + 1
      if room < 0 and len(lines) > 1:
        lines.append(f'It goes on: page[{passage.id}].')
        break
      lines.append(line)
    return '\n'.join([*lines, f'{_searches(left)} left.'])

  def refused(self, why: str) -> str:
    return _REASONS[why]

  def answered(self, score: float) -> str:
    return f'Your answer scored {score:.2f}.'

  def read(self, action: str) -> Command | None:
    match = _COMMAND.fullmatch(action.strip())
    return Command(match[1].lower(), match[2].strip()) if match else None

  def write(self, verb: str, text: str) -> str:
    return f'{verb}[{"D" if verb == PAGE and text.isdecimal() else ""}{text}]'

  def parse_response(self, response: str) -> str:
    """What <action>...</action> holds, else the last command that is written."""
    tagged = api.find_tagged(response)
    found = _BARE.findall(response) if tagged is None else [tagged]
    action = found[-1].strip() if found else ''
    if not action:
      raise api.InvalidAction(
          'no action found; write <action>keyword[words]</action> or '
          '<action>answer[text]</action>'
      )
    return action

  def rules(self, budget: int) -> str:
    return _RULES.format(budget=_searches(budget), page='D2', unknown=UNKNOWN)

  def asked(self, observation: str) -> Asked:
    text = observation.removeprefix('Question: ').split('\n', 1)[0]
    for kind, form in _QUESTIONS.items():
      if match := form.fullmatch(text):
        return Asked(kind, match['name'].lower(), match['topic'])
    raise ValueError(f'not a question of the generated conversations: {text!r}')

  def facts(self, observation: str) -> list[Fact]:
    return [
        Fact(int(session), name.lower(), word, value.lower())
        for session, name, word, value in _SAID.findall(observation)
    ]


def _line(passage: Passage, title: str) -> str:
  return f'[{passage.id}] ({title}) {passage.text}'


def _searches(count: int) -> str:
  return '1 search' if count == 1 else f'{count} searches'


_ASK, _FOUND, _NOTHING, _LEFT = 'ask', 'found', 'nothing', 'left'
_COMPACT_REASONS = {
    REFUSED: 'no such action', EXHAUSTED: 'no search left', NO_PAGE: 'no such page',
    NO_WORDS: 'no words',
}  # fmt: skip
_COMPACT_UNKNOWN = 'unknown'


class CompactView:
  """A few words; of generated conversations alone."""

  def question(self, question: Question, memory: Memory, budget: int) -> str:
    del memory, budget
    kind, name, topic = TextView().asked(question.text)
    return f'{_ASK} {kind} {name} {topic}'

  def noted(self) -> str:
    return 'noted'

  def found(self, passages: Sequence[Passage], memory: Memory, left: int) -> str:
    del memory
    told = ' '.join(f'{p.page.removeprefix("D")} {p.brief}' for p in passages)
    return f'{_FOUND} {told or _NOTHING} {_LEFT} {left}'

  def page(self, page: Page, start: int, left: int) -> str:
    told = ' '.join(passage.brief for passage in page.passages[start:])
    return f'{PAGE} {page.id.removeprefix("D")} {told} {_LEFT} {left}'

  def refused(self, why: str) -> str:
    return _COMPACT_REASONS[why]

  def answered(self, score: float) -> str:
    # Rounded down, so that nothing but a full score reads as one.
    return f'score {int(score * FULL_SCORE + 1e-9)}'

  def read(self, action: str) -> Command | None:
    verb, _, text = ' '.join(action.split()).partition(' ')
    if verb not in VERBS:
      return None
    if verb == PAGE and text.isdecimal():
      text = f'D{text}'
    return Command(verb, UNKNOWN if text == _COMPACT_UNKNOWN else text)

  def write(self, verb: str, text: str) -> str:
    if verb == PAGE:  # pages are numbers here
      text = text.removeprefix('D')
    return f'{verb} {_COMPACT_UNKNOWN if text == UNKNOWN else text}'

  def parse_response(self, response: str) -> str:
    action = response.strip()
    if not action:
      raise api.InvalidAction('empty response')
    return action

  def rules(self, budget: int) -> str:
    return (
        f'Find the value that is asked for, with at most {budget} searches, and '
        'answer. Answer with one of: keyword <name> <word>; vector <name> <word>; '
        'page <number>; plan <words>; answer <value>; answer unknown.'
    )

  def asked(self, observation: str) -> Asked:
    match observation.split():
      case ['ask', kind, name, topic] if kind in embedded.KINDS:
        return Asked(kind, name, topic)
    raise ValueError(f'not of the form "ask kind name topic": {observation!r}')

  def facts(self, observation: str) -> list[Fact]:
    found, session, said = [], 0, []
    for word in observation.split():
      if word.isdecimal():
        session, said = int(word), []
      elif word in ('hello', _FOUND, PAGE, _LEFT):
        said = []
      else:
        said.append(word)
      if len(said) == 3:
        found.append(Fact(session, *said))
        said = []
    return found

  def vocabulary(self, sessions: int, budget: int) -> tuple[str, ...]:
    """Every word of observations and responses."""
    numbers = range(max(sessions, budget, FULL_SCORE) + 1)
    phrases: Iterable[str] = (
        *VERBS, _ASK, _FOUND, _NOTHING, _LEFT, 'noted', 'score', _COMPACT_UNKNOWN,
        *_COMPACT_REASONS.values(), *map(str, numbers), *embedded.words(),
    )
    return tuple(dict.fromkeys(word for phrase in phrases for word in phrase.split()))
