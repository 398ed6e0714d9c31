from collections.abc import Iterable

import pytest

from orchestrator.cli.session import Failure, Outcome, Picture, Session, StampsArrived, exit_status
from stages.core import wire

TIMINGS = wire.Timings(queue_s=0.0, text_s=0.1, unet_s=0.2, vae_s=0.3, total_s=0.6)


def submit(id: str, n: int = 1) -> wire.Submit:
    return wire.Submit(id=id, prompt=f"prompt {id}", n=n)


def accepted(id: str) -> wire.Accepted:
    return wire.Accepted(id=id, position=0, eta_s=None)


def progress(id: str, stage: wire.Kind, step: int = 0, steps: int = 1, index: int = 0) -> wire.Progress:
    return wire.Progress(id=id, stage=stage, step=step, steps=steps, index=index)


def image(id: str, index: int = 0) -> wire.Image:
    return wire.Image(id=id, index=index, format="png", width=8, height=8, seed=7, timings=TIMINGS)


def done(id: str) -> wire.Done:
    return wire.Done(id=id)


def failed(id: str, code: str = "overloaded") -> wire.Failed:
    return wire.Failed(id=id, code=code, message=f"{id} {code}", retryable=True)


def asked(*requests: wire.Submit, patience_s: float = 60.0, window: int = 4) -> Session:
    session = Session(patience_s, window)
    for request in requests:
        assert session.add(request) is None
    return session


def due(session: Session, now: float = 0.0) -> list[str]:
    return [request.id for request in session.due(now)]


def tell(session: Session, messages: Iterable[wire.HubMessage], now: float = 0.0) -> list[Outcome]:
    outcomes = (session.on_event(message, b"bytes", now) for message in messages)
    return [outcome for outcome in outcomes if outcome is not None]


def test_a_prompt_is_sent_once_and_ends_as_a_picture() -> None:
    session = asked(submit("a"))
    assert due(session) == ["a"]
    assert due(session) == []
    assert not session.finished
    (outcome,) = tell(session, [accepted("a"), progress("a", "text"), image("a"), done("a")])
    assert isinstance(outcome, Picture)
    assert (outcome.job.number, outcome.image.seed, outcome.encoded) == (1, 7, b"bytes")
    assert session.finished
    assert (session.images_done, session.failures) == (1, [])


def test_numbers_count_images_in_the_order_they_were_asked_not_in_that_they_came() -> None:
    session = asked(submit("a", n=2), submit("b"))
    due(session)
    outcomes = tell(session, [image("b"), done("b"), image("a", 1), image("a", 0), done("a")])
    numbers = [o.job.number + o.image.index for o in outcomes if isinstance(o, Picture)]
    assert numbers == [3, 2, 1]


def test_the_window_counts_images_and_opens_as_they_come() -> None:
    session = asked(submit("a", n=3), submit("b", n=2), submit("c"), window=4)
    assert due(session) == ["a"]
    tell(session, [image("a", 0)])
    assert due(session) == ["b"]
    tell(session, [image("a", 1), image("a", 2), done("a"), image("b", 0)])
    assert due(session) == ["c"]


def test_a_prompt_of_more_images_than_the_window_goes_alone() -> None:
    session = asked(submit("a"), submit("b", n=9), submit("c"), window=4)
    assert due(session) == ["a"]
    tell(session, [image("a"), done("a")])
    assert due(session) == ["b"]


def test_no_more_is_read_than_the_window_holds() -> None:
    session = asked(submit("a", n=2), submit("b"), window=4)
    assert session.room
    session.add(submit("c"))
    assert not session.room
    due(session)
    assert not session.room
    tell(session, [image("b"), done("b")])
    assert session.room


def test_where_images_are_is_known_from_their_progress() -> None:
    session = asked(submit("a", n=3))
    due(session)
    tell(session, [progress("a", "text")], now=1.0)
    tell(session, [progress("a", "unet", 0, 25), progress("a", "text", index=1)], now=2.0)
    tell(session, [progress("a", "unet", 12, 25)], now=3.0)
    (job,) = session.jobs()
    assert job.places[0] == ("unet", 12, 25, 2.0)
    assert job.places[1] == ("text", 0, 1, 2.0)
    assert (session.idle_images, session.began_at) == (1, 1.0)


