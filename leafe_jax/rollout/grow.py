"""Growing one experience tree: its queue, its limits, its decisions.

Rollback and branching (arXiv 2603.16843, section 3.1, algorithm 1) under the
choices that the paper leaves open, all in `config.Explore`. Branch requests
wait in a FIFO queue, so the tree grows breadth-first. A reflection in progress
adds a request and lets its episode go on (`on_reflect='continue'`).
"""

from __future__ import annotations

import collections
import dataclasses
import random

from envs import api
from leafe_jax.config import Explore
from leafe_jax.rollout.episode import Decision, Episode, Player, Start
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.reflect import Question
from leafe_jax.sampler import State
from leafe_jax.tree import ELSEWHERE, Node, Reflection, Tree

MAX_BROKEN = 3


@dataclasses.dataclass(frozen=True)
class Limits:
  """What one task may spend.

  Attributes:
    attempts: episodes, roots and branches; 0 for no limit.
    env_steps: new environment steps; 0 for no limit. An episode that has
      started is played to its end.
  """

  attempts: int
  env_steps: int


@dataclasses.dataclass(frozen=True)
class BranchRequest:
  """Go back to `tau` of `parent` and act again knowing `experience`."""

  parent: int
  tau: int
  experience: str | None
  depth: int


class Growth:
  """A tree under construction.

  A process that neither plays the task nor makes prompts of earlier turns does
  without these once they are taken in: `tree.ELSEWHERE` stands in their places. All
  processes have the same nodes, reflections, states and bills.

  Attributes:
    task: what the tree is about.
    tree: the episodes so far.
    ledger: what they cost.
  """

  def __init__(
      self, player: Player, task: api.Task, root: State | None, config: Explore,
      limits: Limits, own: bool = True,
  ):
    """`own`: whether this process plays the task; see `explore` for the others."""
    self._player = player
    self._keeps = own or player.looks_back
    self._root = root
    self._config = config
    self._limits = limits
    self._queue: collections.deque[BranchRequest] = collections.deque()
    self._requested: set[tuple[int, int]] = set()
    self._decisions: dict[tuple[int, int], Decision] = {}
    self._running = 0
    self.task = task
    self.tree = Tree(task.id, task.instruction, task.split)
    self.ledger = Ledger()

  def affordable(self) -> bool:
    """Whether one more episode may start."""
    limits = self._limits
    started = len(self.tree.nodes)
    return not (
        (limits.attempts and started >= limits.attempts)
        or (limits.env_steps and self.ledger.env_steps >= limits.env_steps)
    )

  def start_next(self) -> Episode | None:
    """A root or the oldest branch request, to be opened; None for 'not now'."""
    if not self.affordable():
      return None
    if len(self.tree.nodes) < self._config.num_roots:
      episode = self._new_root()
    elif self._queue:
      episode = self._new_branch(self._queue.popleft())
    elif self._config.restart and not self._running and not self._barren():
      episode = self._new_root()
    else:
      return None
    self._running += 1
    return episode

  def lost(self) -> bool:
    """Books an episode that could not be opened; whether to stop trying now."""
    self._running -= 1
    nodes = self.tree.nodes
    broken = sum(node.ended_by == 'error' and not node.turns for node in nodes)
    return broken >= MAX_BROKEN  # the world is gone, not one episode

  def _barren(self) -> bool:
    """Whether the last roots all ended before their first environment step.

    They would go on for ever: what costs no step spends no budget.
    """
    last = [node for node in self.tree.nodes if node.parent is None][-MAX_BROKEN:]
    steps = (len(n.turns) - (n.ended_by == 'error' and bool(n.turns)) for n in last)
    return len(last) == MAX_BROKEN and not any(steps)

  def _new_root(self) -> Episode:
    node = self._add_node(Node(len(self.tree.nodes), None, 1, None, 0))
    return Episode(
        self._player, node, Start(self.task, self._root), self.ledger,
        hint_scope=self._config.hint_scope,
    )

  def _new_branch(self, request: BranchRequest) -> Episode:
    node = self._add_node(
        Node(
            len(self.tree.nodes), request.parent, request.tau,
            request.experience, request.depth,
        )
    )
    return Episode(
        self._player, node, self._decision_of(request), self.ledger,
        hint_scope=self._config.hint_scope,
        earlier_hints=self._ancestors_hints(request.parent),
    )

  def _decision_of(self, request: BranchRequest) -> Decision:
    """Where a branch begins; under noise the environment may be a turn behind."""
    decision = self._decision_at(request.parent, request.tau)
    noise = self._config.replay_noise
    if request.tau > 1 and noise and self._dice(request).random() < noise:
      earlier = self._decision_at(request.parent, request.tau - 1)
      return dataclasses.replace(decision, snapshot=earlier.snapshot)
    return decision

  def _decision_at(self, node_id: int, turn: int) -> Decision:
    return self._decisions[self._owner(node_id, turn), turn]

  def _dice(self, *names: object) -> random.Random:
    """Chance that depends on the run, the task and the names alone."""
    player = self._player
    words = row_key(player.seed, player.version, self.task.id, *names)
    return random.Random(repr(words))

  def _ancestors_hints(self, node_id: int) -> list[str]:
    """Experiences on the path to a node, oldest first, if they are stacked."""
    node: Node | None = self.tree.nodes[node_id] if self._config.stack_hints else None
    hints: list[str] = []
    while node is not None and node.parent is not None:
      hints.insert(0, node.experience or '')
      node = self.tree.nodes[node.parent]
    return hints

  def _add_node(self, node: Node) -> Node:
    self.tree.nodes.append(node)
    return node

  def _owner(self, node_id: int, turn: int) -> int:
    """The node on the path to `node_id` that owns `turn`."""
    node = self.tree.nodes[node_id]
    while node.parent is not None and turn < node.tau:
      node = self.tree.nodes[node.parent]
    return node.id

  def observe(self, episode: Episode) -> Question | None:
    """Books a turn that was just taken; the reflection it calls for, if any.

    Until `accept` gets it answered, the tree does not restart.
    """
    question = self._book(episode)
    self._running += question is not None
    if not self._keeps and episode.node.turns:
      episode.node.turns[-1] = ELSEWHERE
    return question

  def _book(self, episode: Episode) -> Question | None:
    node = episode.node
    if not episode.over:
      return self._ask_in_progress(episode)
    self._running -= 1
    self._keep_decisions(episode)
    episode.decisions = {}
    if node.success or node.ended_by in ('error', 'overlong', 'stopped'):
      return None
    if self._config.feedback == 'outcome':
      return self._refine(node)
    return self._ask(episode, terminal=True)

  def _refine(self, node: Node) -> None:
    """Starts over knowing how this attempt ended; no reflection is made."""
    if not self._may_request(node) or not node.turns:
      return
    self._requested.add((node.id, 1))
    outcome = f'{node.turns[-1].action or ""} {node.final_observation}'.strip()
    self._queue.append(BranchRequest(node.id, 1, outcome, node.depth + 1))

  def _ask_in_progress(self, episode: Episode) -> Question | None:
    every = self._config.reflect_every
    taken = episode.turn - 1
    if not every or taken % every or not episode.node.turns:
      return None
    if self._config.feedback == 'outcome':
      return None
    return self._ask(episode, terminal=False)

  def _ask(self, episode: Episode, terminal: bool) -> Question | None:
    if not self._may_request(episode.node):
      return None
    return Question.ask(episode, self.task.id, terminal, self.ledger)

  def _may_request(self, node: Node) -> bool:
    made = sum(reflection.requested for reflection in node.reflections)
    return node.depth < self._config.max_depth and made < self._config.max_requests

  def accept(self, question: Question) -> None:
    """Queues the branch that an answered question asks for."""
    self._running -= 1
    answer, episode = question.answer, question.episode
    if answer.tau is None or answer.experience is None:
      return
    if self._config.turn == 'random':
      answer.tau = self._dice(episode.node.id, answer.turn).randint(1, answer.turn)
    self._keep_decisions(episode)
    if not self._enqueue(episode.node, answer):
      return
    if not question.terminal and self._config.on_reflect == 'stop':
      episode.stop()
      self._running -= 1

  def _keep_decisions(self, episode: Episode) -> None:
    for turn, decision in episode.decisions.items():
      if not self._keeps:
        decision = dataclasses.replace(decision, observation='')
      self._decisions[episode.node.id, turn] = decision

  def _enqueue(self, node: Node, answer: Reflection) -> bool:
    assert answer.tau is not None and answer.experience is not None
    place = (self._owner(node.id, answer.tau), answer.tau)
    if (node.id, answer.tau) in self._requested or place not in self._decisions:
      return False
    self._requested.add((node.id, answer.tau))
    answer.requested = True
    shown = None if self._config.feedback == 'none' else answer.experience
    self._queue.append(BranchRequest(node.id, answer.tau, shown, node.depth + 1))
    return True

  def billed(self) -> Tree:
    """The tree so far, with its bill."""
    self.tree.budget = self.ledger.as_dict()
    return self.tree
