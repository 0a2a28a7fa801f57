"""What goes into the sampler and what comes out: values, never changed."""

from __future__ import annotations

import dataclasses

from leafe_jax.sampler.pages import Page


class StaleState(ValueError):
  """A state whose keys and values come from weights that are gone."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class State:
  """A transcript as the policy has read it.

  States are immutable and stay valid: to branch is to keep a reference.

  Attributes:
    version: of the weights that computed the cached keys and values.
    pages: KV pages in order; the last may be half full.
    cached: number of tokens in the pages.
    pending: tokens after those, not yet read by the policy.
  """

  version: int
  pages: tuple[Page, ...] = ()
  cached: int = 0
  pending: tuple[int, ...] = ()

  @property
  def length(self) -> int:
    """Tokens of the transcript, cached and pending."""
    return self.cached + len(self.pending)


@dataclasses.dataclass(frozen=True)
class Rules:
  """How to sample.

  Attributes:
    temperature: divides the logits; 0 takes the most probable token.
    max_tokens: most tokens of a response.
    stop_ids: tokens that end a response; they are part of it.
  """

  temperature: float = 1.0
  max_tokens: int = 8
  stop_ids: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    if self.temperature < 0:
      raise ValueError(f'temperature {self.temperature} is negative')
    if self.max_tokens < 1:
      raise ValueError(f'max_tokens {self.max_tokens}: at least 1')


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
  """One response wanted.

  Attributes:
    state: the prompt; its last token must be pending.
    key: two 32-bit words, the row's own random key. Token i is drawn with
      fold_in(key, i), so a sample never depends on the rows beside it.
  """

  state: State
  key: tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
  """One response.

  Attributes:
    state: prompt and response, ready to be extended.
    tokens: the response, the stop token included.
    logprobs: natural-log probability of each token under the policy itself,
      that is at temperature 1, whatever temperature it was drawn at.
    stopped: whether a stop token ended it; False: max_tokens did.
    overlong: prompt and max_tokens exceed the longest transcript; nothing was
      sampled.
  """

  state: State
  tokens: list[int]
  logprobs: list[float]
  stopped: bool
  overlong: bool = False


@dataclasses.dataclass
class Stats:
  """Counters since the sampler was made.

  Attributes:
    prompt_tokens: prompt tokens read by the policy.
    cached_tokens: prompt tokens that were in pages already.
    sampled_tokens: tokens of responses.
    rows: rows sampled or prefilled.
    dispatches: device programs run.
    device_seconds: waiting for the device.
    host_seconds: preparing batches and building states.
  """

  prompt_tokens: int = 0
  cached_tokens: int = 0
  sampled_tokens: int = 0
  rows: int = 0
  dispatches: int = 0
  device_seconds: float = 0.0
  host_seconds: float = 0.0
