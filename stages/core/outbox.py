"""The times at which a stage's messages go: news of steps together, all else at once. Pure; the time is told."""

import math

from stages.core import pipes

NEWS_S = 0.04
"""Seconds between two sendings of news of steps, and how long news may wait at most: to wake the hub takes longer than
to tell it, and the steps of a small model are as short as ten wakings."""


class Outbox:
    """Messages that were said and have not been sent, in order, and the time at which all of them go.

    News of a step wait for the end of the unit of work that they are of, so that those of all jobs in it go together;
    there they go, unless something went less than NEWS_S before. However the work goes on, none waits for longer than
    NEWS_S. Any other message goes at once, and takes along what waits.
    """

    def __init__(self) -> None:
        self._messages: list[pipes.FromStage] = []
        self._sent_s = -math.inf
        self.due_s = math.inf
        """Time at which what waits is to be sent, seconds of the caller's clock; infinity while nothing waits."""

    def add(self, message: pipes.FromStage, now_s: float) -> None:
        """Append a message."""
        self._messages.append(message)
        self.due_s = min(self.due_s, now_s + NEWS_S if isinstance(message, pipes.Stepped) else now_s)

    def end_unit(self, now_s: float) -> None:
        """Note that a unit of work is done: what waits is all that there is to be said of it."""
        if self._messages:
            self.due_s = min(self.due_s, max(now_s, self._sent_s + NEWS_S))

    def take(self, now_s: float) -> list[pipes.FromStage]:
        """Take all messages that wait, due or not, to send them now."""
        messages, self._messages = self._messages, []
        self.due_s = math.inf
        if messages:
            self._sent_s = now_s
        return messages
