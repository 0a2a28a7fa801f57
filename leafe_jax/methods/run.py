"""What the phases of one run share: world, tokens, mesh, sampler, weights."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import logging

from envs import api, registry
from envs.remote.cluster import Actor, Cluster
from envs.remote.process import Process
from envs.remote.world import RemoteWorld
from leafe_jax import hosts, inputs, seals
from leafe_jax.config import Experiment
from leafe_jax.endings import RunStopped
from leafe_jax.files import PARTIAL, replace
from leafe_jax.learner.checkpoints import load_params
from leafe_jax.learner.metrics import Writer
from leafe_jax.methods import origin
from leafe_jax.planning import memory
from leafe_jax.planning.jobs import Job
from leafe_jax.planning.programs import Target
from leafe_jax.policy import huggingface, lora
from leafe_jax.policy.model import Params, abstract_params
from leafe_jax.policy.sharding import make_mesh
from leafe_jax.rollout.episode import Player, Window
from leafe_jax.rollout.timing import Clock, Meter
from leafe_jax.rundir import RunDirectory
from leafe_jax.sampler import Sampler, Stats
from leafe_jax.sampler.state import MAX_STOP_IDS
from leafe_jax.text import prompts, template
from leafe_jax.text.chat import ChatTranscript
from leafe_jax.text.endings import BadEnding, read_eos
from leafe_jax.text.prompts import PromptsError
from leafe_jax.text.template import TemplateError
from leafe_jax.text.tokenizers import (
  Tokenizer,
  TokenizerError,
  build_word_tokenizer,
  check_ids,
  known_ids,
  load_tokenizer,
  save_tokenizer,
)
from leafe_jax.text.transcript import Transcript, WordTranscript
from leafe_jax.tracking import opening
from leafe_jax.tracking.api import PartWriter, Tracker

BASE = 'warm_start'  # the phase whose weights everything starts from
IMPORT = 'import'  # the phase that takes a checkpoint over, where BASE teaches it
# Of what is taught to a checkpoint: runs of all seeds share it.
COLD_SEED = 0


def is_cold(config: Experiment) -> bool:
  """Whether the base is a checkpoint that is taught before all else."""
  return bool(config.policy.checkpoint and config.warm_start.steps)


def imported(config: Experiment) -> str:
  """The phase that holds whole weights, which adapters lie over."""
  return IMPORT if is_cold(config) else BASE


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
    """The world; its sessions in workers, where there are any."""
    env = self.config.env
    options = inputs.local_options(env.options)
    world = registry.make(env.name, **options)
    if not env.workers:
      return world
    connect = functools.partial(Process, env.name, options, env.worker_gb)
    if env.fleet == 'ray':
      cluster = Cluster(env.fleet_address, env.worker_cpus, env.fleet_resource)
      connect = functools.partial(Actor, env.name, options, env.worker_gb, cluster)
    return RemoteWorld(world, connect, env.workers, env.step_timeout)

  @functools.cached_property
  def checkpoint(self) -> str:
    """Directory of the checkpoint on this machine; empty where there is none."""
    return inputs.local(self.config.policy.checkpoint)

  def _playable(self) -> api.World:
    """The world, whose sessions can be made. Raises RunStopped."""
    try:
      self.world.prepare()
    except api.EnvError as error:
      raise RunStopped(f'env.name={self.config.env.name}: {error}') from error
    return self.world

  def teacher(self, **options: object) -> api.Teacher | None:
    """The world's scripted teacher, None where there is none."""
    try:
      return self.world.teacher(**{**self.config.env.teacher, **options})
    except NotImplementedError:
      return None

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """Of all devices. MeshError if its sizes do not fit their number."""
    return make_mesh(self.config.mesh)

  @functools.cached_property
  def tokenizer(self) -> Tokenizer:
    """The checkpoint's own, or a word-level one, built and saved once."""
    if self.config.policy.checkpoint:
      with self.naming_the_checkpoint():
        return load_tokenizer(self.checkpoint)
    return load_tokenizer(self.own_tokenizer())

  def own_tokenizer(self) -> pathlib.Path:
    """Directory of the word-level one; built, or made again where it was damaged."""
    directory = self.directory.path / 'tokenizer'
    hosts.first(lambda: self._build_tokenizer(directory))
    return directory

  def _build_tokenizer(self, directory: pathlib.Path) -> None:
    seal = directory / seals.SEAL
    sealed = None
    with contextlib.suppress(seals.BrokenSeal):
      sealed = seals.read(seal)
    if sealed and not seals.compare(directory, sealed):
      return
    if sealed is not None or directory.exists():
      logging.warning('%s is not as it was sealed: made again', directory)
    partial = directory.with_name(f'{directory.name}{PARTIAL}')
    tokenizer = build_word_tokenizer(self._words(), self.config.env.horizon)
    save_tokenizer(tokenizer, partial)
    if sealed and (wrong := seals.compare(partial, sealed)):
      raise RunStopped(
          f'{directory} was damaged, and the world does not give the same tokenizer '
          f'any more ({next(iter(wrong))} differs): put the directory, or the data of '
          'the environment, back'
      )
    shutil.rmtree(directory, ignore_errors=True)
    replace(partial, directory)
    logging.info('built a tokenizer of %d words', len(tokenizer))

  def _words(self) -> Sequence[str]:
    try:
      return self.world.vocabulary()
    except NotImplementedError as error:
      raise RunStopped(
          f'env.name={self.config.env.name}: {error}, so no policy can start from '
          'scratch in it; give a checkpoint: --config.policy.checkpoint=DIR'
      ) from error

  @functools.cached_property
  def transcript(self) -> Transcript:
    if self.config.policy.checkpoint:
      with self.naming_the_checkpoint():
        return self._chat()
    return WordTranscript(self.tokenizer)

  def _chat(self) -> ChatTranscript:
    """Template and prompts are the same at every start and on every host."""
    policy, root = self.config.policy, self.directory.path
    said, pieces = root / 'prompts.json', root / 'chat_template.json'
    hosts.first(lambda: prompts.keep(said, inputs.local(policy.prompts)))
    words = prompts.kept(said)
    system, tokenizer = words.system_message, self.tokenizer
    hosts.first(lambda: template.keep(pieces, tokenizer, policy.template, system))
    return ChatTranscript(
        tokenizer, template.kept(pieces), read_eos(self.checkpoint), words
    )

  def _window(self) -> Window | None:
    """Spells prompts of the last turns, see `Player`. Raises RunStopped."""
    turns, transcript = self.config.policy.history_turns, self.transcript
    if not turns:
      return None
    if not isinstance(transcript, ChatTranscript):
      raise RunStopped(
          f'policy.history_turns={turns}: only a checkpoint with a chat template can '
          'be shown its last turns alone; name one in policy.checkpoint, or take 0'
      )
    return functools.partial(transcript.window, turns)

  @functools.cached_property
  def shape(self) -> huggingface.Shape:
    """Sizes of the policy: the checkpoint's, or the config's."""
    policy = self.config.policy
    if policy.checkpoint:
      with self.naming_the_checkpoint():
        huggingface.check_length(self.checkpoint, policy.max_length)
        shape = huggingface.read_shape(self.checkpoint, policy)
        check_ids(self.tokenizer, shape.vocab_size)
        return shape
    words = len(self.tokenizer)
    if 0 < policy.vocab_size < words:
      raise RunStopped(
          f'policy.vocab_size={policy.vocab_size}: the tokenizer has {words} tokens'
      )
    return huggingface.Shape(policy, policy.vocab_size or words)

  def check(
      self, jobs: Sequence[Job] | None = None, plays: bool = True
  ) -> memory.Plan:
    """Refuses what cannot work before any weight is read; as `check_memory`."""
    assert self.mesh  # before anything is written
    self._check_origin()
    self._check_stops(self.transcript.stop_ids)
    self._check_adapters()
    self._window()
    return self.check_memory(jobs, plays)

  def _check_origin(self) -> None:
    checkpoint = self.checkpoint
    if checkpoint:
      place = self.directory.path / imported(self.config)
      hosts.first(lambda: origin.check(checkpoint, place))

  def _check_adapters(self) -> None:
    try:
      lora.check(self.shape.policy)
    except ValueError as error:
      raise RunStopped(str(error)) from error

  def _check_stops(self, stop_ids: Sequence[int]) -> None:
    size = self.shape.vocab_size
    if len(stop_ids) > MAX_STOP_IDS or max(stop_ids) >= size:
      raise RunStopped(
          f'policy.checkpoint={self.config.policy.checkpoint}: the tokens '
          f'{list(stop_ids)} of its template, tokenizer and generation_config.json '
          f'end a response; at most {MAX_STOP_IDS} can, each below {size}'
      )

  def check_memory(
      self, jobs: Sequence[Job] | None = None, plays: bool = True
  ) -> memory.Plan:
    """Logs what the run takes.

    Args:
      jobs: what it trains; a distillation if not given.
      plays: whether it samples outside of its jobs.

    Raises:
      RunStopped: no device can hold it, or the devices here cannot run a form of
        attention that was asked for.
    """
    shape, limit = self.shape, memory.device_limit()
    target = Target(self.config, shape.policy, shape.vocab_size, self.mesh)
    try:
      found = memory.check(target, limit, jobs, plays=plays)
    except (memory.DoesNotFit, ValueError) as error:
      raise RunStopped(str(error)) from error
    logging.info('memory:\n%s', memory.table(found, limit))
    memory.say_if_slow(target)
    return found

  @contextlib.contextmanager
  def naming_the_checkpoint(self) -> Iterator[None]:
    """What is wrong with a checkpoint stops the run with one clear line."""
    try:
      yield
    except (
        OSError, huggingface.UnsupportedCheckpoint, TokenizerError, TemplateError,
        BadEnding, PromptsError,
    ) as error:
      checkpoint = self.config.policy.checkpoint
      raise RunStopped(f'policy.checkpoint={checkpoint}: {error}') from error

  @functools.cached_property
  def sampler(self) -> Sampler:
    return Sampler(
        self.shape.policy, self.config.sampler, self.mesh,
        decode=self.transcript.text,
        drawable=known_ids(self.tokenizer, self.shape.vocab_size),
    )

  @functools.cached_property
  def clock(self) -> Clock:
    """Times the environments of all players."""
    return Clock()

  def meter(self) -> Meter:
    """Where time goes from now on, whoever plays."""
    return Meter(
        self.clock,
        lambda: self.sampler.stats if 'sampler' in vars(self) else Stats(),
    )

  def player(self, params: Params, version: int) -> Player:
    """A player with these weights; the players before it are stale.

    Args:
      params: of a whole policy, or adapters over the frozen base.
      version: of the policy.
    """
    frozen, sampler = self.frozen_beneath(params), self.sampler
    first = sampler.version < 0
    sampler.load(lora.join(frozen, params, self.shape.policy), version)
    if first and self.config.sampler.compile_first:
      explore = self.config.explore
      sampler.compile([explore.max_response_tokens, explore.max_reflection_tokens])
    return Player(
        sampler, self.transcript, self._playable(), self.config.env.horizon,
        self.config.seed, version, self.clock, self._window(),
        self.config.sampler.checkpoint_every,
    )

  def abstract_params(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and shardings of the weights of a whole policy."""
    return abstract_params(self.shape.policy, self.shape.vocab_size, self.mesh)

  @functools.cached_property
  def frozen(self) -> dict[str, Any]:
    """The weights that adapters lie over, perhaps quantised."""
    path = self.params_path(imported(self.config))
    base = load_params(path, self.abstract_params())
    return lora.freeze(base, self.shape.policy, self.mesh)

  def frozen_beneath(self, params: Params) -> dict[str, Any]:
    """The frozen base where `params` are adapters or nothing, else nothing."""
    whole = params and not lora.are_adapters(params)
    return {} if whole else self.frozen

  def trained(self, phase: str) -> Params:
    """What a phase trained, for `player`: all weights, or adapters.

    Where adapters are trained, the phase that they lie over has none: nothing. The
    sampler lets go of the weights and pages that it had, to make room.
    """
    shape = self.shape
    if 'sampler' in vars(self):
      self.sampler.release()
    if not shape.policy.lora_rank:
      return load_params(self.params_path(phase), self.abstract_params())
    if phase == imported(self.config):
      return {}
    target = lora.abstract_params(shape.policy, shape.vocab_size, self.mesh)
    return load_params(self.params_path(phase), target)

  def start(self, phase: str = BASE) -> Params:
    """What training that starts from a phase trains on; free to be donated."""
    shape = self.shape
    seed = COLD_SEED if phase == IMPORT else self.config.seed
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return self.trained(phase) or lora.init_params(
        shape.policy, shape.vocab_size, key, self.mesh
    )

  def player_of(self, phase: str) -> Player:
    """A player with what a phase trained, policy version 0."""
    return self.player(self.trained(phase), 0)

  def base_player(self) -> Player:
    """A player with the base's weights, policy version 0."""
    return self.player_of(BASE)

  @functools.cached_property
  def tracker(self) -> Tracker:
    """Is told of this run; TensorBoard if no other is put here."""
    return opening.board(self.directory.path, self.config)

  def writer(self, name: str) -> Writer:
    """Takes the scalars of one part of the run."""
    return PartWriter(self.tracker, name)

  def tasks(self, split: str, count: int | None = None) -> Sequence[api.Task]:
    """The first `count` tasks of a split, or all. RunStopped if it has none."""
    tasks = self.world.tasks(split)
    if not tasks:
      raise RunStopped(
          f'the {split} split of {self.world.name} has no tasks; see env.options'
      )
    if count is not None and len(tasks) < count:
      logging.warning(
          'the %s split has %d tasks, %d were asked for', split, len(tasks), count
      )
    return tasks[:count]

  def params_path(self, phase: str) -> pathlib.Path:
    """Where a phase keeps its final weights."""
    return self.directory.phase(phase).dir / 'params'
