"""Watch a checkpoint act in an environment, step by step.

  python -m tools.chat --checkpoint=DIR --env=webshop --options='{"view": "text"}'
  python -m tools.chat --checkpoint=RUNDIR --phase=distill/leafe --split=test

DIR is a Hugging Face checkpoint; with --phase it is the workdir of a run, which
knows its environment. Every step shows the response as it was sampled, with its
tokens, log-probability and end, the action that was read in it, and what the
environment answered. An empty line takes the next step. Other lines:

  :retry       samples the last response again
  :undo [N]    goes back N steps, 1 unless said
  :reflect     asks where it went wrong; shows the answer and what was read in it
  :prompt      shows the next prompt as the policy reads it, special tokens included
  :quit        leaves, as does the end of the input

--steps=N takes N steps and asks for no input. Text is shown with control
characters escaped, so that no page can write to the terminal.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from envs import api, registry
from leafe_jax import buckets, command_line, inputs, settings
from leafe_jax.command_line import printable
from leafe_jax.config import Env, Experiment, Explore, Policy, Sampler
from leafe_jax.endings import RunStopped
from leafe_jax.methods.run import Run
from leafe_jax.policy import huggingface
from leafe_jax.rollout.crew import Crew
from leafe_jax.rollout.episode import Decision, Episode, Player, Start
from leafe_jax.rollout.ledger import Ledger
from leafe_jax.rollout.play import open_episodes, take_actions, turn_request
from leafe_jax.rollout.reflect import Question, reflect
from leafe_jax.rundir import RunDirectory
from leafe_jax.sampler import NonFiniteLogits, Rules, Sample
from leafe_jax.tree import Node, Reflection, Turn
from tools import export_hf

PAGE = 16
LONGEST = 8192  # tokens of a transcript, unless the checkpoint has fewer positions
COMMANDS = 'an empty line, :retry, :undo [N], :reflect, :prompt or :quit'


class Watch:
  """An episode that a person steps through.

  Attributes:
    episode: as it stands; after going back, a branch.
  """

  def __init__(self, player: Player, task: api.Task, acting: Rules, asking: Rules):
    self._player = player
    self._task = task
    self._acting, self._asking = acting, asking
    self._crew = Crew([task], player.clock, player.world)
    self._ledger = Ledger()
    self._past: dict[int, Decision] = {}  # of the turns that were taken
    self._begun = 0
    self._reflections = 0
    self.episode = self._begin(Start(task, None))

  def _begin(self, origin: Start | Decision) -> Episode:
    tau = origin.turn if isinstance(origin, Decision) else 1
    node = Node(self._begun, None, tau, None, 0)
    self._begun += 1  # another node draws with other keys
    episode = Episode(self._player, node, origin, self._ledger)
    open_episodes(self._crew, [(self._task.id, episode)])
    if episode.over:
      raise ValueError(f'the episode cannot be opened: {node.error}')
    return episode

  @property
  def observation(self) -> str:
    return self.episode.decisions[self.episode.turn].observation

  def step(self) -> tuple[Sample, Turn | None]:
    """Samples and acts; no turn where the transcript had no room.

    ValueError after the end.
    """
    episode = self.episode
    if episode.over:
      raise ValueError(f'the episode is over ({episode.node.ended_by}): :undo or :quit')
    self._past.update(episode.decisions)
    request = turn_request(self._player, self._task.id, episode, 'chat')
    [sample] = self._player.sampler.sample([request], self._acting)
    take_actions(self._crew, [(self._task.id, episode, sample)])
    return sample, None if sample.overlong else episode.node.turns[-1]

  def undo(self, count: int = 1) -> None:
    """Goes back. ValueError for further than there is."""
    taken = self.taken
    if not 1 <= count <= taken:
      raise ValueError(f'cannot undo {count} of {taken} steps')
    if not self.episode.over:
      self.episode.stop()
    self.episode = self._begin(self._past[taken - count + 1])

  @property
  def taken(self) -> int:
    """Steps taken so far."""
    return self.episode.node.last_turn

  def reflect(self) -> Reflection:
    """The policy's answer to where it went wrong. ValueError before any step."""
    node = self.episode.node
    if not self.taken or node.ended_by in ('error', 'overlong'):
      raise ValueError('there is no step to reflect on')
    terminal = self.episode.over and not node.success
    # Another answer each time: the key is of the node and the number of the attempt.
    seed = self._player.seed + self._reflections
    self._reflections += 1
    question = Question.ask(self.episode, self._task.id, terminal, self._ledger)
    reflect(dataclasses.replace(self._player, seed=seed), [question], self._asking)
    return question.answer

  def prompt(self) -> str:
    """What the policy reads before its next response."""
    return self.spell(self.episode.prompt().tokens)

  def spell(self, ids: Sequence[int]) -> str:
    """The text of ids, special tokens included."""
    tokenizer = self._player.transcript.tokenizer
    return str(tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    ))


