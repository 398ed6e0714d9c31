"""Decisions of the router, as data: what is to be sent to whom."""

from collections.abc import Iterable
from typing import NamedTuple

from stages.core import pipes, wire


class ToStage(NamedTuple):
    """Send `message` to the stage process `stage`."""

    stage: str
    message: pipes.ToStage


class ToClient(NamedTuple):
    """Send `message` to `client`; `payload` is the encoded picture of an image or a preview."""

    client: bytes
    message: wire.HubMessage
    payload: bytes | None = None


class ToTracer(NamedTuple):
    """Send `client` the stamps of prompt `id`: those of `jobs`, by number, since `began_ns`."""

    client: bytes
    id: str
    jobs: tuple[int, ...]
    began_ns: int


Action = ToStage | ToClient | ToTracer


class Actions:
    """Decisions that have been made and not been taken yet."""

    def __init__(self) -> None:
        self._actions: list[Action] = []

    def add(self, action: Action) -> None:
        """Decide."""
        self._actions.append(action)

    def tell(self, clients: Iterable[bytes], message: wire.HubMessage, payload: bytes | None = None) -> None:
        """Send the same message to each of these clients."""
        self._actions.extend(ToClient(client, message, payload) for client in clients)

    def clear(self) -> None:
        """Decide otherwise."""
        self._actions.clear()

    def take(self) -> list[Action]:
        """All decisions since the last call, those for stages first.

        They wait for it; and where telling a client shows that it has gone, its jobs must not be dropped before they
        were sent.
        """
        actions, self._actions = self._actions, []
        return sorted(actions, key=lambda action: not isinstance(action, ToStage))
