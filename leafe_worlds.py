"""Our worlds as an environment of verifiers (MIT, verifiers 0.4).

    vf-eval leafe-worlds --env.taskset.world=sokoban --model=NAME

verifiers finds a package by its name and takes what `__all__` names: a taskset, the
environment that plays it, and the loop that talks to the model. `load_environment`
makes the same in Python. The world's score is the reward.
"""

from envs.serving.verifiers_env.environment import WorldEnv as WorldEnv
from envs.serving.verifiers_env.environment import load_environment as load_environment
from envs.serving.verifiers_env.harness import TalkHarness as TalkHarness
from envs.serving.verifiers_env.taskset import WorldTaskset as WorldTaskset

__all__ = ['TalkHarness', 'WorldEnv', 'WorldTaskset', 'load_environment']
