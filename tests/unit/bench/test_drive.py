"""The player, against a server that is a list of answers and a clock that moves only when somebody waits."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.bench.drive import Played, play
from orchestrator.bench.workload import Arrival
from orchestrator.client import Event
from stages.core import wire
from stages.core.errors import NoAnswer

TIMINGS = wire.Timings(0.1, 0.2, 0.3, 0.4, 1.0)


class Server:
    """Answers each prompt after the seconds that its prompt text says; refuses those that say `no`."""

    def __init__(self, send_s: float = 0.0) -> None:
        self.now = 100.0
        self.out = self.most = 0
        self.sent: list[tuple[float, str]] = []
        self.cancelled: list[str] = []
        self._send_s = send_s
        self._due: list[tuple[float, int, wire.HubMessage]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    def send(self, message: wire.Submit) -> None:
        self.now += self._send_s
        self.sent.append((self.now - 100.0, message.id))
        self.out += 1
        self.most = max(self.most, self.out)
        if message.prompt == "no":
            self._answer(0.0, wire.Failed(id=message.id, code="overloaded", message="full", retryable=True))
        elif message.prompt != "never":
            takes = float(message.prompt)
            self._answer(0.0, wire.Accepted(id=message.id, position=0, eta_s=None))
            for index in range(message.n):
                self._answer(
                    takes * (index + 1) / message.n,
                    wire.Image(id=message.id, index=index, format="png", width=8, height=8, seed=1, timings=TIMINGS),
                )
            self._answer(takes, wire.Done(id=message.id))

    def cancel(self, *ids: str) -> None:
        self.cancelled += ids

    def _answer(self, after_s: float, message: wire.HubMessage) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + after_s, self._count, message))

    def receive(self, timeout_s: float) -> Event | None:
        if not self._due or self._due[0][0] > self.now + timeout_s:
            self.now += timeout_s
            if self.out and self.now > 1000.0:
                raise NoAnswer("the server has been silent")
            return None
        at, _, message = heapq.heappop(self._due)
        self.now = max(self.now, at)
        self.out -= isinstance(message, wire.Done | wire.Failed)
        return message, b"" if isinstance(message, wire.Image) else None

    def play(self, arrivals: list[Arrival], in_flight: int | None = None) -> Played:
        return play(self, arrivals, in_flight, self.clock)


def arrival(number: int, prompt: str, at_s: float | None = None, n: int = 1) -> Arrival:
    return Arrival("kind", wire.Submit(id=str(number), prompt=prompt, n=n), at_s)


def test_times_are_taken_down() -> None:
    played = Server().play([arrival(0, "2.0", n=2)])
    (record,) = played.records
    assert (record.due_s, record.sent_s, record.accepted_s) == (0.0, 0.0, 0.0)
    assert (record.first_image_s, record.done_s, record.latency_s) == (1.0, 2.0, 2.0)
    assert record.timings == [TIMINGS, TIMINGS]
    assert played.span_s == 2.0


def test_prompts_are_sent_when_they_are_due_whatever_became_of_the_others() -> None:
    server = Server()
    server.play([arrival(0, "10.0", 0.5), arrival(1, "no", 1.0), arrival(2, "0.1", 7.25)])
    assert server.sent == [(0.5, "0"), (1.0, "1"), (7.25, "2")]


def test_what_was_sent_late_counts_from_when_it_was_due() -> None:
    played = Server(send_s=3.0).play([arrival(0, "1.0", 0.0), arrival(1, "1.0", 0.0)])
    assert [record.sent_s for record in played.records] == [0.0, 3.0]
    assert [record.latency_s for record in played.records] == [6.0, 7.0]


def test_refused_prompts_have_a_code_and_no_latency() -> None:
    played = Server().play([arrival(0, "no"), arrival(1, "1.0")])
    assert [(record.code, record.latency_s) for record in played.records] == [("overloaded", None), (None, 1.0)]


def test_without_a_limit_all_are_sent_at_once() -> None:
    server = Server()
    server.play([arrival(number, "1.0") for number in range(5)])
    assert server.most == 5


@given(st.lists(st.sampled_from(["0.5", "1.0", "3.25", "no"]), min_size=1, max_size=30), st.integers(1, 6))
def test_a_closed_loop_is_always_full_and_never_over(prompts: list[str], in_flight: int) -> None:
    server = Server()
    played = server.play([arrival(number, prompt) for number, prompt in enumerate(prompts)], in_flight)
    assert server.most == min(in_flight, len(prompts))
    assert [id for _, id in server.sent] == [str(number) for number in range(len(prompts))]
    for record in played.records:
        assert record.sent_s == record.due_s  # a place was free at that moment
        assert record.done_s is not None
    assert played.span_s == max(record.done_s or 0.0 for record in played.records)


def test_a_server_that_says_nothing_any_more_is_gone() -> None:
    server = Server()
    with pytest.raises(NoAnswer, match="silent"):
        server.play([arrival(0, "1.0"), arrival(1, "never")])
    assert server.cancelled == ["1"]


def test_silence_between_arrivals_is_nothing_to_worry_about() -> None:
    played = Server().play([arrival(0, "1.0", 0.0), arrival(1, "1.0", 300.0)])
    assert [record.latency_s for record in played.records] == [1.0, 1.0]


def test_everything_that_is_heard_is_passed_on() -> None:
    server, heard = Server(), []
    play(server, [arrival(0, "1.0")], None, server.clock, lambda event: heard.append(type(event[0])))
    assert heard == [wire.Accepted, wire.Image, wire.Done]


def test_what_is_out_is_cancelled_on_the_way_out() -> None:
    def interrupted(event: Event) -> None:
        if isinstance(event[0], wire.Image):
            raise KeyboardInterrupt

    server = Server()
    with pytest.raises(KeyboardInterrupt):
        play(server, [arrival(number, f"{number + 1}.0") for number in range(3)], None, server.clock, interrupted)
    assert server.cancelled == ["0", "1", "2"]
