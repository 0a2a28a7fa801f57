"""A worker's side: requests and replies are lines of JSON over pipes.

Only the standard library: workers run in environments that lack this
project's. A request is a `Conversation` as a dict; the reply gives the seconds
that it took, and how many tokens came out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

Generate = Callable[[list[list[int]], int], list[list[int]]]


def serve(make: Callable[[str], Generate], about: Callable[[], dict]) -> None:
  """Answers until the pipe closes.

  Args:
    make: a generate(prompts, new_tokens) for the checkpoint in a directory.
    about: versions of the libraries.
  """
  # Libraries print; the pipe is for replies alone.
  replies = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  generate = make(sys.argv[1])
  _reply(replies, about())
  for line in sys.stdin:
    _reply(replies, _run(generate, json.loads(line)))


def _reply(replies, content: dict) -> None:
  replies.write(json.dumps(content) + '\n')
  replies.flush()


def _run(generate: Generate, request: dict) -> dict:
  """Every turn reads the whole history again: there is nothing to keep."""
  turns, new_tokens = request['observations'], request['new_tokens']
  histories: list[list[int]] = [[] for _ in turns[0]]
  sampled = 0
  wall, cpu = time.perf_counter(), time.process_time()
  for turn in turns:
    for history, observation in zip(histories, turn):
      history += observation
    for history, response in zip(histories, generate(histories, new_tokens)):
      history += response
      sampled += len(response)
  return {
      'wall': time.perf_counter() - wall,
      'cpu': time.process_time() - cpu,
      'sampled': sampled,
  }
