"""What the phases of one run share: world, tokens, mesh, sampler, weights."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Sequence

import jax
from absl import logging

from envs import api, registry
from leafe_jax.config import Experiment
from leafe_jax.learner.metrics import Writer, make_writer
from leafe_jax.policy import huggingface
from leafe_jax.policy.model import abstract_params
from leafe_jax.policy.sharding import make_mesh
from leafe_jax.rollout.episode import Player
from leafe_jax.rundir import RunDirectory, RunStopped
from leafe_jax.sampler import Sampler
from leafe_jax.text.chat import ChatTranscript, TemplateError
from leafe_jax.text.tokenizers import Tokenizer, build_word_tokenizer, load_tokenizer
from leafe_jax.text.transcript import Transcript, WordTranscript


class Run:
  """One run of one config in one directory. Parts are made when first used.

  Attributes:
    config: of the run.
    directory: where everything is kept.
    config_sha256: identifies the config.
  """

  def __init__(
      self, config: Experiment, directory: RunDirectory, config_sha256: str
  ):
    self.config = config
    self.directory = directory
    self.config_sha256 = config_sha256

  @functools.cached_property
  def world(self) -> api.World:
    return registry.make(self.config.env.name, **self.config.env.options)

  def teacher(self, **options: object) -> api.Teacher | None:
    """The world's scripted teacher, None where there is none."""
    try:
      return self.world.teacher(**{**self.config.env.teacher, **options})
    except NotImplementedError:
      return None

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    return make_mesh(self.config.mesh)

  @functools.cached_property
  def tokenizer(self) -> Tokenizer:
    """The checkpoint's own, or a word-level one, built and saved once."""
    if self.config.policy.checkpoint:
      with self._naming_the_checkpoint():
        return load_tokenizer(self.config.policy.checkpoint)
    directory = self.directory.path / 'tokenizer'
    if not (directory / 'tokenizer_config.json').exists():
      words = self.world.vocabulary()
      tokenizer = build_word_tokenizer(words, self.config.env.horizon)
      tokenizer.save_pretrained(directory)
      logging.info('built a tokenizer of %d words', len(tokenizer))
    return load_tokenizer(directory)

  @functools.cached_property
  def transcript(self) -> Transcript:
    if self.config.policy.checkpoint:
      with self._naming_the_checkpoint():
        return ChatTranscript(self.tokenizer)
    return WordTranscript(self.tokenizer)

  @functools.cached_property
  def shape(self) -> huggingface.Shape:
    """Sizes of the policy: the checkpoint's, or the config's."""
    policy = self.config.policy
    if policy.checkpoint:
      with self._naming_the_checkpoint():
        return huggingface.read_shape(policy.checkpoint, policy)
    return huggingface.Shape(policy, len(self.tokenizer))

  @contextlib.contextmanager
  def _naming_the_checkpoint(self) -> Iterator[None]:
    """What is wrong with a checkpoint stops the run with one clear line."""
    try:
      yield
    except (OSError, huggingface.UnsupportedCheckpoint, TemplateError) as error:
      checkpoint = self.config.policy.checkpoint
      raise RunStopped(f'policy.checkpoint={checkpoint}: {error}') from error

  @functools.cached_property
  def sampler(self) -> Sampler:
    shape = self.shape
    return Sampler(
        shape.policy, self.config.sampler, self.mesh, shape.vocab_size,
        decode=self.transcript.text,
    )

  def player(self, params: dict[str, jax.Array], version: int) -> Player:
    """A player with these weights; the players before it are stale."""
    first = self.sampler.version < 0
    self.sampler.load(params, version)
    if first and self.config.sampler.compile_first:
      explore = self.config.explore
      self.sampler.compile(
          [explore.max_response_tokens, explore.max_reflection_tokens]
      )
    return Player(
        self.sampler, self.transcript, self.world, self.config.env.horizon,
        self.config.seed, version,
    )

  def abstract_params(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and shardings of the policy's weights."""
    return abstract_params(self.shape.policy, self.shape.vocab_size, self.mesh)

  def writer(self, name: str) -> Writer:
    """TensorBoard scalars of one part of the run."""
    return make_writer(self.directory.path / 'tensorboard' / name)

  def tasks(self, split: str, count: int) -> Sequence[api.Task]:
    """The first `count` tasks of a split."""
    tasks = self.world.tasks(split)
    if len(tasks) < count:
      logging.warning(
          'the %s split has %d tasks, %d were asked for', split, len(tasks), count
      )
    return tasks[:count]

  def params_path(self, phase: str) -> pathlib.Path:
    """Where a phase keeps its final weights."""
    return self.directory.phase(phase).dir / 'params'
