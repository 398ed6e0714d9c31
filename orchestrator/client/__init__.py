"""Clients of the prompt socket: `Client` for programs that wait, `AsyncClient` for those that live in asyncio.

Both say the same messages (stages.core.wire) over the same socket as every other program, and differ in how they
wait; what messages mean, and to which prompt they belong, is decided in orchestrator.client.conversation for both.
"""

from typing import TYPE_CHECKING, Any

from orchestrator.client.blocking import Client, Prompt, own_pipeline
from orchestrator.client.conversation import Event

if TYPE_CHECKING:
    from orchestrator.client.asynchronous import AsyncClient, AsyncPrompt

__all__ = ["AsyncClient", "AsyncPrompt", "Client", "Event", "Prompt", "own_pipeline"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "AsyncPrompt"):  # asyncio takes longer to import than a command to find out its options
        from orchestrator.client import asynchronous

        return getattr(asynchronous, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
