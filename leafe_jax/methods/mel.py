"""MEL: meta-experience as a target beside GRPO (arXiv 2602.10224).

    mel   GRPO, and beside it the likelihood of what the policy itself wrote
          about a failure and a success of one group

Of each group with both outcomes the policy is shown a failed and a successful
episode and writes a meta-experience M. M is kept only if the policy then solves
the task in one replay that is shown it, and is trained as tokens after the very
prompt it was written after, never shown at test. The paper's problems take one
answer; here the two answers are episodes, and the replay is an episode more, which
is paid for.

Chat policies write the four sections of the paper. Word-level policies, whose
vocabulary has no such form, write what Stage 1 asks for, (tau, e), after the
failed episode alone; their replay shows e at turn tau.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import random
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array

from envs import api
from leafe_jax.config import Experiment, Explore, Grpo, Mel
from leafe_jax.learner import losses, self_distillation
from leafe_jax.learner.losses import Loss, Terms
from leafe_jax.memory import meta as meta_lib
from leafe_jax.methods import effort, reflector
from leafe_jax.methods.arms import ASK_READS, Arm, Phase
from leafe_jax.methods.beside import Arrays, Scene, Study
from leafe_jax.methods.effort import Effort
from leafe_jax.methods.grpo import GRPO_READS
from leafe_jax.methods.online import OnlineTraining, counts
from leafe_jax.methods.run import Run
from leafe_jax.methods.tuning import tuned
from leafe_jax.planning import jobs
from leafe_jax.rollout.answers import CutOff, read_answer
from leafe_jax.rollout.episode import Start
from leafe_jax.rollout.keys import row_key
from leafe_jax.rollout.play import ask
from leafe_jax.rollout.reflect import OVERLONG
from leafe_jax.rollout.samples import replay
from leafe_jax.sampler import Request, Rules, Sample
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.transcript import ReflectionError
from leafe_jax.tree import Node, Tree

META = 'meta'
_PROMPT = """\
Compare two attempts at one task. Attempt 1 failed and attempt 2 succeeded.

Task: {task}

Attempt 1 (failed):
{failure}

Attempt 2 (succeeded):
{success}

Find the step at which the two part, say why that decided the outcome, and draw from \
it what helps with other tasks of this kind. Answer with exactly these four sections \
and nothing else:
<failure>how attempt 1 went wrong, and at which step</failure>
<success>what attempt 2 did instead, and why it worked</success>
<reflection>in the first person: what I will watch for</reflection>
<heuristics>rules of the form "if ..., then ..."</heuristics>
The last two sections are for other tasks: no number, name or action of this one."""


@dataclasses.dataclass(frozen=True)
class Pair:
  """A failure and a success at one task."""

  task: api.Task
  wrong: Node
  right: Node


@dataclasses.dataclass(frozen=True)
class Written:
  """A meta-experience that can be read.

  Attributes:
    pair: what it is about.
    prompt_ids: the retrospective context.
    response_ids: M.
    shown: where it stands in a replay: a fresh node and where that begins.
  """

  pair: Pair
  prompt_ids: list[int]
  response_ids: list[int]
  shown: tuple[Node, Start]


def likelihood(outputs: losses.Outputs, batch: Mapping[str, Array]) -> Terms:
  """The NLL of M, each of its tokens with its weight in batch['meta'] [B, T]."""
  found = losses.weighted_nll(outputs, {**batch, 'weights': batch[META]})
  return Terms(found.total, found.weight, {})


class MetaExperience:
  """The companion of mel.

  Args:
    run: the run.
    config: options.
  """

  asks_base = False

  def __init__(self, run: Run, config: Mel):
    explore, stop_ids = run.config.explore, run.transcript.stop_ids
    self._config = config
    self._seed = run.config.seed
    self._rows = run.config.sampler.max_rows
    self._by_sections = isinstance(run.transcript, ChatTranscript)
    self._asking = asking_of(config, explore, self._by_sections, stop_ids)
    self._acting = Rules(1.0, explore.max_response_tokens, stop_ids)

  def loss(self, surrogate: Loss) -> Loss:
    return self_distillation.beside(
        surrogate, likelihood, self._config.weight, 'meta_nll'
    )

  def study(self, scene: Scene) -> Study:
    pairs = self._pairs(scene)
    written = self._write(scene, pairs)
    kept = self._validated(scene, written)
    fitting = [m for m in kept
               if len(m.prompt_ids) + len(m.response_ids) <= scene.row_length]
    return Study(
        unlabelled, functools.partial(rows, fitting),
        {'pairs': float(len(pairs)), 'meta_read': float(len(written)),
         'meta_kept': float(len(kept)),
         'meta_too_long': float(len(kept) - len(fitting))},
    )  # fmt: skip

  def _pairs(self, scene: Scene) -> list[Pair]:
    """Of every group with both outcomes, without an episode twice."""
    found = []
    for task, tree in zip(scene.tasks, scene.groups, strict=True):
      rng = random.Random(f'{self._seed}/mel/{scene.step}/{task.id}')
      wrong = reflector.reflectable(tree)
      right = [node for node in tree.nodes if node.success and counts(node)]
      count = min(len(wrong), len(right), self._config.pairs_per_task)
      found += [
          Pair(task, *nodes) for nodes in
          zip(rng.sample(wrong, count), rng.sample(right, count), strict=True)
      ]
    return found

  def _write(self, scene: Scene, pairs: Sequence[Pair]) -> list[Written]:
    """What the policy writes about the pairs, where it can be read."""
    player, ledger = scene.player, scene.ledger
    prompts = [self._prompt(scene, pair) for pair in pairs]
    requests = []
    for pair, ids in zip(pairs, prompts, strict=True):
      ledger.reflections += 1
      ledger.reflection_prompt_tokens += len(ids)
      key = row_key(
          player.seed, player.version, pair.task.id, pair.wrong.id, pair.right.id,
          META,
      )
      requests.append(Request(player.sampler.extend(player.sampler.empty(), ids), key))
    samples = ask(player, requests, self._asking)
    ledger.reflection_tokens += sum(len(sample.tokens) for sample in samples)
    found = []
    for number, (pair, ids) in enumerate(zip(pairs, prompts, strict=True)):
      try:
        shown = self._read(scene, pair, samples[number], number)
      except (ReflectionError, CutOff, meta_lib.MetaError):
        continue
      found.append(Written(pair, ids, list(samples[number].tokens), shown))
    return found

  def _prompt(self, scene: Scene, pair: Pair) -> list[int]:
    transcript = scene.player.transcript
    if not isinstance(transcript, ChatTranscript):
      return reflector.reflection_prompt(scene.player, pair.task, pair.wrong)
    return transcript.question(_PROMPT.format(
        task=pair.task.instruction, failure=reflector.compact(pair.wrong),
        success=reflector.compact(pair.right),
    ))  # fmt: skip

  def _read(
      self, scene: Scene, pair: Pair, sample: Sample, number: int
  ) -> tuple[Node, Start]:
    """How a replay shows M. Raises what says that it cannot be read."""
    player = scene.player
    if not self._by_sections:
      found = reflector.read_reflection(player, pair.wrong, sample)
      node = Node(number, None, found.tau or 1, found.experience, 0)
      return node, Start(pair.task, None)
    if sample.overlong:
      raise ReflectionError(OVERLONG)
    said = read_answer(player.transcript, sample)
    actions = [turn.action or '' for turn in pair.right.turns]
    meta_lib.check_general(meta_lib.parse(said), pair.task.instruction, actions)
    return Node(number, None, 1, None, 0), Start(pair.task, None, said.strip())

  def _validated(self, scene: Scene, written: Sequence[Written]) -> list[Written]:
    """Those with which one replay succeeds."""
    if not self._config.validate or not written:
      return list(written)
    replay(
        scene.player, [m.shown for m in written], self._acting, self._rows,
        'mel_replay', scene.ledger,
    )
    return [m for m in written if m.shown[0].success]


def asking_of(
    config: Mel, explore: Explore, by_sections: bool, stop_ids: tuple[int, ...]
) -> Rules:
  """How M is sampled."""
  size = config.max_tokens if by_sections else explore.max_reflection_tokens
  return Rules(config.temperature, size, stop_ids)


def unlabelled(tree: Tree, node: Node, arrays: Arrays) -> Arrays:
  """An episode's own sequence: no token of it is meta-experience."""
  del tree, node
  return {**arrays, META: np.zeros(arrays['tokens'].size, np.float32)}


