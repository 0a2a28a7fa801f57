"""Text environments with checkpointed states. Imports neither jax nor leafe_jax."""