def test_what_was_refused_for_lack_of_room_is_sent_later_and_in_order() -> None:
    session = asked(submit("a"), submit("b"), submit("c"))
    assert due(session) == ["a", "b", "c"]
    assert tell(session, [accepted("a"), failed("b"), failed("c")], now=10.0) == []
    assert due(session, now=10.1) == []
    tell(session, [image("a"), done("a")], now=11.0)
    assert due(session, now=11.0) == ["b", "c"]
    outcomes = tell(session, [accepted("b"), accepted("c"), image("b"), done("b"), image("c"), done("c")], now=12.0)
    assert len(outcomes) == 2
    assert session.failures == []


def test_refusals_make_the_window_what_the_server_has_room_for() -> None:
    session = asked(*map(submit, "abcd"))
    due(session)
    tell(session, [accepted("a"), failed("b"), failed("c"), failed("d")])
    assert due(session, now=100.0) == []  # one is there, and there was room for one
    tell(session, [image("a"), done("a")], now=100.0)
    assert due(session, now=100.0) == ["b", "c"]  # one for the one that left, one to find out


def pause(session: Session, now: float) -> float:
    """Have what was just sent refused at `now`; returns the seconds until it is sent again."""
    tell(session, [failed("a")], now)
    return next(wait / 100 for wait in range(1, 10_000) if due(session, now + wait / 100))


def test_pauses_between_tries_grow_until_one_is_accepted() -> None:
    session = asked(submit("a"), patience_s=1000.0)
    due(session)
    assert [pause(session, 100.0 * turn) for turn in range(1, 7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    tell(session, [accepted("a")])
    assert pause(session, 900.0) == 0.25


def test_patience_ends_only_for_what_is_refused_alone() -> None:
    session = asked(submit("a"), submit("b"), patience_s=5.0)
    due(session)
    assert tell(session, [accepted("a"), failed("b")], now=0.0) == []
    assert due(session, now=1000.0) == []
    tell(session, [image("a"), done("a")], now=1000.0)
    assert due(session, now=1000.0) == ["b"]
    assert tell(session, [failed("b")], now=1000.0) == []
    assert due(session, now=1004.9) == ["b"]
    assert tell(session, [failed("b")], now=1004.9) == []
    assert due(session, now=1006.0) == ["b"]
    (outcome,) = tell(session, [failed("b")], now=1006.0)
    assert outcome == Failure("b", "overloaded", "b overloaded", "prompt b")
    assert session.finished


def test_without_patience_a_refusal_is_a_failure() -> None:
    session = asked(submit("a"), patience_s=0.0)
    due(session)
    assert [type(outcome) for outcome in tell(session, [failed("a")])] == [Failure]


@pytest.mark.parametrize("code", ["stage_lost", "bad_request", "shutting_down", "something_newer"])
def test_other_failures_end_their_prompt_alone(code: str) -> None:
    session = asked(submit("a"), submit("b"))
    due(session)
    outcomes = tell(session, [failed("a", code), image("b"), done("b")])
    assert [type(outcome) for outcome in outcomes] == [Failure, Picture]
    assert [failure.code for failure in session.failures] == [code]
    assert session.finished


def test_an_id_in_use_is_refused_here_and_may_come_again_later() -> None:
    session = asked(submit("a"))
    assert session.add(submit("a")) == Failure("a", "conflict", "the id is that of an unfinished prompt", "prompt a")
    due(session)
    assert session.add(submit("a")) is not None
    tell(session, [image("a"), done("a")])
    assert session.add(submit("a")) is None
    assert (session.images_asked, len(session.failures)) == (2, 2)


def test_the_stamps_of_a_prompt_come_out_with_it() -> None:
    session = asked(submit("a"))
    due(session)
    traced = wire.Traced(id="a", slices=())
    (outcome,) = tell(session, [traced])
    assert isinstance(outcome, StampsArrived)
    assert (outcome.job.request.prompt, outcome.traced) == ("prompt a", traced)


@pytest.mark.parametrize("message", [image("x"), done("x"), failed("x"), accepted("x"), progress("x", "vae")])
def test_messages_about_nothing_of_ours_change_nothing(message: wire.HubMessage) -> None:
    session = asked(submit("a"))
    due(session)
    assert session.on_event(message, None, 0.0) is None
    assert (session.images_done, session.failures, len(session.sent)) == (0, [], 1)


@pytest.mark.parametrize(
    ("codes", "shared", "status"),
    [
        ([], True, 0),
        (["stage_lost"], True, 1),
        (["bad_request"], True, 2),
        (["stage_lost", "bad_request"], True, 2),
        (["bad_request"], False, 1),
        (["conflict"], True, 1),
    ],
)
def test_exit_status(codes: list[str], shared: bool, status: int) -> None:
    assert exit_status([Failure(None, code, "") for code in codes], shared) == status
