"""Every option of a run, with its type, default and meaning.

A config file (`configs/*.py`) starts from `default()`, changes fields and
returns an `ml_collections.ConfigDict`; absl flags override fields on top; and
`from_config_dict` turns the result into these frozen dataclasses once, at the
boundary, where bad values are refused by name.

Where the paper (arXiv 2603.16843) leaves a value open, the comment says so;
BUILD_NOTES.md gives the reasons for ours.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from leafe_jax.options import option, section
from leafe_jax.policy_config import Policy
from leafe_jax.teachers import Mel, SelfDistill, StepAgent


@dataclasses.dataclass(frozen=True)
class Env:
  name: str = option('webshop', 'environment, see envs.registry.names()')
  options: dict[str, Any] = option({}, 'options of the world; each environment lists its own')
  teacher: dict[str, Any] = option({}, 'options of the scripted teacher (warm start)')
  horizon: int = option(15, 'turns per episode (15: verl-agent on WebShop)', at_least=1)
  workers: int = option(0, 'processes that hold the sessions, beside each process of the run; 0: its own', at_least=0)
  fleet: str = option('process', "where the workers are: processes of this machine, or of a Ray cluster's", choices=('process', 'ray'))
  fleet_address: str = option('', "of the Ray cluster, HOST:PORT or auto; empty: one of this machine alone, for the run")
  fleet_resource: str = option('', "a resource of the cluster's own, of which each worker takes one, such as a mark of its CPU machines; empty: none")
  worker_cpus: float = option(1.0, 'CPUs of the cluster that each worker reserves', at_least=0)
  step_timeout: float = option(0.0, 'seconds that a reset, step, snapshot, restore or close may take in a worker, which is then replaced; 0: any', at_least=0)
  worker_gb: float = option(0.0, 'memory at which a worker is replaced, in 1e9 bytes; 0: any', at_least=0)


@dataclasses.dataclass(frozen=True)
class Mesh:
  data: int = option(1, 'replicas of the weights; -1: all remaining devices', at_least=1, also=(-1,))
  fsdp: int = option(-1, 'shards of weights and optimizer; -1: all remaining devices', at_least=1, also=(-1,))
  tensor: int = option(1, 'shards of heads and of the MLP', at_least=1, also=(-1,))
  expert: int = option(1, 'shards of the experts of a mixture, and of rows', at_least=1, also=(-1,))


@dataclasses.dataclass(frozen=True)
class Sampler:
  page_size: int = option(16, 'tokens per KV page', at_least=1)
  num_pages: int = option(24_576, 'KV pages in the pool, on all shards of data and fsdp together', at_least=1)
  num_window_pages: int = option(0, 'KV pages of layers with a sliding window (Gemma 3, OLMo 3, Mistral), on all shards together; less: more is read again before a branch; 0: two windows for each of max_rows, and what a dispatch writes', at_least=0)
  num_memories: int = option(512, "kept states of recurrent layers (Qwen3.5's delta layers), on all shards together, one at each point that is gone on from; less: more is read again", at_least=2)
  max_rows: int = option(256, 'episodes in progress at a time', at_least=1)
  dispatch_rows: int = option(64, 'rows of one device program; more rows take several', at_least=1)
  prefill_buckets: tuple[int, ...] = option((16, 32, 64), 'new prompt tokens per row and dispatch, padded to one of these', at_least=1)
  length_buckets: tuple[int, ...] = option((96, 160, 320), 'cached tokens per row, padded to one of these; 0 suits fresh prompts', at_least=0)
  decode_chunk: int = option(32, 'tokens decoded per dispatch; rows join and leave between; 0: whole responses', at_least=0)
  prefix_reuse: bool = option(True, 'keep pages after their last use, for prompts that begin alike')
  compile_first: bool = option(False, 'compile all programs before the first rollout, not when needed')
  attention: str = option('auto', "dense gathers a row's pages once a turn; paged reads them in place, with kernels for TPUs and GPUs; auto: paged where they take the shapes", ('auto', 'dense', 'paged'))
  gather_weights: bool = option(True, 'paged: bring FSDP shards together once a turn instead of at every token')
  checkpoint_every: int = option(0, 'responses between two points from which a stopped wave of episodes goes on; there all rows meet and their pages are read anew; 0: such a wave starts again', at_least=0)


@dataclasses.dataclass(frozen=True)
class Training:
  """What every supervised phase shares: batches, optimizer, checkpoints."""

  steps: int = option(150, 'optimizer updates', at_least=1)
  batch_rows: int = option(8, 'packed rows per update', at_least=1)
  row_length: int = option(256, 'tokens per packed row', at_least=2)
  learning_rate: float = option(1e-3, 'peak of the schedule', above=0)
  warmup_fraction: float = option(0.03, 'share of updates with rising learning rate', at_least=0, at_most=1)
  schedule: str = option('cosine', 'after warm-up', ('cosine', 'constant'))
  weight_decay: float = option(0.0, 'decoupled weight decay', at_least=0)
  clip_norm: float = option(1.0, 'gradient clipping by global norm', above=0)
  b2: float = option(0.95, 'second moment of Adam', at_least=0, below=1)
  momentum_dtype: str = option('float32', 'type of the first moment; the second is float32', ('float32', 'bfloat16'))
  grad_accumulation: int = option(1, 'micro-batches per update', at_least=1)
  checkpoint_every: int = option(50, 'updates between checkpoints; 0: at the end only', at_least=0)


@dataclasses.dataclass(frozen=True)
class WarmStart(Training):
  """The base: a policy from scratch, or the cold start of a checkpoint.

  A checkpoint is taught where `steps` is above 0, with all weights or with adapters
  (policy.lora_rank), whatever the run's seed is. A command line that puts a checkpoint
  into a config file for a policy from scratch leaves `steps` at 0 if it says no more.
  """

  steps: int = option(3200, 'optimizer updates; 0: a checkpoint stays as it is, as it does where only the command line names it', at_least=0)
  data: tuple[str, ...] = option((), 'conversations that a checkpoint learns from: JSONL files, or directories of them')
  batch_rows: int = option(8, 'packed rows per update', at_least=1)
  learning_rate: float = option(3e-3, 'peak of the schedule', above=0)
  checkpoint_every: int = option(400, 'updates between checkpoints; 0: at the end only', at_least=0)
  num_demonstrations: int = option(40_000, 'scripted episodes on training tasks, beside the conversations of data; 0: none', at_least=0)
  reflection_share: float = option(1.0, 'share of failed episodes that end in a reflection', at_least=0, at_most=1)
  in_progress_share: float = option(0.25, 'share of episodes with a reflection in progress beside them', at_least=0, at_most=1)
  hint_share: float = option(0.35, 'share of episodes with a followed hint beside them', at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class Gate:
  """What the base must be able to do before stage 1; 0 switches a floor off."""

  num_tasks: int = option(48, 'validation tasks, one episode each', at_least=1)
  min_parsed: float = option(0.5, 'least share of reflections that can be read', at_least=0, at_most=1)
  min_diagnosis: float = option(0.4, "least share whose turn and text are the script's, where there is a script", at_least=0, at_most=1)
  min_follow: float = option(0.8, 'least share of hints whose action is taken, where there is a script', at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class Explore:
  """Stage 1: reflection, rollback, branches (section 3; values open in the paper)."""

  num_tasks: int = option(256, 'training tasks', at_least=1)
  wave_tasks: int = option(64, 'tasks explored together; the unit that is saved and resumed', at_least=1)
  attempts: int = option(16, 'episodes per task, roots and branches', at_least=1)
  max_env_steps: int = option(0, 'new environment steps per task; 0: no limit', at_least=0)
  num_roots: int = option(2, 'episodes that start from the reset state', at_least=1)
  reflect_every: int = option(5, 'K: turns between reflections in progress; 0: on failure only', at_least=0)
  on_reflect: str = option('continue', 'what a reflection in progress does to its episode', ('continue', 'stop'))
  max_depth: int = option(3, 'longest chain of rollbacks', at_least=0)
  max_requests: int = option(3, 'branch requests per node', at_least=0)
  restart: bool = option(True, 'when the queue runs dry, spend what is left on new roots')
  hint_scope: str = option('turn', 'where e stays in the prompt', ('turn', 'branch'))
  turn: str = option('named', 'the turn to go back to: as reflected, or any (control)', ('named', 'random'))
  feedback: str = option('reflection', 'e: as reflected, none (control), or the outcome at turn 1 (iterative refinement)', ('reflection', 'none', 'outcome'))
  replay_noise: float = option(0.0, 'chance that a rollback loses the last action before tau (control)', at_least=0, at_most=1)
  stack_hints: bool = option(False, "show the ancestors' e before the branch's own")
  temperature: float = option(1.0, 'sampling temperature of actions', at_least=0)
  reflect_temperature: float = option(0.7, 'sampling temperature of reflections', at_least=0)
  max_response_tokens: int = option(8, 'sampled tokens per action', at_least=1)
  max_reflection_tokens: int = option(24, 'sampled tokens per reflection', at_least=1)


@dataclasses.dataclass(frozen=True)
class Experience:
  """From trees to examples (section 3.2, appendix B.3)."""

  reh_fraction: float = option(1.0, 'share of successful rollouts in D_reh (paper: 0.2 of far more)', at_least=0, at_most=1)
  reh_hinted: bool = option(False, 'train hinted turns in D_reh too, not in D_cf alone')
  reh_prefix: bool = option(True, 'train the replayed turns of a successful branch')
  cf_filter: str = option('success', 'which branches enter D_cf', ('success', 'improved', 'all'))
  cf_per_task: int = option(3, 'most D_cf examples per task (paper: 3)', at_least=0)
  citation_filter: bool = option(True, 'drop corrected actions that mention the hint')


@dataclasses.dataclass(frozen=True)
class Distill(Training):
  """Stage 2: L = L_cf + beta * L_reh; the same number of updates for every arm."""

  beta: float = option(1.0, 'weight of L_reh (open in the paper)', at_least=0)


@dataclasses.dataclass(frozen=True)
class Dpo(Training):
  """Preference of a'_tau over a_tau after h_tau (arXiv 2305.18290), a control.

  What is 0 follows from distillation, at the same number of tokens per update.
  """

  steps: int = option(0, "optimizer updates; 0: distillation's", at_least=0)
  batch_rows: int = option(0, "packed rows per update; 0: half of distillation's", at_least=0)
  row_length: int = option(0, "tokens per packed row, which holds both sequences of a pair; 0: twice distillation's", at_least=2, also=(0,))
  grad_accumulation: int = option(0, "micro-batches per update; 0: half of distillation's", at_least=0)
  checkpoint_every: int = option(0, "updates between checkpoints; 0: distillation's", at_least=0)
  learning_rate: float = option(1e-4, 'peak of the schedule', above=0)
  beta: float = option(0.1, 'how dear it is to leave the base', above=0)
  sft_weight: float = option(0.0, "weight of the NLL per token of a'_tau (arXiv 2404.19733); 0: none", at_least=0)


# How the spread of a group is measured (std of n - 1, of n, or not divided by).
STDS = ('sample', 'population', 'none')


@dataclasses.dataclass(frozen=True)
class Grpo:
  """Group policy optimisation; values of verl-agent (arXiv 2505.10978, appendix)."""

  num_tasks: int = option(0, 'training tasks to draw from; 0: all', at_least=0)
  tasks_per_step: int = option(16, 'P: groups per step', at_least=1)
  group_size: int = option(8, 'G: episodes per group, from one reset state', at_least=2)
  steps: int = option(150, 'rounds of rollout and update', at_least=1)
  max_env_steps: int = option(0, 'environment steps of the whole phase; 0: no limit', at_least=0)
  match_explore: bool = option(False, 'stop at the environment steps that exploring cost')
  epochs: int = option(1, 'passes over the episodes of a step', at_least=1)
  minibatches: int = option(4, 'updates per pass', at_least=1)
  row_length: int = option(0, 'tokens per packed row; 0: the longest transcript', at_least=2, also=(0,))
  grad_accumulation: int = option(1, 'micro-batches per update', at_least=1)
  learning_rate: float = option(1e-6, 'of every update, after the warm-up', above=0)
  warmup_fraction: float = option(0.0, 'share of updates with rising learning rate', at_least=0, at_most=1)
  weight_decay: float = option(0.01, 'decoupled weight decay', at_least=0)
  clip_norm: float = option(1.0, 'gradient clipping by global norm', above=0)
  b2: float = option(0.999, 'second moment of Adam', at_least=0, below=1)
  clip: float = option(0.2, 'epsilon of the clipped surrogate', above=0)
  dual_clip: float = option(0.0, 'the most that the ratio counts where the advantage is negative (3 in verl); 0: no limit', above=1, also=(0,))
  kl: float = option(0.01, 'weight of the KL (k3) to the frozen reference', at_least=0)
  entropy: float = option(0.001, 'weight of the entropy bonus; 0: none', at_least=0)
  old_logprobs: str = option('auto', 'those of sampling, or of the training forward (auto: in bfloat16)', ('auto', 'sampled', 'recomputed'))
  reward: str = option('success', 'what an episode earns', ('success', 'score'))
  reward_scale: float = option(10.0, 'reward of a full success', above=0)
  invalid_penalty: float = option(0.1, 'subtracted per action that the environment refused', at_least=0)
  per_turn_norm: bool = option(False, "group statistics over turns, not episodes (verl-agent's)")
  std: str = option('sample', 'what group scores are divided by', STDS)
  gigpo_weight: float = option(1.0, 'omega of arm gigpo: weight of the step advantage', at_least=0)
  gamma: float = option(0.95, 'discount of the step returns of arm gigpo', at_least=0, at_most=1)
  checkpoint_every: int = option(10, 'steps between checkpoints', at_least=1)


@dataclasses.dataclass(frozen=True)
class Jerp:
  """Rule pools learnt beside the policy (arXiv 2606.27136, which leaves all of this open)."""

  key: str = option('type', 'one pool per task, per type of task, or for all', ('task', 'type', 'all'))
  top_k: int = option(5, 'rules in the prompt, fixed for the episode', at_least=0)
  capacity: int = option(20, 'rules per pool', at_least=1)
  initial_score: float = option(2.0, 'utility of a new rule')
  vote_step: float = option(1.0, 'what a vote adds or takes', at_least=0)
  prune_at: float = option(0.0, 'rules at or below this utility are removed')
  max_edits: int = option(4, 'edits per group that are applied', at_least=0)
  max_references: int = option(2, 'earlier successes that are kept per pool and shown', at_least=0)
  reflector: str = option('auto', 'edits in the rule grammar, or built from reflections (auto: for word-level policies)', ('auto', 'grammar', 'reflections'))
  max_reflector_tokens: int = option(512, 'sampled tokens of an answer in the rule grammar', at_least=1)
  freeze_after: int = option(0, 'ablation: steps after which pools stay as they are; 0: never', at_least=0)
  merge: bool = option(True, 'ablation: without MERGE')
  at_test: bool = option(True, 'ablation: rules at training only')
  choice: str = option('top', 'ablation: rules of all pools at random, not the best of its own', ('top', 'random'))


@dataclasses.dataclass(frozen=True)
class Ace:
  """A playbook in the prompt (arXiv 2510.04618)."""

  num_tasks: int = option(100, 'training tasks that the offline mode adapts on', at_least=1)
  epochs: int = option(1, 'passes over them (paper: at most 5)', at_least=1)
  tasks_per_step: int = option(4, 'episodes between two merges (paper: 1)', at_least=1)
  max_bullets: int = option(3, 'most helpful bullets in the prompt', at_least=0)
  capacity: int = option(200, 'bullets in the playbook', at_least=1)
  duplicate: float = option(0.9, 'similarity from which two bullets are one', at_least=0, at_most=1)
  max_deltas: int = option(4, 'operations per reflection', at_least=0)
  role_temperature: float = option(0.0, 'sampling temperature of reflector and curator', at_least=0)
  max_role_tokens: int = option(1024, 'sampled tokens of their answers', at_least=1)


@dataclasses.dataclass(frozen=True)
class R2Mem:
  """Banks of good and bad turns, recalled by situation (arXiv 2605.13486)."""

  num_tasks: int = option(25, 'training tasks that experience is drawn from', at_least=1)
  tasks_per_step: int = option(4, 'episodes between two points from which a stopped run goes on', at_least=1)
  judge: str = option('auto', "who judges turns: the policy by rubrics (self), its reflections (reflections), the world's script (script); auto: self with a chat template, else reflections", ('auto', 'self', 'reflections', 'script'))
  judge_params: str = option('', "self: directory of other weights of the policy's shape that judge and write; empty: the base's")
  good_from: int = option(10, 'points of 12 from which a turn is good experience', at_least=0, at_most=12)
  bad_to: int = option(5, 'points of 12 up to which it is bad', at_least=0, at_most=12)
  keep_share: float = option(0.25, 'r2mem_turns: share of the judged turns of a step that is kept at the top, and at the bottom', at_least=0, at_most=0.5)
  recalled: int = option(10, 'experiences that are nearest to a situation', at_least=1)
  shown: int = option(3, 'of them in the prompt of a turn', at_least=0)
  relevance: float = option(0.4, 'r2mem_turns: least similarity of situations', at_least=0, at_most=1)
  alpha: float = option(0.3, 'r2mem_turns: weight of similarity against utility', at_least=0, at_most=1)
  rewrite: bool = option(True, 'whether a chat policy first rewrites its state as a situation, one call a turn')
  judge_temperature: float = option(0.2, 'sampling temperature of the judge', at_least=0)
  write_temperature: float = option(0.5, 'sampling temperature of what is written', at_least=0)
  max_write_tokens: int = option(1024, 'sampled tokens of an experience or a verdict', at_least=1)
  max_situation_tokens: int = option(128, 'sampled tokens of a rewritten situation', at_least=1)


@dataclasses.dataclass(frozen=True)
class Retro:
  """Hindsight as reward and as lessons (arXiv 2603.08561)."""

  judge: str = option('auto', 'who says how far a failed episode came: the policy in its reflection (self), or the world; auto: self with a chat template, else world', ('auto', 'self', 'world'))
  parity: str = option('paper', "where the two part: intrinsic reward for episodes and the outcome for reflections, or intrinsic reward, whitened, for reflections alone", ('paper', 'released_code'))
  credit: str = option('turn', "what a turn's advantage is made of: its return, discounted by grpo.gamma, among all turns of the group, or its episode's score", ('turn', 'episode'))
  pairwise: bool = option(True, 'retro_in_context: a chat policy is shown an attempt with the other outcome beside')
  shown: int = option(1, 'lessons in the prompt of a training episode', at_least=0)
  shown_at_test: int = option(3, 'lessons in the prompt when tasks are evaluated; 0: ablation, memory at training only', at_least=0)
  bare_share: float = option(0.5, 'share of each group that plays without lessons', at_least=0, at_most=1)
  encoder: str = option('', 'directory of a sentence encoder that tasks are compared with, in the form of sentence-transformers (all-MiniLM-L6-v2 in the paper); needs torch; empty: word by word')
  relevance: float = option(0.4, 'least similarity of tasks', at_least=0, at_most=1)
  alpha: float = option(0.3, 'weight of similarity against utility (0.7 in a table of the paper, 0.3 best in its sweep, 0.6 in the released code)', at_least=0, at_most=1)
  kappa: float = option(1.0, 'training: weight of the bonus for lessons seldom tried', at_least=0)
  decay: float = option(0.05, 'weight of the newest outcome in the utility of a lesson', at_least=0, at_most=1)
  initial_utility: float = option(0.5, 'utility of a new lesson', at_least=0, at_most=1)
  duplicate: float = option(0.85, 'similarity of tasks above which the same text is no new lesson', at_least=0, at_most=1)
  forget: bool = option(False, 'after each quarter of the training keep the three best lessons of a task, with 0.9 of their utility')
  reflect_weight: float = option(1.0, 'retro_trained: lambda, weight of what a reflection earns (0.5 is the default of the code, 1 stands in its scripts)', at_least=0)
  temperature: float = option(1.0, 'sampling temperature of reflections', at_least=0)
  max_tokens: int = option(1024, 'sampled tokens of a reflection; a word-level policy has explore.max_reflection_tokens', at_least=1)


@dataclasses.dataclass(frozen=True)
class EarlyExperience:
  """What other actions would have led to (arXiv 2510.08558)."""

  alternatives: int = option(3, "K: proposals at each of the expert's states", at_least=1)
  temperature: float = option(1.0, 'sampling temperature of proposals', at_least=0)
  expert_attempts: int = option(16, 'scripted episodes per task until one succeeds', at_least=1)
  iwm_share: float = option(0.5, "iwm: share of the updates that go to the world's answers", at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class Evaluate:
  split: str = option('test', 'tasks to evaluate on', ('train', 'validation', 'test'))
  num_tasks: int = option(100, 'tasks; fewer if the split has fewer', at_least=1)
  num_samples: int = option(128, 'n: independent episodes per task', at_least=1)
  temperature: float = option(1.0, 'sampling temperature', at_least=0)
  top_k: int = option(0, 'draw from the k most probable tokens; 0: all', at_least=0)
  top_p: float = option(1.0, 'draw from the fewest tokens that reach this share', above=0, at_most=1)
  min_p: float = option(0.0, 'draw from tokens at least this share as probable as the first', at_least=0, at_most=1)
  stop_strings: tuple[str, ...] = option((), 'texts that end a response where they are complete; part of it', verbatim=True)
  more_temperatures: tuple[float, ...] = option((), 'further temperatures to evaluate at', at_least=0)
  wave_tasks: int = option(20, 'tasks per wave; the unit that is saved and resumed', at_least=1)
  keep_episodes: int = option(2, 'episodes of a task whose transcripts are kept, for the report: the first solved ones and the first failed ones, half each; 0: none', at_least=0)
  discovery: int = option(0, 'attempts in sequence at each task of arms whose memory goes on learning, with that memory and without any (Discovery@k); 0: none', at_least=0)
  bootstrap: int = option(2000, 'resamples of the tasks for intervals', at_least=1)


@dataclasses.dataclass(frozen=True)
class Tune:
  """The same small sweep for every trained arm, judged on validation tasks."""

  factors: tuple[float, ...] = option((), 'learning rates to try, times the configured one; none: no sweep', above=0)
  num_tasks: int = option(60, 'validation tasks', at_least=1)
  num_samples: int = option(32, 'n: episodes per task; judged by the mean of Pass@1 and Pass@n', at_least=1)
  like: str = option('', "directory, from the run's own, of a run whose choices are taken over; empty: an own sweep")


@dataclasses.dataclass(frozen=True)
class Study:
  """The same comparison over several seeds; the first one's sweep is for all."""

  seeds: tuple[int, ...] = option((), 'runs to make and to pool, in place of `seed`; none: one run', at_least=0, below=2**32)


