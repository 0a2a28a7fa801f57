"""On-policy self-distillation at the turns that the policy's reflections name.

    leafe_opd  a fresh response at h_tau without e, pulled towards what the same
               frozen weights say of it with e in the prompt, beside L_reh

The same trees, events, rehearsal and number of updates as `leafe`, and no
environment step: is distilling the corrected *action* better than distilling the
hinted self's *distribution*? (Losses: arXiv 2601.18734.) The responses are the
student's own of at most `self_distill.refresh` updates ago.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import random
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from leafe_jax import stops
from leafe_jax.config import Distill, Experiment
from leafe_jax.endings import EarlyEnd
from leafe_jax.experience import build, pipeline, states
from leafe_jax.experience.examples import Example
from leafe_jax.learner import optimizers
from leafe_jax.learner import self_distillation as losses
from leafe_jax.learner.checkpoints import Checkpoints, save_params
from leafe_jax.learner.scoring import Likeliest, Scorer, score_sequences
from leafe_jax.learner.update import TrainState, check_finite, init_state, make_update
from leafe_jax.methods import lengths, stage1
from leafe_jax.methods.arms import (
  BASE,
  BETA,
  PLAY_READS,
  TRAIN_READS,
  Arm,
  Phase,
)
from leafe_jax.methods.collect import load_trees
from leafe_jax.methods.effort import Effort, training
from leafe_jax.methods.effort import tuned as tuned_effort
from leafe_jax.methods.run import Run, imported
from leafe_jax.methods.tuning import tuned
from leafe_jax.planning import jobs
from leafe_jax.policy import model
from leafe_jax.progress import Progress
from leafe_jax.rollout.fresh import respond
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.sampler import Rules

NAME = 'leafe_opd'


def distill(run: Run, directory: pathlib.Path) -> dict[str, Any]:
  """From trees to weights. EarlyEnd where no event can be distilled."""
  del directory  # the phase's, as `tuned` knows
  config = run.config
  trees = load_trees(run.directory.phase(stage1.EXPLORE.name).dir)
  summary = build.Summary(tasks=len(trees))
  rng = random.Random(f'{config.seed}/{NAME}/examples')
  rehearsed = build.rehearsal(trees, config.experience, rng, summary)
  asked, left_out = _fitting(
      states.of_corrections(trees, config.experience, summary), config
  )
  if not asked:
    raise EarlyEnd(
        f'arm {NAME!r} has nothing to learn from: no tree holds a correction that '
        'experience.cf_filter lets pass and distill.row_length='
        f'{config.distill.row_length} has room for. Explore more tasks '
        '(--config.explore.num_tasks) or start from a better base.'
        + lengths.trouble(trees, config)
    )

  def fit(options: Distill, place: pathlib.Path) -> dict[str, Any]:
    return OnPolicy(run, place, asked, rehearsed, options).train()

  result = tuned(run, PHASE.name, config.distill, fit)
  return {
      'experience': summary.as_dict(), 'events': len(asked), 'left_out': left_out,
      **result,
  }


def _fitting(
    found: Sequence[states.State], config: Experiment
) -> tuple[list[states.State], int]:
  """(those that fit into a row with any response, how many do not)."""
  room = config.distill.row_length - config.explore.max_response_tokens
  kept = [state for state in found if len(state.extended_ids) <= room]
  if len(kept) < len(found):
    logging.warning(
        '%s: %d of %d events are longer than distill.row_length=%d with their hint and '
        'are left out', NAME, len(found) - len(kept), len(found),
        config.distill.row_length,
    )
  return kept, len(found) - len(kept)


class OnPolicy:
  """Rounds of fresh responses, the teacher's scores of them, and updates.

  A round depends on the weights it begins with and its number alone, so a run
  that goes on after a kill makes the same ones.

  Args:
    run: the run.
    directory: where checkpoints and weights go.
    asked: states to answer, with what the teacher sees.
    rehearsed: examples that are imitated beside.
    config: of the training.
  """

  def __init__(
      self, run: Run, directory: pathlib.Path, asked: Sequence[states.State],
      rehearsed: Sequence[Example], config: Distill,
  ):
    self._run, self._directory, self._config = run, directory, config
    self._asked = asked
    self._options = run.config.self_distill
    self._rules = Rules(
        self._options.temperature, run.config.explore.max_response_tokens,
        run.transcript.stop_ids,
    )
    self._packing = pipeline.Packing(config.batch_rows, config.row_length)
    self._student, self._teacher = run.start(), run.start()
    self._frozen = run.frozen_beneath(self._student)
    self._form = _form_of(run, config, self._frozen)
    pipeline.count_cut(rehearsed, config.row_length)
    self._rehearsed = [
        self._form.imitated(pipeline.fit(example, config.row_length), config.beta)
        for example in rehearsed
    ]

  def train(self) -> dict[str, Any]:
    """Trains from the base or the last checkpoint; saves the phase's weights.

    Raises:
      EarlyEnd: no event has room for a response.
      NonFiniteLoss: an update is not finite.
      Stopped: the run was asked to stop; finished rounds are saved.
    """
    run, config, frozen = self._run, self._config, self._frozen
    scale = run.shape.policy.lora_rate_scale if frozen else 1.0
    optimizer = optimizers.from_config(config, scale)
    update = make_update(
        run.shape.policy, optimizer, self._form.loss, run.mesh,
        grad_accumulation=config.grad_accumulation, forward=self._form.forward,
        forward_reads=self._form.forward_reads, frozen=frozen,
    )
    state = init_state(self._student, optimizer, run.mesh)
    checkpoints = Checkpoints(self._directory / 'checkpoints')
    try:
      state, ledger = self._rounds(state, update, checkpoints)
    finally:
      checkpoints.close()
    save_params(self._directory / 'params', state.params)
    result = {'updates': config.steps, 'budget': ledger.as_dict()}
    return {**result, 'frozen': imported(run.config)} if frozen else result

  def _rounds(
      self, state: TrainState, update: Any, checkpoints: Checkpoints
  ) -> tuple[TrainState, Ledger]:
    ledger, config = Ledger(), self._config
    restored = checkpoints.restore(state)
    if restored is not None:
      state, ledger = restored.state, Ledger(**restored.metadata['asked'])
      logging.info('%s: going on after update %d', NAME, restored.step)
    done = saved = int(jax.device_get(state.step))
    with (
        contextlib.closing(self._run.writer(NAME)) as writer,
        Progress(f'distill {NAME}', config.steps, 'update', done) as bar,
    ):
      while done < config.steps:
        count = min(self._options.refresh, config.steps - done)
        state, figures = self._round(state, update, done, count, ledger)
        done += count
        writer.write(done, figures)
        bar.show({'loss': f'{figures["loss"]:.4f}'})
        bar.advance(count)
        every = config.checkpoint_every
        if done == config.steps or (every and done - saved >= every):
          checkpoints.save(done, state, metadata={'asked': ledger.as_dict()})
          saved = done
    return state, ledger

  def _round(
      self, state: TrainState, update: Any, done: int, count: int, ledger: Ledger
  ) -> tuple[TrainState, dict[str, float]]:
    """`count` updates on fresh responses; the last one's metrics."""
    player = self._run.player(state.params, done)
    answers = respond(
        player, self._asked, self._options.samples, self._rules, NAME, ledger
    )
    fresh = [
        (asked, sample.tokens)
        for asked, samples in zip(self._asked, answers, strict=True)
        for sample in samples if sample.tokens
    ]
    if not fresh:
      raise EarlyEnd(
          f'{NAME}: no event has room for a response; raise policy.max_length='
          f'{self._run.shape.policy.max_length}'
      )
    taught = self._form.taught(self._teacher, fresh)
    name = f'{self._run.config.seed}/{NAME}/{done}'
    batches = pipeline.stream(
        [taught, self._rehearsed], dict, tuple(taught[0]), self._packing,
        zlib.crc32(name.encode()),
    )
    metrics: dict[str, float] = {}
    for number in range(done + 1, done + count + 1):
      stops.check(f'{NAME}: finished rounds of updates are saved')
      batch = next(batches)
      state, found = update(state, batch)
      metrics = {k: float(v) for k, v in jax.device_get(found).items()}
      check_finite(number, metrics, batch, self._directory)
    batches.close()
    lengths_of = [len(tokens) for _, tokens in fresh]
    return state, {**metrics, 'response_tokens': float(np.mean(lengths_of))}


