"""LEAFE: learning feedback-grounded agency from reflective experience, in JAX."""

import os

from leafe_jax import neighbours

# transformers advises to install torch, which nothing here uses.
os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')
neighbours.require('envs')
