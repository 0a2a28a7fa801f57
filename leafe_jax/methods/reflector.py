"""How a frozen policy edits rules after a group of episodes (arXiv 2606.27136).

Two ways to the same edits:

* in the rule grammar: one prompt per group with the rules, the successes and
  the failures; the answer is at most a few lines `OP | ids | text`. For models
  that read instructions.
* from reflections: each failed episode is asked for (tau, e), as in Stage 1 of
  LEAFE, and e becomes an ADD; votes come from outcomes, see `votes`. For small
  word-level policies, whose vocabulary has no such grammar. They never EDIT or
  MERGE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from envs import api
from leafe_jax.config import Jerp
from leafe_jax.endings import RunStopped
from leafe_jax.memory import rules as rules_lib
from leafe_jax.memory.rules import Edit, Rule
from leafe_jax.rollout.answers import CutOff, read_answer
from leafe_jax.rollout.episode import Player, first_prompt
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import ask
from leafe_jax.rollout.reflect import OVERLONG
from leafe_jax.sampler import Request, Rules, Sample
from leafe_jax.text import history
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.transcript import ParsedReflection, ReflectionError
from leafe_jax.tree import Node, Tree

_MAX_CHARACTERS = 400  # of one observation or response in a compact transcript
_PROMPT = """\
You keep a short list of rules that help an agent with tasks like the one below. \
Each rule is one sentence and holds for many tasks.

Task: {task}

Rules, as number [utility] text:
{rules}

Attempts at this task that succeeded:
{successes}

Attempts at this task that failed:
{failures}

Successes at similar tasks:
{references}

