"""Sessions in other processes, which may die without harm to a run.

  RemoteWorld   what a run sees: a world whose sessions are elsewhere  (world.py)
  Transport     requests one way, replies the other, or `Lost`         (protocol.py)
  Process       the transport over a socket to a process of this machine (process.py)
  worker        the other side: sessions, one request at a time        (worker.py)

A transport over Ray or gRPC is another `Transport`; neither side would know.
"""
