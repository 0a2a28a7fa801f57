"""LEAFE: learning feedback-grounded agency from reflective experience, in JAX."""