def show(title: str, text: str) -> None:
  """A titled block, indented so that no text can pass for a title."""
  lines = printable(text).split('\n')
  print('\n'.join([f'{title}:', *(f'  {line}' for line in lines)]))


def take(watch: Watch) -> None:
  """Takes a step and shows it."""
  number = watch.taken + 1
  sample, turn = watch.step()
  if turn is None:
    print(f'step {number}: overlong, no room for a response in the transcript')
    return
  show(f'step {number}, response', watch.spell(sample.tokens))
  total, count = sum(sample.logprobs), len(sample.tokens)
  end = 'stopped' if sample.stopped else 'cut off by --max_tokens'
  print(
      f'{count} tokens, log-probability {total:.3f} ({total / max(count, 1):.3f} a '
      f'token), {end}'
  )
  show('action', 'none' if turn.action is None else turn.action)
  if turn.error is not None:
    show('error', turn.error)
  node = watch.episode.node
  if node.ended_by != 'error':
    show('answer', node.final_observation)
    notes = [] if turn.valid else ['not valid']
    print(', '.join([f'reward {turn.reward:g}', f'score {node.score:g}', *notes]))
  if watch.episode.over:
    print(f'over: {node.ended_by}, success {node.success}')


def show_reflection(answer: Reflection) -> None:
  """The answer as it was said, and what was read in it."""
  show('reflection', answer.raw)
  if answer.error is not None:
    show(f'error, attempt {answer.attempts}', answer.error)
  elif answer.tau is None:
    print('go back: no')
  else:
    print(f'go back to step {answer.tau}')
    show('experience', answer.experience or '')


def obey(line: str, watch: Watch) -> None:
  """Does what a line says. ValueError where it says nothing known."""
  match line.split():
    case []:
      take(watch)
    case [':retry']:
      watch.undo()
      take(watch)
    case [':undo', *count] if len(count) < 2 and all(c.isdecimal() for c in count):
      watch.undo(int(count[0]) if count else 1)
      show(f'back before step {watch.taken + 1}, observation', watch.observation)
    case [':reflect']:
      show_reflection(watch.reflect())
    case [':prompt']:
      show('prompt', watch.prompt())
    case _:
      raise ValueError(f'{printable(line)}: use {COMMANDS}')


def lines() -> Iterator[str]:
  """Lines of the standard input up to ':quit'."""
  while True:
    print('> ', end='', flush=True)
    line = sys.stdin.readline()
    if not line or line.strip() == ':quit':
      return
    yield line


def converse(watch: Watch, steps: int) -> None:
  """Takes `steps` steps, or obeys the standard input where that is 0."""
  show('observation', watch.observation)
  if steps:
    while watch.taken < steps and not watch.episode.over:
      take(watch)
    return
  for line in lines():
    try:
      obey(line, watch)
    except ValueError as error:
      print(printable(str(error)))


