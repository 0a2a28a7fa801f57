"""Random keys of sampled rows, named by what is sampled.

A row's key depends on the run's seed and on what the row is (task, episode,
turn, purpose), never on when or beside what it is sampled; so a sample is the
same in whatever batch it falls.
"""

from __future__ import annotations

import hashlib


def row_key(seed: int, *names: object) -> tuple[int, int]:
  """Two 32-bit words that identify one row of one run."""
  text = '\x1f'.join(map(str, (seed, *names)))
  digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
  return int.from_bytes(digest[:4], 'little'), int.from_bytes(digest[4:], 'little')
