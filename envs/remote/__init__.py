"""Sessions in other processes, which may die without harm to a run.

  world.py     what a run sees: a world whose sessions live elsewhere
  protocol.py  requests one way, replies the other, and how the other side is lost
  process.py   a transport over a socket, to a process of this machine
  cluster.py   a transport to a process of any machine of a Ray cluster
  worker.py    the other side: sessions, one request at a time

Over gRPC it would be another `protocol.Transport`; neither side would know.
"""
