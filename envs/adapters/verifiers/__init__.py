"""Environments of verifiers, played by a policy of ours.

  env.py      the world, and what it is made of
  game.py     an episode, held still between two turns
  backstage.py  their loop of events, and the model that they believe to talk to
"""
