"""Ours for verifiers; the module `leafe_worlds` is how verifiers finds it."""
