"""How the base policy plays ACE's reflector and curator (arXiv 2510.04618).

Two ways to the same deltas:

* roles: the reflector reads an episode and the bullets that were shown, says in
  JSON what went wrong and which bullets helped; the curator turns that into a
  JSON list of deltas. An answer that cannot be read is asked for once more,
  then logged; a prompt that is too long for a transcript is logged at once. For
  models that read instructions.
* reflections: each failed episode is asked for (tau, e), as in Stage 1 of
  LEAFE; e becomes an ADD, and a bullet whose action was taken is tagged by the
  outcome. For small word-level policies; they never UPDATE, REMOVE or MERGE.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from envs import api
from leafe_jax.config import Ace
from leafe_jax.memory import playbook as playbook_lib
from leafe_jax.memory.playbook import Bullet, Delta, Playbook
from leafe_jax.methods import reflector
from leafe_jax.methods.asking import ask_all, read_object
from leafe_jax.rollout.answers import CutOff
from leafe_jax.rollout.episode import Player
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.sampler import Rules
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.transcript import ReflectionError
from leafe_jax.tree import Node, Tree

T = TypeVar('T')

LESSONS = 'lessons'
_REFLECTOR = """\
An agent tried the task below with a playbook of lessons. Say what can be learnt.

Task: {task}

Lessons it was shown:
{bullets}

What it saw and did:
{episode}

Outcome: {outcome}

Answer with one JSON object and nothing else, with the keys "reasoning", \
"error_identification", "root_cause_analysis", "correct_approach", "key_insight" \
and "bullet_tags", a list of {{"id": ..., "tag": "helpful", "harmful" or "neutral"}}."""
_CURATOR = """\
You keep a playbook of lessons for an agent. Only add what is new and general.

Playbook:
{playbook}

A reflection on an attempt at the task "{task}":
{reflection}

Answer with a JSON list of at most {count} operations and nothing else. Forms:
{{"op": "ADD", "section": "strategies", "text": "..."}}
{{"op": "UPDATE", "ids": ["id"], "text": "..."}}
{{"op": "REMOVE", "ids": ["id"]}}
{{"op": "MERGE", "section": "strategies", "ids": ["id", "id"], "text": "..."}}"""


def learn(
    player: Player,
    tasks: Sequence[api.Task],
    groups: Sequence[Tree],
    shown: Sequence[Bullet],
    book: Playbook,
    config: Ace,
    reflection: Rules,
    step: int,
    ledger: Ledger,
) -> int:
  """Reflects on one episode per task and merges the deltas; how many applied."""
  episodes = [
      (task, group.nodes[0])
      for task, group in zip(tasks, groups, strict=True)
      if group.nodes and group.nodes[0].turns
  ]
  if isinstance(player.transcript, ChatTranscript):
    return _by_roles(player, episodes, shown, book, config, step, ledger)
  return _by_reflections(
      player, groups, episodes, shown, book, reflection, step, ledger
  )


# --- reflections


def _by_reflections(
    player: Player, groups: Sequence[Tree], episodes: Sequence[tuple[api.Task, Node]],
    shown: Sequence[Bullet], book: Playbook, reflection: Rules, step: int,
    ledger: Ledger,
) -> int:  # fmt: skip
  for _, node in episodes:
    followed = [bullet.id for bullet in shown if reflector.follows(node, bullet.text)]
    verdict = playbook_lib.HELPFUL if node.success else playbook_lib.HARMFUL
    book.tag(followed, verdict)
  failed = {id(n) for group in groups for n in reflector.reflectable(group)}
  asked = [(task, node) for task, node in episodes if id(node) in failed]
  samples = reflector.reflect_on(player, asked, reflection, ledger)
  applied = 0
  for (_, node), sample in zip(asked, samples, strict=True):
    try:
      found = reflector.read_reflection(player, node, sample)
      delta = Delta(playbook_lib.ADD, LESSONS, (), found.experience)
    except (ReflectionError, CutOff, playbook_lib.DeltaError) as error:
      book.reject(player.transcript.text(sample.tokens), str(error), step)
    else:
      applied += book.merge([delta], step)
  return applied


# --- roles


def _by_roles(
    player: Player, episodes: Sequence[tuple[api.Task, Node]], shown: Sequence[Bullet],
    book: Playbook, config: Ace, step: int, ledger: Ledger,
) -> int:  # fmt: skip
  bullets = '\n'.join(bullet.line() for bullet in shown) or '(none)'
  reflections = _ask(
      player, 'reflector', config,
      [
          (task.id, _REFLECTOR.format(
              task=task.instruction, bullets=bullets, episode=reflector.compact(node),
              outcome='success' if node.success else 'failure'))
          for task, node in episodes
      ],
      _read_reflection, book, step, ledger,
  )  # fmt: skip
  kept = [(task, r) for (task, _), r in zip(episodes, reflections) if r is not None]
  for _, found in kept:
    for tag in found['bullet_tags']:
      book.tag([tag['id']], tag['tag'])
  answers = _ask(
      player, 'curator', config,
      [
          (task.id, _CURATOR.format(
              playbook=book.render(), task=task.instruction,
              reflection=json.dumps(found, ensure_ascii=False),
              count=config.max_deltas))
          for task, found in kept
      ],
      _read_list, book, step, ledger,
  )  # fmt: skip
  applied = 0
  for records in answers:
    deltas, wrong = playbook_lib.parse_deltas((records or [])[: config.max_deltas])
    applied += book.merge(deltas, step)
    for reason in wrong:
      book.reject('', reason, step)
  return applied


def _ask(
    player: Player, role: str, config: Ace, prompts: Sequence[tuple[str, str]],
    read: Callable[[str], T], book: Playbook, step: int, ledger: Ledger,
) -> list[T | None]:  # fmt: skip
  rules = Rules(
      config.role_temperature, config.max_role_tokens, player.transcript.stop_ids
  )
  return ask_all(
      player, role, rules, prompts, read,
      lambda text, reason: book.reject(text, reason, step), step, ledger,
  )


def _read_reflection(text: str) -> dict[str, Any]:
  found = read_object(text)
  tags = found.get('bullet_tags', [])
  if not isinstance(tags, list):
    raise ValueError('bullet_tags is no list')
  tags = [t for t in tags if isinstance(t, dict) and {'id', 'tag'} <= t.keys()]
  return {**found, 'bullet_tags': tags}


def _read_list(text: str) -> list[Any]:
  found = json.loads(text[text.index('[') : text.rindex(']') + 1])
  if not isinstance(found, list):
    raise ValueError('no JSON list')
  return found
