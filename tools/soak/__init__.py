"""A run again and again under faults drawn at random, against an undisturbed one.

  play.py     starts a run's processes, waits for their end, reads what they said
  faults.py   the faults, each a class with a name, in one table
  small.py    a config for many draws in few minutes
  troubled.py a config whose world breaks, lies or hangs, always at the same actions
  judge.py    the outcome of a draw: refusals are heeded, results compared
  report.py   soak.json and the table

    python -m tools.soak --help
"""
