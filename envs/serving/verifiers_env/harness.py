"""A loop between a model and whoever asks it: one answer a turn, no tools.

verifiers' own loops are programs that it prepares with uv from a package index; this
one runs where verifiers does, and needs neither. Every call of the model goes through
verifiers' endpoint, so that the trace is what was said.
"""

from __future__ import annotations

import importlib
from typing import Any

import httpx

vf: Any = importlib.import_module('verifiers.v1')
_chat: Any = importlib.import_module('verifiers.v1.dialects.chat')


class TalkConfig(vf.HarnessConfig):
  """None of its own."""


class TalkHarness(vf.Harness[TalkConfig]):
  """See the module."""

  APPENDS_SYSTEM_PROMPT = True
  SUPPORTS_RESUME = True
  EXECUTES_CODE = False
  NEEDS_CONTAINER = False

  async def launch(
      self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str,
      mcp_urls: dict[str, str], data: Any,
  ) -> Any:
    """Lets the model answer once."""
    del trace, runtime, mcp_urls
    system, prompt = self.resolve_prompt(data)
    messages = [] if system is None else [{'role': 'system', 'content': system}]
    if isinstance(prompt, str):
      messages.append({'role': 'user', 'content': prompt})
    else:
      messages += [_chat.message_to_wire(message) for message in prompt or []]
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
      reply = await client.post(
          f'{endpoint.rstrip("/")}/chat/completions',
          json={'model': ctx.model, 'messages': messages},
          headers={'Authorization': f'Bearer {secret}'},
      )
    failed = reply.is_error
    return vf.ProgramResult(int(failed), '', reply.text[-2000:] if failed else '')
