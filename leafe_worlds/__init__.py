"""Our worlds as an environment of verifiers (MIT, verifiers 0.4).

    vf-eval leafe-worlds --env.taskset.world=sokoban --model=NAME

verifiers finds a package by its name and takes what `__all__` names: a taskset, the
environment that plays it, and the loop that talks to the model. `load_environment`
makes the same in Python. The world's score is the reward.
"""

from leafe_worlds.environment import WorldEnv as WorldEnv
from leafe_worlds.environment import load_environment as load_environment
from leafe_worlds.harness import TalkHarness as TalkHarness
from leafe_worlds.taskset import WorldTaskset as WorldTaskset

__all__ = ['TalkHarness', 'WorldEnv', 'WorldTaskset', 'load_environment']
