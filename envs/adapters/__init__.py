"""Environments of other packages, behind `envs.api`."""
