"""Recipes over the rooms rollout, experience, learner and evaluation."""