def of_checkpoint(
    checkpoint: str, env: Env, place: pathlib.Path, values: Any, rows: int = 1,
    **policy_options: Any,
) -> Run:
  """A run of a Hugging Face checkpoint.

  Args:
    checkpoint: its directory.
    env: where it acts.
    place: an empty directory.
    values: flags max_length, dtype and max_tokens.
    rows: episodes at a time.
    **policy_options: further options of the policy.
  """
  fields = huggingface.read_fields(inputs.local(checkpoint))
  longest = values.max_length or min(
      LONGEST, fields.get('max_position_embeddings') or LONGEST
  )
  policy = Policy(
      checkpoint=checkpoint, max_length=longest, scan_layers=True,
      dtype=values.dtype, param_dtype=values.dtype, **policy_options,
  )
  lengths = tuple(size for size in (512, 2048) if size < longest)
  sampler = Sampler(
      page_size=PAGE, num_pages=4 * rows * (longest // PAGE + 2), max_rows=rows,
      dispatch_rows=rows, prefill_buckets=(16, 128, 512), length_buckets=lengths,
  )
  tokens = values.max_tokens or 512
  explore = Explore(max_response_tokens=tokens, max_reflection_tokens=tokens)
  config = Experiment(env=env, policy=policy, sampler=sampler, explore=explore)
  return Run(config, RunDirectory(place), settings.sha256(config))


def of_phase(rundir: str, values: Any) -> Run:
  """The run in a directory, with another environment if one is named."""
  for name in ('max_length', 'dtype'):
    if values[name].present:
      raise ValueError(f'--{name} is for a checkpoint; the run has its own')
  run = export_hf.open_phase(buckets.open_run(rundir), values.phase)
  config = run.config
  if values.env not in ('', config.env.name):  # its own comes with the run's options
    env = dataclasses.replace(config.env, name=values.env, options={})
    config = dataclasses.replace(config, env=env)
  if values.options:
    env = dataclasses.replace(config.env, options=json.loads(values.options))
    config = dataclasses.replace(config, env=env)
  run.config = config
  return run


def task_of(world: api.World, split: str, index: int) -> api.Task:
  """A task by its number. ValueError if there is none."""
  tasks = world.tasks(split)
  if not 0 <= index < len(tasks):
    raise ValueError(f'--index={index}: the {split} split has {len(tasks)} tasks')
  return tasks[index]


def open_watch(values: Any, place: pathlib.Path) -> Watch:
  """What the flags ask for; `place` is an empty directory.

  What costs little is checked first: the weights are read last.
  """
  if values.phase:
    run = of_phase(values.checkpoint, values)
  else:
    if not values.env:
      raise ValueError('--env=NAME says in which environment the checkpoint acts')
    env = Env(values.env, json.loads(values.options or '{}'))
    run = of_checkpoint(values.checkpoint, env, place, values)
  config = run.config
  task = task_of(run.world, values.split, values.index)
  stop_ids = run.transcript.stop_ids
  acting = Rules(
      values.temperature, values.max_tokens or config.explore.max_response_tokens,
      stop_ids, values.top_k, values.top_p, values.min_p,
  )
  asking = Rules(
      config.explore.reflect_temperature,
      values.max_tokens or config.explore.max_reflection_tokens, stop_ids,
  )
  if values.phase:
    params = run.trained(values.phase)
  else:
    params = huggingface.load_params(run.checkpoint, run.shape, run.mesh)
  player = dataclasses.replace(
      run.player(params, 0), seed=values.seed,
      horizon=values.horizon or config.env.horizon,
  )
  show('task', f'{task.id}\n{task.instruction}'.strip())
  return Watch(player, task, acting, asking)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags; by the program alone, as tools share their names."""
  text, whole, real, choice = (
      functools.partial(define, flag_values=values)
      for define in (
          flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float,
          flags.DEFINE_enum,
      )
  )
  text('checkpoint', None, 'A Hugging Face checkpoint, or a run.', required=True)
  text('phase', '', 'Phase of the run in --checkpoint whose policy acts.')
  names = ', '.join(registry.names())
  text('env', '', f'One of {names}, or package.module:function; empty: of the run.')
  text('options', '', 'Options of the world, as JSON.')
  choice('split', 'train', api.SPLITS, 'Split of the tasks.')
  whole('index', 0, 'Number of the task in its split.')
  whole('seed', 0, 'Of what is drawn.')
  whole('steps', 0, 'Steps to take without asking; 0: ask.', lower_bound=0)
  whole('horizon', 0, 'Steps of an episode; 0: as configured.', lower_bound=0)
  whole('max_tokens', 0, 'Tokens of a response; 0: as configured.', lower_bound=0)
  whole('max_length', 0, 'Tokens of a transcript; 0: up to 8192.', lower_bound=0)
  real('temperature', 1.0, 'Of sampling; 0 takes the likeliest token.')
  whole('top_k', 0, 'Draw from the k likeliest tokens; 0: from all.')
  real('top_p', 1.0, 'Draw from the likeliest tokens that reach this share.')
  real('min_p', 0.0, 'Draw from tokens this times as likely as the first.')
  choice('dtype', 'float32', ('float32', 'bfloat16'), 'Type of weights and products.')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise command_line.UsageError(f'unexpected arguments {list(argv[1:])}')
  sys.stdout.reconfigure(errors='backslashreplace')  # pyright: ignore
  values = flags.FLAGS
  try:
    with tempfile.TemporaryDirectory() as place:
      converse(open_watch(values, pathlib.Path(place)), values.steps)
  except (
      ValueError, TypeError, OSError, ImportError, api.EnvError, RunStopped,
      NonFiniteLogits,
  ) as error:
    sys.exit(f'error: {printable(str(error))}')
  except KeyboardInterrupt:
    sys.exit(130)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
