"""What goes into the sampler and what comes out: values, never changed."""

from __future__ import annotations

import dataclasses
import itertools

from leafe_jax.sampler.pages import Page
from leafe_jax.sampler.radix import Lease

MAX_STOP_IDS = 8


class StaleState(ValueError):
  """A state whose keys and values come from weights that are gone."""


class NonFiniteLogits(RuntimeError):
  """The policy gave logits that are not finite; nothing can be drawn from them."""

  def __init__(self, version: int, length: int):
    super().__init__(
        f'the logits of policy version {version} are not finite after {length} tokens'
    )
    self.version = version


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class State:
  """A transcript as the policy has read it.

  States are immutable and stay valid: to branch is to keep a reference. When
  the pool runs full, a state may lose its pages; it keeps its tokens and is
  read again when it is used.

  Attributes:
    version: of the weights that computed the cached keys and values.
    lease: on the KV page of the last cached token.
    cached: number of tokens in pages.
    pending: tokens after those, not yet read by the policy.
  """

  version: int
  lease: Lease | None = None
  cached: int = 0
  pending: tuple[int, ...] = ()

  @property
  def length(self) -> int:
    """Tokens of the transcript, cached and pending."""
    return self.cached + len(self.pending)

  @property
  def pages(self) -> tuple[Page, ...]:
    """KV pages in order, the last may be half full; none once put back."""
    if self.lease is None or self.lease.node.page is None:
      return ()
    return tuple(node.page for node in self.lease.path() if node.page is not None)

  @property
  def tokens(self) -> tuple[int, ...]:
    """The whole transcript."""
    path = self.lease.path() if self.lease is not None else []
    cached = itertools.chain.from_iterable(node.tokens for node in path)
    return (*itertools.islice(cached, self.cached), *self.pending)


@dataclasses.dataclass(frozen=True)
class Rules:
  """How to sample.

  Attributes:
    temperature: divides the logits; 0 takes the most probable token.
    max_tokens: most tokens of a response.
    stop_ids: tokens that end a response; they are part of it.
    top_k, top_p, min_p: draw from the k heaviest tokens (0: all), then from the
      fewest that reach the share p, then from those at least min_p times as
      probable as the first; all on the tempered distribution (see `drawing`).
    stop_strings: texts that end a response with the token that completes them.
      The host looks for them in the decoded response after every dispatch, so
      the device may have decoded further, to no effect on the sample.
    choices: the responses to choose from, as tokens, each with its stop token;
      none: anything may be said (see `choices`).
  """

  temperature: float = 1.0
  max_tokens: int = 8
  stop_ids: tuple[int, ...] = ()
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  stop_strings: tuple[str, ...] = ()
  choices: tuple[tuple[int, ...], ...] = ()

  def __post_init__(self) -> None:
    if self.temperature < 0:
      raise ValueError(f'temperature {self.temperature} is negative')
    if self.max_tokens < 1:
      raise ValueError(f'max_tokens {self.max_tokens}: at least 1')
    if self.top_k < 0:
      raise ValueError(f'top_k {self.top_k} is negative; 0 keeps all tokens')
    if not 0 < self.top_p <= 1:
      raise ValueError(f'top_p {self.top_p} is not in (0, 1]')
    if not 0 <= self.min_p <= 1:
      raise ValueError(f'min_p {self.min_p} is not in [0, 1]')
    if not all(self.stop_strings):
      raise ValueError('stop_strings holds an empty text')
    if len(self.stop_ids) > MAX_STOP_IDS:
      raise ValueError(f'{len(self.stop_ids)} stop_ids; at most {MAX_STOP_IDS}')

  @property
  def filtered(self) -> bool:
    """Whether some tokens may be cut off before drawing."""
    return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


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
      that is at temperature 1, over the whole table of tokens, whatever
      temperature, filters, choices or drawable tokens it was drawn with.
    stopped: whether a stop token ended it; False: max_tokens did.
    overlong: prompt and max_tokens exceed the longest transcript; nothing was
      sampled.
    routes: of each token, a number for the experts that were asked at the place
      that it was drawn at (`experts.Noted`); empty without experts.
  """

  state: State
  tokens: list[int]
  logprobs: list[float]
  stopped: bool
  overlong: bool = False
  routes: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Stats:
  """Counters since the sampler was made.

  Attributes:
    prompt_tokens: prompt tokens read by the policy.
    cached_tokens: prompt tokens of sampled rows that were in pages already.
    matched_tokens: of prompts given as tokens, those found in the radix tree.
    sampled_tokens: tokens of responses.
    rows: rows sampled or prefilled.
    dispatches: device programs run.
    put_back: states that lost their pages to others while rows waited; of layers
      with a window, pages.
    waits: rows that waited for pages.
    prefill_seconds: waiting for programs that only read.
    decode_seconds: waiting for programs that read and decode.
    host_seconds: preparing batches and building states.
    idle_seconds: no program under way, from the first one on.
  """

  prompt_tokens: int = 0
  cached_tokens: int = 0
  matched_tokens: int = 0
  sampled_tokens: int = 0
  rows: int = 0
  dispatches: int = 0
  put_back: int = 0
  waits: int = 0
  prefill_seconds: float = 0.0
  decode_seconds: float = 0.0
  host_seconds: float = 0.0
  idle_seconds: float = 0.0

  @property
  def device_seconds(self) -> float:
    """Waiting for the device."""
    return self.prefill_seconds + self.decode_seconds
