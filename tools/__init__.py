"""Command-line programs around the library."""

import leafe_jax  # noqa: F401, says so where another `envs` hides ours
