"""What can be told from what passed the hub: histories of reports with a known outcome."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.hub.recorder import Recorder
from orchestrator.routing.jobs import Job, Prompt
from orchestrator.routing.request import resolve
from orchestrator.trace.recording import (
    Dispatched,
    Fact,
    Lost,
    Recording,
    Reported,
    Worker,
    WorkSpan,
    decode,
    forwards,
    jobs,
    kind_of,
    visits,
)
from stages.core import pipes, wire
from stages.core.arena import SlotRef
from stages.core.errors import NoAnswer
from stages.core.order import SchedulingKey
from stages.core.route import TEXT_TO_IMAGE
from stages.core.tasks import EncodeText
from tests.unit.cards import CARD

MS = 1_000_000
TASKS = {leg.kind: leg.task for leg in TEXT_TO_IMAGE}
WORKERS = (Worker("text-0", 100, "0-1"), Worker("unet-0", 101, "0-1"), Worker("vae-0", 102, "0-1"))
SLOT = SlotRef(0, 1)


def sent(at: int, stage: str, job: int) -> Dispatched:
    return Dispatched(at * MS, stage, job, TASKS[kind_of(stage)], 3, f"id{job}", f"prompt {job}", 0, 0)


def took(stage: str, pid: int, job: int, began: int) -> Reported:
    return Reported(began * MS, stage, pid, pipes.Started(job, began * MS))


def stepped(job: int, step: int, began: int, ended: int, pid: int = 101) -> Reported:
    return Reported(
        ended * MS, "unet-0", pid, pipes.Stepped(job, step, 9, began * MS, ended * MS, (ended - began) * MS)
    )


def put(stage: str, pid: int, job: int, began: int, ended: int) -> Reported:
    return Reported(ended * MS, stage, pid, pipes.Finished(job, (1,), began * MS, ended * MS))


def life(job: int, start: int) -> list[Fact]:
    """One job: 2 ms of text, two steps of 10 ms with a wait before them, 5 ms of VAE."""
    return [
        sent(start, "text-0", job),
        took("text-0", 100, job, start),
        put("text-0", 100, job, start, start + 2),
        sent(start + 2, "unet-0", job),
        took("unet-0", 101, job, start + 5),
        stepped(job, 1, start + 5, start + 15),
        stepped(job, 2, start + 15, start + 25),
        put("unet-0", 101, job, start + 5, start + 26),
        sent(start + 26, "vae-0", job),
        took("vae-0", 102, job, start + 26),
        put("vae-0", 102, job, start + 26, start + 31),
    ]


def recording(*facts: Fact, began: int = 0, ended: int = 1000) -> Recording:
    return Recording(began * MS, ended * MS, 99, WORKERS, facts)


def spans(found: list[WorkSpan]) -> list[tuple[str, int, int, tuple[int, ...], tuple[int, ...]]]:
    return [(f.stage, f.began_ns // MS, f.ended_ns // MS, f.jobs, f.steps) for f in found]


def test_a_job_is_an_encoding_its_steps_and_a_decoding() -> None:
    assert spans(forwards(recording(*life(7, 100)))) == [
        ("text-0", 100, 102, (7,), ()),
        ("unet-0", 105, 115, (7,), (1,)),
        ("unet-0", 115, 125, (7,), (2,)),
        ("vae-0", 126, 131, (7,), ()),
    ]
    assert jobs(recording(*life(7, 100)))[7].prompt == "prompt 7"


def test_steps_of_one_forward_are_one() -> None:
    found = forwards(recording(stepped(1, 3, 10, 20), stepped(2, 1, 10, 20), stepped(1, 4, 20, 30)))
    assert spans(found) == [("unet-0", 10, 20, (1, 2), (3, 1)), ("unet-0", 20, 30, (1,), (4,))]


def test_where_a_job_was_has_no_gaps() -> None:
    found = [(v.kind, v.at_work, v.began_ns // MS, v.ended_ns // MS) for v in visits(recording(*life(7, 100)))]
    assert found == [
        ("text", True, 100, 102),
        ("unet", False, 102, 105),
        ("unet", True, 105, 126),
        ("vae", True, 126, 131),
    ]


def test_only_the_time_asked_for_is_told() -> None:
    inside = recording(*life(7, 100), began=110, ended=128)
    assert spans(forwards(inside)) == [
        ("unet-0", 110, 115, (7,), (1,)),
        ("unet-0", 115, 125, (7,), (2,)),
        ("vae-0", 126, 128, (7,), ()),
    ]
    assert all(110 * MS <= visit.began_ns <= visit.ended_ns <= 128 * MS for visit in visits(inside))


def test_work_under_way_lasts_until_now_and_is_not_finished() -> None:
    (found,) = forwards(recording(took("vae-0", 102, 1, 10), ended=50))
    assert (found.ended_ns, found.finished) == (50 * MS, False)


@pytest.mark.parametrize("report", [pipes.Fault(1, "stage_fault", "broke"), pipes.Dropped(1)])
def test_work_that_nothing_came_of_ends_when_that_is_said(report: pipes.Report) -> None:
    (found,) = forwards(recording(took("vae-0", 102, 1, 10), Reported(30 * MS, "vae-0", 102, report)))
    assert (found.ended_ns, found.finished) == (30 * MS, False)


def test_a_process_that_dies_takes_its_work_along_and_the_next_one_does_it_again() -> None:
    found = recording(
        took("vae-0", 102, 1, 10), Lost(30 * MS, "vae-0", 102), took("vae-0", 202, 1, 60), put("vae-0", 202, 1, 60, 65)
    )
    assert [(f.pid, f.ended_ns // MS, f.finished) for f in forwards(found)] == [(102, 30, False), (202, 65, True)]
    assert [v.at_work for v in visits(found)] == [True, False, True]


reports = st.builds(
    lambda stage, pid, report: Reported(0, stage, pid, report),
    st.sampled_from(["text-0", "unet-0", "vae-0"]),
    st.sampled_from([100, 101, 102, 201]),
    st.one_of(
        st.builds(pipes.Started, st.integers(1, 3), st.integers(0, 90)),
        st.builds(
            lambda job, began, lasts: pipes.Finished(job, (1,), began, began + lasts),
            st.integers(1, 3),
            st.integers(0, 90),
            st.integers(0, 20),
        ),
        st.builds(
            lambda job, step, began, lasts: pipes.Stepped(job, step, 9, began, began + lasts, lasts),
            st.integers(1, 3),
            st.integers(1, 9),
            st.integers(0, 90),
            st.integers(0, 20),
        ),
        st.builds(pipes.Dropped, st.integers(1, 3)),
        st.builds(pipes.Fault, st.integers(1, 3), st.just("stage_fault"), st.just("")),
    ),
)
histories = st.lists(
    st.one_of(reports, st.builds(Lost, st.just(0), st.just("unet-0"), st.sampled_from([100, 101, 102]))), max_size=40
)


def timed(facts: list[Fact]) -> list[Fact]:
    """A history whose facts were recorded one after another."""
    return [msgspec.structs.replace(fact, at_ns=3 * number) for number, fact in enumerate(facts)]


@given(histories, st.integers(0, 60), st.integers(0, 60))
def test_whatever_was_recorded_visits_of_a_job_follow_each_other(facts: list[Fact], began: int, lasted: int) -> None:
    told = Recording(began, began + lasted, 99, WORKERS, tuple(timed(facts)))
    found = visits(told)
    for job in (1, 2, 3):
        mine = [visit for visit in found if visit.job == job]
        assert all(first.ended_ns <= then.began_ns for first, then in pairwise(mine))
    for span in [*found, *forwards(told)]:
        assert began <= span.began_ns <= span.ended_ns <= began + lasted


def job(number: int, prompt: str = "a fox") -> Job:
    submit = wire.Submit(id=f"id{number}", prompt=prompt)
    (request,) = resolve(submit, CARD, (CARD.native,), 1)
    return Job(number, Prompt(b"client", submit, {}, 0), 0, request, request.denoise.steps, 2, 5, SchedulingKey(0.0))


def test_a_recorder_keeps_the_newest_and_tells_the_last_seconds() -> None:
    recorder = Recorder(facts=4)
    run = pipes.Run(1, EncodeText("a fox"), SLOT)
    recorder.sent("text-0", run, job(1), 1 * MS)
    recorder.heard("unet-0", 101, pipes.Stepped(1, 1, 9, 0, 1, 1), 2 * MS)
    recorder.level(3 * MS, 5, 2)
    recorder.level(4 * MS, 5, 2)  # nothing new
    recorder.memory(1000 * MS, 101, 1 << 20)
    told = decode(recorder.recording(0.5, 1001 * MS, 99, WORKERS))
    assert (told.began_ns, told.ended_ns, told.hub_pid, told.workers) == (501 * MS, 1001 * MS, 99, WORKERS)
    assert [type(fact).__name__ for fact in told.facts] == ["Dispatched", "Level", "Memory"]  # the step is too old
    recorder.lost("unet-0", 101, 1002 * MS)
    told = decode(recorder.recording(10.0, 1002 * MS, 99, WORKERS))
    assert [type(fact).__name__ for fact in told.facts] == ["Reported", "Level", "Memory", "Lost"]


def test_long_prompts_are_cut_and_jobs_that_have_gone_are_left_out() -> None:
    recorder = Recorder()
    recorder.sent("text-0", pipes.Run(1, EncodeText(""), SLOT), job(1, "x" * 10_000), 1)
    recorder.sent("text-0", pipes.Run(2, EncodeText(""), SLOT), None, 2)
    (fact,) = decode(recorder.recording(1.0, 3, 99, ())).facts
    assert isinstance(fact, Dispatched)
    assert (fact.id, len(fact.prompt), fact.submitted_ns) == ("id1", 120, 5)


@pytest.mark.parametrize("frame", [b"", b"{}", b"\x81\xa1a\x01"])
def test_a_recording_of_another_version_is_refused(frame: bytes) -> None:
    with pytest.raises(NoAnswer, match="another version"):
        decode(frame)
