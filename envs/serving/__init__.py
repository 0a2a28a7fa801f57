"""Our worlds, played by others.

  wire.py         what an OpenEnv server of ours understands beyond OpenEnv
  snapshots.py    states that clients may come back to, by name
  openenv_app.py  a world as an OpenEnv server
  access.py       who may talk to a server

The module `leafe_worlds` is the same for verifiers (`verifiers_env`).
"""
