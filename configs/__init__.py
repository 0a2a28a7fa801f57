"""Runs as code: one file per benchmark, `get_config(arg)` in each."""
