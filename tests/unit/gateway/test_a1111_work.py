import base64
from typing import Any

from orchestrator.gateway.jobs import Job
from orchestrator.gateway.routes.a1111_work import Work
from stages.core import wire


def _job(id: str = "a", n: int = 1) -> Job:
    return Job(id, wire.Submit(id=id, prompt="a fox", n=n), 0.0)


def _unet(step: int, index: int = 0, eta_s: float | None = None) -> wire.Progress:
    return wire.Progress(id="a", stage="unet", step=step, steps=20, index=index, eta_s=eta_s)


def _image(index: int = 0) -> wire.Image:
    timings = wire.Timings(0, 0, 0, 0, 0)
    return wire.Image(id="a", index=index, format="png", width=8, height=8, seed=1, timings=timings)


def _told(job: Job, *messages: wire.PromptAnswer) -> dict[str, Any]:
    work = Work()
    work.begin(job)
    for message in messages:
        job.take_in(message, b"")
    return work.progress(with_image=True)


def test_without_work_all_is_zero() -> None:
    told = Work().progress(with_image=True)
    assert told["progress"] == 0
    assert told["eta_relative"] == 0
    assert told["state"]["job_count"] == 0
    assert told["current_image"] is None


def test_a_job_that_waits_is_more_than_nothing() -> None:
    told = _told(_job(n=3), wire.Accepted(id="a", position=4, eta_s=7.5))
    assert 0 < told["progress"] < 0.05
    assert told["eta_relative"] == 7.5
    assert told["state"]["job_count"] == 3
    assert "4" in told["textinfo"]


def test_progress_is_that_of_all_pictures() -> None:
    job = _job(n=2)
    told = _told(job, _unet(5), _unet(15, index=1), _image(0), _unet(10, index=1, eta_s=2.0))
    assert told["progress"] == round(0.01 + 0.98 * (1 + 10 / 20) / 2, 4)
    assert told["eta_relative"] == 2.0
    state = told["state"]
    assert (state["job_no"], state["sampling_step"], state["sampling_steps"]) == (1, 10, 20)


def test_progress_stays_below_one_until_the_job_is_over() -> None:
    job = _job()
    work = Work()
    work.begin(job)
    job.take_in(_unet(20), None)
    job.take_in(wire.Progress(id="a", stage="vae", step=1, steps=1), None)
    assert 0.9 < work.progress(with_image=True)["progress"] < 1
    job.take_in(_image(), b"")
    assert 0.9 < work.progress(with_image=True)["progress"] < 1
    job.take_in(wire.Done(id="a"), None)
    assert work.progress(with_image=True)["progress"] == 0
    assert work.progress(with_image=True)["state"]["job_count"] == 0


def test_the_newest_preview_is_shown_unless_it_is_not_wanted() -> None:
    job, work = _job(n=2), Work()
    work.begin(job)
    job.take_in(wire.Preview(id="a", index=0, step=10), b"older")
    job.take_in(wire.Preview(id="a", index=1, step=15), b"newest")
    job.take_in(wire.Preview(id="a", index=0, step=12), b"newer")
    assert work.progress(with_image=True)["current_image"] == base64.b64encode(b"newest").decode()
    assert work.progress(with_image=False)["current_image"] is None


def test_an_interruption_stops_all_and_a_skip_the_first() -> None:
    first, second, work = _job("a"), _job("b"), Work()
    work.begin(first)
    work.begin(second)
    assert work.skip() == [first]
    assert work.progress(with_image=False)["state"]["skipped"]
    assert work.interrupt() == [first, second]
    first.take_in(wire.Done(id="a"), None)
    assert work.interrupt() == [second]
    assert work.progress(with_image=False)["state"]["interrupted"]
    work.begin(_job("c"))
    state = work.progress(with_image=False)["state"]
    assert (state["interrupted"], state["skipped"]) == (False, False)
