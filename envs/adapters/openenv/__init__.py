"""Environments behind an OpenEnv server.

  env.py       the world, and what it is made of
  session.py   a session, and how to come back to where it stands
  language.py  texts to actions, observations to texts
  client.py    what is said to a server, and what can come back
  local.py     a server in a process of its own, for one run
"""
