"""Expert episodes with the policy's alternatives at every step (arXiv 2510.08558).

An expert's episode is taken step by step; in each of its states the policy
proposes actions of its own, and each is executed from the snapshot of that
state. The result is a tree: its root is the expert's episode, its other nodes
are branches of one turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from absl import logging

from envs import api, boundary
from leafe_jax.rollout.answers import read_action, read_answer
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.episode import Decision, Episode, Player, Start
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import ask, open_episodes, take_actions
from leafe_jax.rollout.reflect import Question, reflect
from leafe_jax.rollout.timing import Meter
from leafe_jax.sampler import Request, Rules, Sample
from leafe_jax.tree import Node, Tree


@dataclasses.dataclass(frozen=True)
class Expert:
  """What an expert did on a task: texts of responses, in order."""

  task: api.Task
  responses: tuple[str, ...]


@dataclasses.dataclass
class _Plot:
  """A tree under construction around an expert's episode."""

  tree: Tree
  ledger: Ledger
  episode: Episode
  branches: list[Episode] = dataclasses.field(default_factory=list)

  def __post_init__(self) -> None:
    self._proposed = {(turn.index, turn.action) for turn in self.episode.node.turns}

  def branch_out(
      self, player: Player, decision: Decision, sample: Sample
  ) -> Episode | None:
    """A branch for a proposal; None, paid for, if it is not a new one."""
    if sample.overlong or not self._is_new(player, decision.turn, sample):
      self.ledger.model_calls += 1
      self.ledger.sampled_tokens += len(sample.tokens)
      return None
    node = Node(len(self.tree.nodes), 0, decision.turn, None, 1)
    self.tree.nodes.append(node)
    branch = Episode(player, node, decision, self.ledger)
    self._proposed.add((decision.turn, proposed_action(player, sample)))
    self.branches.append(branch)
    return branch

  def _is_new(self, player: Player, turn: int, sample: Sample) -> bool:
    """Whether no one, the expert included, has taken the action in this state."""
    action = proposed_action(player, sample)
    return action is not None and (turn, action) not in self._proposed

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


def proposed_action(player: Player, sample: Sample) -> str | None:
  """What it proposes; None for what holds no action, or breaks its reader."""
  return boundary.attempt(
      lambda: read_action(player.world, read_answer(player.transcript, sample))
  )[0]


def propose(
    player: Player,
    experts: Sequence[Expert],
    count: int,
    rules: Rules,
    reflect_rules: Rules | None = None,
) -> list[Tree]:
  """One tree per expert episode that can be retraced.

  Alternatives that cannot be read, equal the expert's action or repeat another
  one are dropped, as are those for which the transcript has no room; the others
  are executed and charged. An expert's episode that outgrows a transcript ends
  there, as overlong.

  Args:
    player: the policy that proposes.
    experts: episodes on distinct tasks.
    count: proposals per step.
    rules: of sampling.
    reflect_rules: the policy is asked, after what each alternative came to,
      where it went wrong; None: it is not.
  """
  meter = Meter(player.clock, lambda: player.sampler.stats)
  player.sampler.forget()  # a wave begins, see `explore.prefill_roots`
  crew = Crew([expert.task for expert in experts], player.clock, player.world)
  plots = _retrace(player, crew, experts)
  asked = [
      (plot, plot.episode.decisions[turn.index], number)
      for plot in plots
      for turn in plot.episode.node.turns
      for number in range(count)
  ]
  requests = [_request(player, *proposal) for proposal in asked]
  samples = ask(player, requests, rules)
  branches = []
  for (plot, decision, _), sample in zip(asked, samples, strict=True):
    branch = plot.branch_out(player, decision, sample)
    if branch is not None:
      branches.append((plot.tree.task_id, branch, sample))
  _execute(crew, branches)
  if reflect_rules is not None:
    reflect(player, [q for plot in plots for q in plot.questions()], reflect_rules)
  overlong = sum(sample.overlong for sample in samples)
  logging.info(
      '%d of %d experts retraced, %d alternatives, %d without room, in %s',
      len(plots), len(experts), len(branches), overlong, meter,
  )
  return [plot.finish() for plot in plots]


def _retrace(player: Player, crew: Crew, experts: Sequence[Expert]) -> list[_Plot]:
  """The experts' episodes as if the policy had said them.

  Their steps are not charged: the experts' data is given.
  """
  episodes = [
      (expert, Episode(player, Node(0, None, 1, None, 0), Start(expert.task, None),
                       Ledger()))
      for expert in experts
  ]  # fmt: skip
  open_episodes(crew, [(expert.task.id, episode) for expert, episode in episodes])
  for turn in range(max((len(expert.responses) for expert in experts), default=0)):
    acting = [
        (expert.task.id, episode, _say(player, episode, expert.responses[turn]))
        for expert, episode in episodes
        if turn < len(expert.responses) and not episode.over
    ]
    take_actions(crew, acting)
  return [
      _Plot(Tree(expert.task.id, expert.task.instruction, expert.task.split,
                 [episode.node]), Ledger(), episode)
      for expert, episode in episodes
      if episode.node.turns
  ]  # fmt: skip


def _say(player: Player, episode: Episode, text: str) -> Sample:
  """A response as if it had been sampled, where the policy could have said it."""
  ids, prompt = player.transcript.response(text), episode.prompt()
  if not player.sampler.fits(prompt, len(ids)):
    return Sample(prompt, [], [], False, overlong=True)
  state = player.sampler.extend(prompt, ids)
  return Sample(state, ids, [0.0] * len(ids), True)


def _execute(crew: Crew, branches: Sequence[tuple[str, Episode, Sample]]) -> None:
  open_episodes(crew, [(task_id, branch) for task_id, branch, _ in branches])
  take_actions(crew, [entry for entry in branches if not entry[1].over])


def _request(
    player: Player, plot: _Plot, decision: Decision, number: int
) -> Request:
  state = player.sampler.extend(decision.state, player.transcript.opener_ids)
  key = row_key(
      player.seed, player.version, plot.tree.task_id, decision.turn, 'alternative',
      number,
  )
  return Request(state, key)