Write at most {count} edits, one per line and nothing else, in these forms:
ADD | | a new rule
EDIT | number | a better wording of that rule
UPVOTE | number |
DOWNVOTE | number |{merge}"""
_MERGE_FORM = '\nMERGE | number, number | one rule that says what they said'


@dataclasses.dataclass(frozen=True)
class Case:
  """What the reflector is shown of one group.

  Attributes:
    task: of the group.
    group: its episodes.
    rules: of the task's pool.
    shown: those that stood in the prompts.
    references: compact transcripts of earlier successes.
  """

  task: api.Task
  group: Tree
  rules: Sequence[Rule]
  shown: Sequence[Rule]
  references: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Proposal:
  """An edit as a line of the rule grammar, with the episodes behind it."""

  line: str
  provenance: tuple[str, ...] = ()


def propose(
    player: Player, cases: Sequence[Case], config: Jerp, reflection: Rules,
    step: int, ledger: Ledger,
) -> list[list[Proposal]]:
  """The edits that each case calls for, not yet checked or applied.

  Args:
    player: with the frozen weights.
    cases: groups of one step.
    config: how the reflector is asked.
    reflection: sampling of reflections.
    step: of the training.
    ledger: pays for the answers.

  Raises:
    RunStopped: the grammar is wanted of a policy without a chat template.
  """
  by_grammar = isinstance(player.transcript, ChatTranscript)
  if config.reflector != 'auto':
    by_grammar = config.reflector == 'grammar'
  if by_grammar:
    return _ask_in_grammar(player, cases, config, ledger)
  return _ask_for_reflections(player, cases, config, reflection, step, ledger)


def compact(node: Node) -> str:
  """An episode as text: what was seen, what was done, how it ended."""
  lines = [
      f'{turn.index}. {short(turn.observation)} -> {short(turn.response)}'
      for turn in node.turns
  ]
  return '\n'.join([*lines, f'end: {short(node.final_observation)}'])


def votes(shown: Sequence[Rule], group: Tree) -> list[Edit]:
  """Votes from outcomes, for rules that end in the action they advise.

  A rule was followed where a response is the end of its text, as the compact
  views' experiences have it. One success that followed it is a vote for it;
  nothing but failures is a vote against it; else there is none.
  """
  found = []
  for rule in shown:
    ends = [node.success for node in group.nodes if follows(node, rule.text)]
    if ends:
      op = rules_lib.UPVOTE if any(ends) else rules_lib.DOWNVOTE
      found.append(Edit(op, (rule.id,)))
  return found


def follows(node: Node, text: str) -> bool:
  """Whether an episode took the action that a lesson ends with."""
  return any(
      turn.response and f' {text}'.endswith(f' {turn.response}')
      for turn in node.turns
  )


def short(text: str) -> str:
  """A text on one line, cut after `_MAX_CHARACTERS`."""
  line = ' '.join(text.split())
  return line if len(line) <= _MAX_CHARACTERS else f'{line[:_MAX_CHARACTERS]} ...'


def _name(case: Case, node: Node, step: int) -> str:
  return f'step {step} {case.task.id} episode {node.id}'


# --- in the rule grammar


def _ask_in_grammar(
    player: Player, cases: Sequence[Case], config: Jerp, ledger: Ledger
) -> list[list[Proposal]]:
  if not isinstance(player.transcript, ChatTranscript):
    raise RunStopped(
        'jerp.reflector=grammar needs a policy with a chat template; take '
        '--config.jerp.reflector=reflections'
    )
  requests, transcript = [], player.transcript
  for case in cases:
    ids = transcript.question(prompt(case, config))
    ledger.reflections += 1
    ledger.reflection_prompt_tokens += len(ids)
    state = player.sampler.extend(player.sampler.empty(), ids)
    key = row_key(player.seed, player.version, case.task.id, 'rules')
    requests.append(Request(state, key))
  rules = Rules(0.0, config.max_reflector_tokens, transcript.stop_ids)
  samples = ask(player, requests, rules)
  return [
      _read_lines(player, case, sample, ledger)
      for case, sample in zip(cases, samples, strict=True)
  ]


def prompt(case: Case, config: Jerp) -> str:
  """What the reflector reads about a group."""
  wins = [compact(node) for node in case.group.nodes if node.success]
  losses = [compact(node) for node in case.group.nodes if not node.success]
  rules = [f'{rule.id} [{rule.score:g}] {rule.text}' for rule in case.rules]
  return _PROMPT.format(
      task=case.task.instruction,
      rules='\n'.join(rules) or '(none yet)',
      successes='\n\n'.join(wins) or '(none)',
      failures='\n\n'.join(losses) or '(none)',
      references='\n\n'.join(case.references) or '(none)',
      count=config.max_edits,
      merge=_MERGE_FORM if config.merge else '',
  )


def _read_lines(
    player: Player, case: Case, sample: Sample, ledger: Ledger
) -> list[Proposal]:
  ledger.reflection_tokens += len(sample.tokens)
  if sample.overlong:
    return [Proposal(f'({OVERLONG})')]
  try:
    lines = read_answer(player.transcript, sample).split('\n')
  except CutOff as error:
    return [Proposal(f'(no answer: {error})')]
  group = tuple(f'{case.task.id} episode {node.id}' for node in case.group.nodes)
  return [Proposal(line.strip(), group) for line in lines if line.strip()]


# --- from reflections


def _ask_for_reflections(
    player: Player, cases: Sequence[Case], config: Jerp, rules: Rules, step: int,
    ledger: Ledger,
) -> list[list[Proposal]]:
  asked = [
      (number, case, node)
      for number, case in enumerate(cases)
      for node in reflectable(case.group)[: config.max_edits]
  ]
  samples = reflect_on(
      player, [(case.task, node) for _, case, node in asked], rules, ledger
  )
  found = [
      [Proposal(edit.line()) for edit in votes(case.shown, case.group)]
      for case in cases
  ]
  for (number, case, node), sample in zip(asked, samples, strict=True):
    line = _addition(player, node, sample)
    if line is not None:
      found[number].append(Proposal(line, (_name(case, node, step),)))
  return found


def reflectable(group: Tree) -> list[Node]:
  """Failed episodes that came to an end of their own."""
  return [
      node for node in group.nodes
      if node.turns and not node.success and node.ended_by not in ('error', 'overlong')
  ]


def reflect_on(
    player: Player, cases: Sequence[tuple[api.Task, Node]], rules: Rules,
    ledger: Ledger,
) -> list[Sample]:  # fmt: skip
  """Asks where finished episodes went wrong, whatever memory they had."""
  requests = [reflection_request(player, task, node, ledger) for task, node in cases]
  samples = ask(player, requests, rules)
  ledger.reflection_tokens += sum(len(sample.tokens) for sample in samples)
  return samples


def read_reflection(
    player: Player, node: Node, sample: Sample, terminal: bool = True
) -> ParsedReflection:
  """(tau, e) on a failed episode. Raises ReflectionError, or CutOff.

  Args:
    player, node, sample: who was asked, about which episode, with which answer.
    terminal: see `reflection_prompt`.
  """
  if sample.overlong:
    raise ReflectionError(OVERLONG)
  said = read_answer(player.transcript, sample)
  return player.transcript.parse_reflection(said, node.last_turn, terminal)


def reflection_request(
    player: Player, task: api.Task, node: Node, ledger: Ledger
) -> Request:
  """Asks where a finished episode went wrong, whatever memory it had."""
  ids = reflection_prompt(player, task, node)
  ledger.reflections += 1
  ledger.reflection_prompt_tokens += len(ids)
  key = row_key(player.seed, player.version, task.id, node.id, 'rules')
  return Request(player.sampler.extend(player.sampler.empty(), ids), key)


def reflection_prompt(
    player: Player, task: api.Task, node: Node, terminal: bool = True
) -> list[int]:
  """A finished episode and the question where it went wrong, opener included.

  Args:
    player, task, node: who is asked, about which episode of which task.
    terminal: whether the policy is told that it failed; else it may also answer
      that all is well.
  """
  question = player.transcript.reflection(node.last_turn, terminal)
  return [*_history(player, task, node), *question]


def _history(player: Player, task: api.Task, node: Node) -> list[int]:
  """An episode's transcript, its end included, as if it had had no memory.

  The frozen policy has never seen one.
  """
  first, *later = node.turns
  ids = first_prompt(player, task, first.observation)
  turns = [dataclasses.replace(first, prompt_ids=ids), *later]
  return [
      *history.whole(player.transcript, turns),
      *history.after(player.transcript, turns[-1], node.final_observation),
  ]


def _addition(player: Player, node: Node, sample: Sample) -> str | None:
  """The reflection as an ADD; as it is where it cannot be read; None for none."""
  try:
    parsed = read_reflection(player, node, sample)
  except (ReflectionError, CutOff):
    return _unread(player, sample)
  return Edit(rules_lib.ADD, (), ' '.join(parsed.experience.split())).line()


def _unread(player: Player, sample: Sample) -> str:
  if sample.overlong:
    return f'({OVERLONG})'
  text = player.transcript.text(sample.tokens)
  return text if sample.stopped else f'{text} (cut off)'