METHODS = (
    'leafe', 'iterated', 'controls', 'grpo', 'gigpo', 'leafe_grpo', 'jerp', 'ace',
    'r2mem', 'retro', 'early_experience', 'self_distillation', 'mel', 'step_agent',
    'study',
)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The whole run."""

  seed: int = option(0, 'seed of weights, sampling and data order; never of tasks or splits', at_least=0, below=2**32)
  method: str = option('leafe', 'which policies are compared', METHODS)
  arms: tuple[str, ...] = option((), "policies to train and evaluate; none: the method's")
  env: Env = section(Env, 'the environment')
  policy: Policy = section(Policy, 'the transformer')
  mesh: Mesh = section(Mesh, 'the device mesh')
  sampler: Sampler = section(Sampler, 'KV pages and decoding')
  warm_start: WarmStart = section(WarmStart, 'the base: from scratch, or the cold start of a checkpoint')
  gate: Gate = section(Gate, 'the gate before stage 1')
  explore: Explore = section(Explore, 'stage 1')
  experience: Experience = section(Experience, 'from trees to examples')
  distill: Distill = section(Distill, 'stage 2')
  dpo: Dpo = section(Dpo, 'the control that prefers corrections to what they correct')
  grpo: Grpo = section(Grpo, 'GRPO and GiGPO')
  jerp: Jerp = section(Jerp, 'JERP: rules on top of GRPO')
  ace: Ace = section(Ace, 'ACE')
  r2mem: R2Mem = section(R2Mem, 'R2-Mem: experience recalled by situation')
  retro: Retro = section(Retro, 'RetroAgent: hindsight as reward and as lessons')
  early_experience: EarlyExperience = section(EarlyExperience, 'Early Experience')
  self_distill: SelfDistill = section(SelfDistill, 'self-distillation')
  mel: Mel = section(Mel, 'MEL: meta-experience beside GRPO')
  step_agent: StepAgent = section(StepAgent, "StepAgent: an expert's steps")
  tune: Tune = section(Tune, 'the choice of learning rates')
  evaluate: Evaluate = section(Evaluate, 'Pass@k')
  study: Study = section(Study, 'several seeds')
