"""Expert episodes with the policy's alternatives at every step (arXiv 2510.08558).

An expert's episode is taken step by step; before each step the policy proposes
actions of its own, and each is executed from the snapshot of that state. The
result is a tree: its root is the expert's episode, its other nodes are
branches of one turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from envs import api
from leafe_jax.rollout.episode import Decision, Episode, Player
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.reflect import Question, reflect
from leafe_jax.sampler import Request, Rules, Sample
from leafe_jax.tree import Node, Tree


@dataclasses.dataclass(frozen=True)
class Expert:
  """What an expert did on a task: texts of responses, in order."""

  task: api.Task
  responses: tuple[str, ...]


def retrace(player: Player, expert: Expert, ledger: Ledger) -> Episode | None:
  """The expert's episode as if the policy had said it; None if it breaks.

  Its steps are not charged: the expert's data is given.
  """
  node = Node(0, None, 1, None, 0)
  episode = Episode.start(player, node, expert.task, None, ledger)
  for text in expert.responses:
    if episode is None or episode.over:
      break
    ids = player.transcript.response(text)
    state = player.sampler.extend(episode.prompt(), ids)
    episode.advance(Sample(state, ids, [0.0] * len(ids), True))
  return episode


def propose(
    player: Player,
    experts: Sequence[Expert],
    count: int,
    rules: Rules,
    reflect_rules: Rules | None = None,
) -> list[Tree]:
  """One tree per expert episode that can be retraced.

  Alternatives that cannot be read, equal the expert's action or repeat another
  one are dropped; the others are executed and charged.

  Args:
    player: the policy that proposes.
    experts: episodes on distinct tasks.
    count: proposals per step.
    rules: of sampling.
    reflect_rules: the policy is asked, after what each alternative came to,
      where it went wrong; None: it is not.
  """
  traced = [(expert, retrace(player, expert, Ledger())) for expert in experts]
  plots = [
      _Plot(Tree(expert.task.id, expert.task.instruction, expert.task.split,
                 [episode.node]), Ledger(), episode)
      for expert, episode in traced
      if episode is not None and episode.node.turns
  ]  # fmt: skip
  asked = [
      (plot, plot.episode.decisions[turn.index], number)
      for plot in plots
      for turn in plot.episode.node.turns
      for number in range(count)
  ]
  requests = [_request(player, *proposal) for proposal in asked]
  samples = player.sampler.sample(requests, rules)
  for (plot, decision, _), sample in zip(asked, samples, strict=True):
    plot.execute(player, decision, sample)
  if reflect_rules is not None:
    reflect(player, [q for plot in plots for q in plot.questions()], reflect_rules)
  return [plot.finish() for plot in plots]


def _request(
    player: Player, plot: _Plot, decision: Decision, number: int
) -> Request:
  state = player.sampler.extend(decision.state, player.transcript.opener_ids)
  key = row_key(
      player.seed, player.version, plot.tree.task_id, decision.turn, 'alternative',
      number,
  )
  return Request(state, key)


@dataclasses.dataclass
class _Plot:
  """A tree under construction around an expert's episode."""

  tree: Tree
  ledger: Ledger
  episode: Episode
  branches: list[Episode] = dataclasses.field(default_factory=list)

  def execute(self, player: Player, decision: Decision, sample: Sample) -> None:
    """Adds a one-turn branch for a proposal, if it is a new one."""
    if sample.overlong or not self._is_new(player, decision.turn, sample):
      self.ledger.model_calls += 1
      self.ledger.sampled_tokens += len(sample.tokens)
      return
    node = Node(len(self.tree.nodes), 0, decision.turn, None, 1)
    self.tree.nodes.append(node)
    branch = Episode.branch(player, node, decision, self.ledger)
    if branch is not None:
      branch.advance(sample)
      self.branches.append(branch)

  def _is_new(self, player: Player, turn: int, sample: Sample) -> bool:
    """Whether no one, the expert included, has taken the action in this state."""
    try:
      action = player.world.parse_response(player.transcript.text(sample.tokens))
    except api.InvalidAction:
      return False
    taken = (t for node in self.tree.nodes for t in node.turns if t.index == turn)
    return action not in {t.action for t in taken}

  def questions(self) -> list[Question]:
    """Where did it go wrong? One per alternative that the world answered."""
    return [
        Question.ask(branch, self.tree.task_id, True, self.ledger)
        for branch in self.branches
        if branch.node.ended_by not in ('error', 'overlong')
    ]

  def finish(self) -> Tree:
    """The tree, with its bill; an alternative goes no further."""
    for branch in self.branches:
      if not branch.over:
        branch.stop()
    self.tree.budget = self.ledger.as_dict()
    return self.tree
