"""Growing one experience tree: its queue, its limits, its decisions.

Rollback and branching (arXiv 2603.16843, section 3.1, algorithm 1) under the
choices that the paper leaves open, all in `config.Explore`. Branch requests
wait in a FIFO queue, so the tree grows breadth-first. A reflection in progress
adds a request and lets its episode go on (`on_reflect='continue'`).
"""

from __future__ import annotations

import collections
import dataclasses

from envs import api
from leafe_jax.config import Explore
from leafe_jax.rollout.episode import Decision, Episode, Player
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.reflect import Question
from leafe_jax.sampler import State
from leafe_jax.tree import Node, Reflection, Tree

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
  experience: str
  depth: int


class Growth:
  """A tree under construction.

  Attributes:
    task: what the tree is about.
    tree: the episodes so far.
    ledger: what they cost.
  """

  def __init__(
      self, player: Player, task: api.Task, root: State | None, config: Explore,
      limits: Limits,
  ):
    self._player = player
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
    """Starts a root or the oldest branch request; None for 'not now'."""
    while self.affordable():
      if len(self.tree.nodes) < self._config.num_roots:
        episode = self._start_root()
      elif self._queue:
        episode = self._start_branch(self._queue.popleft())
      elif self._config.restart and not self._running:
        episode = self._start_root()
      else:
        return None
      if episode is not None:
        self._running += 1
        return episode
      if self._broken() >= MAX_BROKEN:  # the world is gone, not one episode
        return None
    return None

  def _broken(self) -> int:
    """Episodes that never began."""
    return sum(node.ended_by == 'error' and not node.turns for node in self.tree.nodes)

  def _start_root(self) -> Episode | None:
    node = self._add_node(Node(len(self.tree.nodes), None, 1, None, 0))
    return Episode.start(
        self._player, node, self.task, self._root, self.ledger,
        hint_scope=self._config.hint_scope,
    )

  def _start_branch(self, request: BranchRequest) -> Episode | None:
    node = self._add_node(
        Node(
            len(self.tree.nodes), request.parent, request.tau,
            request.experience, request.depth,
        )
    )
    decision = self._decisions[self._owner(request.parent, request.tau), request.tau]
    return Episode.branch(
        self._player, node, decision, self.ledger,
        hint_scope=self._config.hint_scope,
        earlier_hints=self._ancestors_hints(request.parent),
    )

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
    return question

  def _book(self, episode: Episode) -> Question | None:
    node = episode.node
    if not episode.over:
      return self._ask_in_progress(episode)
    self._running -= 1
    for turn, decision in episode.decisions.items():
      self._decisions[node.id, turn] = decision
    episode.decisions = {}
    if node.success or node.ended_by in ('error', 'overlong', 'stopped'):
      return None
    return self._ask(episode, terminal=True)

  def _ask_in_progress(self, episode: Episode) -> Question | None:
    every = self._config.reflect_every
    taken = episode.turn - 1
    if not every or taken % every or not episode.node.turns:
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
    self._keep_decisions(episode)
    if not self._enqueue(episode.node, answer):
      return
    if not question.terminal and self._config.on_reflect == 'stop':
      episode.stop()
      self._running -= 1

  def _keep_decisions(self, episode: Episode) -> None:
    for turn, decision in episode.decisions.items():
      self._decisions[episode.node.id, turn] = decision

  def _enqueue(self, node: Node, answer: Reflection) -> bool:
    assert answer.tau is not None and answer.experience is not None
    place = (self._owner(node.id, answer.tau), answer.tau)
    if (node.id, answer.tau) in self._requested or place not in self._decisions:
      return False
    self._requested.add((node.id, answer.tau))
    answer.requested = True
    self._queue.append(
        BranchRequest(node.id, answer.tau, answer.experience, node.depth + 1)
    )
    return True

  def billed(self) -> Tree:
    """The tree so far, with its bill."""
    self.tree.budget = self.ledger.as_dict()
    return self.tree