def rows(written: Sequence[Written], weight: float) -> list[Arrays]:
  """Every M after its prompt; all of them together have the given weight.

  The loss divides by the weight of the response tokens, so that the mean over M of
  the mean over its tokens is what is added (in a minibatch: in expectation).
  """
  found = []
  for m in written:
    size, prompt = len(m.response_ids), len(m.prompt_ids)
    none = np.zeros(prompt + size, np.float32)
    labels = none.copy()
    labels[prompt:] = weight / len(written) / size
    tokens = np.asarray([*m.prompt_ids, *m.response_ids], np.int32)
    found.append({
        'tokens': tokens, 'weights': none, 'advantages': none, 'logprobs': none,
        'routes': none.astype(np.uint32), META: labels,
    })
  return found


def mel(run: Run, directory: pathlib.Path) -> dict:
  """GRPO and the likelihood of validated meta-experience."""
  del directory  # the phase's, as `tuned` knows

  def fit(config: Grpo, place: pathlib.Path) -> dict:
    companion = MetaExperience(run, run.config.mel)
    return OnlineTraining(
        run, MEL.name, place, 0.0, config=config, companion=companion
    ).train()

  return tuned(run, MEL.name, run.config.grpo, fit)


def _effort(config: Experiment) -> Effort:
  job = jobs.group_policy(
      'mel', config, arrays=(META,),
      wrap=lambda loss: self_distillation.beside(loss, likelihood, 1.0, 'meta_nll'),
  )
  grpo, options = config.grpo, config.mel
  count = grpo.steps * grpo.tasks_per_step * min(
      options.pairs_per_task, grpo.group_size // 2)
  size = max(options.max_tokens if config.policy.checkpoint else 0,
             config.explore.max_reflection_tokens)
  more = effort.asking(count, size, attempts=1)
  if options.validate:
    more += effort.acting(config, count)
  return effort.tuned(config, effort.optimising(config, 'mel', job=job) + more)


MEL = Phase('mel', (*GRPO_READS, *ASK_READS, 'mel'), mel, _effort)

ARMS = (
    Arm(
        'mel', 'GRPO and the likelihood of validated meta-experience', (MEL,),
        MEL.name, (MEL.name,),
    ),
)