class _Reverse:
  """KL from the student, on the tokens that it sampled."""

  loss = staticmethod(losses.rehearsed)
  forward = staticmethod(model.token_scores)
  forward_reads = ('weights',)

  def __init__(self, run: Run, config: Distill, frozen: model.Params):
    self._score = Scorer(run.shape.policy, run.mesh, frozen)
    self._config = config

  def taught(
      self, teacher: model.Params, fresh: Sequence[tuple[states.State, list[int]]]
  ) -> list[dict[str, np.ndarray]]:
    scores = _scores_of(self._score, teacher, fresh, self._config)
    return [
        states.sequence(
            state, ids, taught=np.ones(len(ids), np.float32),
            teacher_logprobs=values[-len(ids) :],
        )
        for (state, ids), values in zip(fresh, scores, strict=True)
    ]

  def imitated(self, example: Example, weight: float) -> dict[str, np.ndarray]:
    none = np.zeros(len(example), np.float32)
    weights = weight * example.weights
    return {'tokens': example.ids, 'weights': weights, 'taught': none,
            'teacher_logprobs': none}  # fmt: skip


class _Forward:
  """KL from the teacher, over its likeliest tokens."""

  forward = staticmethod(model.candidate_logprobs)
  forward_reads = ('candidates',)

  def __init__(self, run: Run, config: Distill, frozen: model.Params):
    options = run.config.self_distill
    self.loss = functools.partial(losses.forward, clip=options.clip)
    self._count = min(options.top_k, run.shape.vocab_size)
    self._likeliest = Likeliest(run.shape.policy, run.mesh, self._count, frozen)
    self._config = config

  def taught(
      self, teacher: model.Params, fresh: Sequence[tuple[states.State, list[int]]]
  ) -> list[dict[str, np.ndarray]]:
    scores = _scores_of(self._likeliest, teacher, fresh, self._config)
    return [
        states.sequence(
            state, ids, teacher_topk=logprobs[-len(ids) :],
            candidates=found[-len(ids) :],
        )
        for (state, ids), (logprobs, found) in zip(fresh, scores, strict=True)
    ]

  def imitated(self, example: Example, weight: float) -> dict[str, np.ndarray]:
    """The example's own tokens, as a teacher would score them who is sure."""
    sure = np.full((len(example), self._count), -np.inf, np.float32)
    sure[:, 0] = 0.0
    tokens = np.zeros(sure.shape, np.int32)
    tokens[:, 0] = example.ids
    return {'tokens': example.ids, 'weights': weight * example.weights,
            'teacher_topk': sure, 'candidates': tokens}  # fmt: skip


