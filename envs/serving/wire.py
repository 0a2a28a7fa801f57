"""What an OpenEnv server of ours understands beyond OpenEnv itself.

OpenEnv knows reset, step, state and close. A step of ours has a `call`, which is
'act' unless said: the extra calls are steps too, so that any OpenEnv client can make
them and they keep their place in the order of the session. A snapshot has a name; its
state never leaves the server, and nothing that a client sends is unpickled.
"""

from __future__ import annotations

from envs import api

ACT, ANSWER, SNAPSHOT, RESTORE, CHOICES = CALLS = (
    'act', 'answer', 'snapshot', 'restore', 'choices',
)  # fmt: skip
# The version of the server's metadata, by which a client knows these calls.
VERSION = 'leafe-1'


class UnknownSnapshot(api.EnvError):
  """The server has no snapshot of that name, or none any more."""
