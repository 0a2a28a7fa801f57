"""Following runs from outside: files are read, and nothing else."""