def _form_of(run: Run, config: Distill, frozen: model.Params) -> _Reverse | _Forward:
  form = _Reverse if run.config.self_distill.divergence == 'reverse' else _Forward
  return form(run, config, frozen)


def _scores_of(
    score: Any, teacher: model.Params,
    fresh: Sequence[tuple[states.State, list[int]]], config: Distill,
) -> list[Any]:  # fmt: skip
  """What the teacher, who sees more, says of every token."""
  rows = -(-config.batch_rows // config.grad_accumulation)  # as an update's at a time
  sequences = [[*state.extended_ids, *ids] for state, ids in fresh]
  return score_sequences(score, teacher, sequences, config.row_length, rows)


def _effort(config: Experiment) -> Effort:
  options, experience = config.self_distill, config.experience
  rounds = -(-config.distill.steps // options.refresh)
  events = experience.cf_per_task * config.explore.num_tasks
  answers = rounds * events * options.samples
  asked = Effort(sampled=answers * config.explore.max_response_tokens)
  job = jobs.on_policy(NAME, config.distill)
  return tuned_effort(config, training(job, config.distill) + asked)


_READ = ('divergence', 'top_k', 'clip', 'samples', 'refresh', 'temperature')
PHASE = Phase(
    f'distill/{NAME}',
    (*PLAY_READS, *TRAIN_READS, BETA, 'experience',
     *(f'self_distill.{name}' for name in _READ)),
    distill, _effort, after=(BASE, stage1.EXPLORE.name),
)  # fmt: skip

ARM = Arm(
    NAME, 'the distribution of the hinted self at tau, beside L_reh',
    (stage1.EXPLORE, PHASE), PHASE.name, (stage1.EXPLORE.name, PHASE.name),
)
