"""LEAFE: learning feedback-grounded agency from reflective experience, in JAX."""

from leafe_jax import neighbours

neighbours.require('envs')
