"""The watch on whether the server still lives. Pure: times are seconds of one clock, and come in from outside."""

from stages.core import wire
from stages.core.errors import NoAnswer

ASK_S = {"starting": 0.25, "serving": 2.0, "draining": 2.0}
"""Seconds of silence after which the server is asked for its status; while it starts, there is something to show.

Not more often than needed: to answer, the server reads the memory map of every stage.
"""

SILENCE_S = 30.0
"""Seconds without an answer after which a server counts as gone."""


class Liveness:
    """The times at which a server was heard and asked. Silence counts from a question that it has not answered."""

    def __init__(self, address: str, silence_s: float, ask_s: float | None, now: float) -> None:
        self.status: wire.Status | None = None
        """Newest status that came; None before the first."""
        self._address = address
        self._silence_s = silence_s
        self._ask_s = ask_s
        self._heard_at = now
        self._asked_at = now
        self._unanswered_since: float | None = None

    def heard(self, now: float) -> None:
        """Note that a message has come, whatever it was."""
        self._heard_at = now
        self._unanswered_since = None

    def asked(self, now: float) -> None:
        """Note that a question has been sent."""
        self._asked_at = now
        if self._unanswered_since is None:
            self._unanswered_since = now

    def ask_due(self, now: float) -> bool:
        """Whether the server has been silent for so long that it should be asked for its status."""
        ask_s = self._ask_s
        if ask_s is None:
            ask_s = ASK_S["starting" if self.status is None else self.status.state]
        return now - max(self._heard_at, self._asked_at) >= ask_s

    def check(self, now: float) -> None:
        """Raise NoAnswer if a question has been without an answer for too long."""
        if self._unanswered_since is not None and now - self._unanswered_since > self._silence_s:
            raise NoAnswer(
                f"the server at {self._address} has been silent for {self._silence_s:.0f} s; is it still running?"
            )

    def is_another(self, status: wire.Status) -> bool:
        """Take in a status; whether it is of another server process than the one before."""
        before, self.status = self.status, status
        return before is not None and before.hub_pid != status.hub_pid
