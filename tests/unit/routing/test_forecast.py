"""An encoding takes a second, a row of a step 5 seconds, a decoding 3; a job at guidance has two rows."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.routing.forecast import Forecast
from orchestrator.routing.jobs import Job, Prompt
from orchestrator.routing.line import RERANK_NS, Pending
from orchestrator.routing.request import Request, resolve
from stages.core import wire
from stages.core.costs import CostCurves
from stages.core.errors import DeadlineInfeasible
from stages.core.model import ModelCard
from stages.core.order import ESTIMATE_MARGIN, ORDERS, Order, SchedulingKey
from stages.core.tasks import TaskName
from tests.unit.cards import CARD, DISTILLED

SECOND = 1_000_000_000
NOW = 1000 * SECOND
SIZES = (CARD.native,)


def forecast(order: Order = "arrival", *, known: bool = True) -> Forecast:
    made = Forecast(CARD, order)
    for task, seconds in zip(requests()[0].tasks, (1, 5, 3), strict=True) if known else ():
        made.estimate.learn(task, seconds * SECOND)
    return made


def requests(steps: int = 1, n: int = 1, guidance_scale: float = 7.5) -> list[Request]:
    submit = wire.Submit(id="x", prompt="a cat", steps=steps, n=n, guidance_scale=guidance_scale)
    return resolve(submit, CARD, SIZES, 0)


def own(steps: int) -> float:
    """Seconds of one image by itself."""
    return 1 + 10 * steps + 3


class Jobs:
    """Jobs as the router makes them."""

    def __init__(self, card: ModelCard = CARD) -> None:
        self.card = card
        self.all: list[Job] = []

    def prompt(
        self,
        steps: int = 1,
        *,
        n: int = 1,
        age: float = 0,
        priority: int = 0,
        deadline: float | None = None,
        guidance_scale: float = 7.5,
    ) -> list[Job]:
        """A prompt submitted `age` seconds ago, with a deadline in so many seconds; its jobs."""
        prompt = Prompt(b"client", wire.Submit(id=f"{len(self.all)}", prompt="a cat"), {}, NOW)
        submitted = NOW - int(age * SECOND)
        scheduling_key = SchedulingKey(submitted / 1e9, priority, None if deadline is None else NOW / 1e9 + deadline)
        made = []
        for index, request in enumerate(requests(steps, n, guidance_scale)):
            evaluations, rows = request.evaluations(self.card), self.card.rows(guidance_scale)
            number = len(self.all) + 1
            made.append(Job(number, prompt, index, request, evaluations, rows, submitted, scheduling_key))
            self.all.append(made[-1])
        return made

    def of(self, job: Job) -> list[Job]:
        """All jobs of the same prompt."""
        return [other for other in self.all if other.prompt is job.prompt]

    def one(self, steps: int = 1, **fields: object) -> Job:
        [job] = self.prompt(steps, **fields)  # type: ignore[arg-type]
        return job


def pending(told: Forecast, jobs: list[Job], now_ns: int = NOW) -> Pending:
    """The jobs as the router keeps them."""
    waiting = [job for job in jobs if job.first and job.stage is None]
    return Pending(told.line(waiting, now_ns), told.line([job for job in jobs if job not in waiting], now_ns))


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def into_unet(job: Job, step: int = 0, evaluations: int | None = None) -> Job:
    """As the router leaves it when the U-Net has said how many evaluations there are."""
    job.place, job.stage = 1, "unet-0"
    job.step, job.steps = step, evaluations or job.request.denoise.steps
    return job


# What is left.


def test_what_is_left_is_told_by_stage_and_step(jobs: Jobs) -> None:
    told = forecast()
    job = jobs.one(4)
    assert told.left(job) == pytest.approx(1 + 40 + 3)
    assert told.left(into_unet(job)) == pytest.approx(40 + 3)
    assert told.left(into_unet(job, 3)) == pytest.approx(10 + 3)
    assert told.left(into_unet(job, 5, evaluations=7)) == pytest.approx(20 + 3)  # a schedule of second order
    job.place, job.step = 2, 0
    assert told.left(job) == pytest.approx(3)


def test_rows_count(jobs: Jobs) -> None:
    assert forecast().left(jobs.one(4, guidance_scale=1.0)) == pytest.approx(1 + 20 + 3)
    distilled = Forecast(DISTILLED, "arrival", forecast().estimate.costs)
    assert distilled.left(Jobs(DISTILLED).one(4, guidance_scale=7.5)) == pytest.approx(1 + 20 + 3)


# When it will be done.


def test_nothing_is_told_before_everything_was_seen(jobs: Jobs) -> None:
    told = forecast(known=False)
    job = jobs.one(deadline=0.0)
    assert not told.known
    assert told.eta(job, pending(told, jobs.all), NOW) is None
    assert told.first_done(pending(told, jobs.all)) is None
    assert told.lateness(job, NOW) == -math.inf
    asked = requests(9)
    assert told.fit(asked, job.scheduling_key, None, pending(told, jobs.all), NOW) == asked


def test_eta_is_the_work_of_all_that_go_before_and_its_own(jobs: Jobs) -> None:
    told = forecast("shortest")
    short, long, longer = jobs.one(1), jobs.one(2), jobs.one(3)
    assert told.eta(short, pending(told, jobs.all), NOW) == pytest.approx(own(1))
    assert told.eta(long, pending(told, jobs.all), NOW) == pytest.approx(own(1) + own(2))
    assert told.eta(longer, pending(told, jobs.all), NOW) == pytest.approx(own(1) + own(2) + own(3))
    into_unet(longer, 2)  # a second less than the short one
    assert told.eta(longer, pending(told, jobs.all), NOW) == pytest.approx(13)
    assert told.eta(short, pending(told, jobs.all), NOW) == pytest.approx(13 + own(1))


def test_jobs_that_are_equal_in_all_have_an_eta_each(jobs: Jobs) -> None:
    told = forecast("shortest")
    alike = jobs.prompt(1, n=3)
    assert [told.eta(job, pending(told, jobs.all), NOW) for job in alike] == pytest.approx(
        [own(1), 2 * own(1), 3 * own(1)]
    )


def test_a_job_whose_place_is_as_of_a_while_ago_does_not_wait_for_itself(jobs: Jobs) -> None:
    told = forecast("shortest")
    job = jobs.one(1)
    then = pending(told, jobs.all)
    told.estimate.learn("denoise", 50 * SECOND)  # now it would be ranked behind where it stands
    assert told.eta(job, then, NOW) == pytest.approx(told.left(job))


@given(
    st.sampled_from(ORDERS), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 90), st.integers(-1, 1)), max_size=8)
)
def test_the_one_that_goes_last_is_done_when_all_are(order: Order, drawn: list[tuple[int, int, int]]) -> None:
    jobs = Jobs()
    told = forecast(order)
    for steps, age, priority in drawn:
        jobs.one(steps, age=age, priority=priority)
    ranked = sorted(jobs.all, key=lambda job: told.rank(job, NOW)[0])
    etas = [told.eta(job, pending(told, jobs.all), NOW) for job in ranked]
    done = 0.0
    for job, eta in zip(ranked, etas, strict=True):
        done += told.left(job)
        assert eta == pytest.approx(done, abs=0.001)


@pytest.mark.parametrize("order", ORDERS)
def test_no_two_ranks_are_equal(order: Order, jobs: Jobs) -> None:
    told = forecast(order)
    ranks = [told.rank(job, NOW)[0] for job in jobs.prompt(1, n=5)]
    assert ranks == sorted(set(ranks))


def test_there_is_room_when_the_first_is_done(jobs: Jobs) -> None:
    told = forecast()
    assert told.first_done(pending(told, [])) == 0.0
    jobs.one(5)
    jobs.one(2)
    assert told.first_done(pending(told, jobs.all)) == pytest.approx(own(2))


# Where it stands.


def test_the_position_counts_images_that_wait_and_go_before(jobs: Jobs) -> None:
    told = forecast("shortest")
    jobs.prompt(1, n=2)
    [mine] = jobs.prompt(2)
    jobs.one(3)
    assert told.position(jobs.of(mine), pending(told, jobs.all)) == 2
    jobs.all[0].stage = "text-0"  # it waits no more
    assert told.position(jobs.of(mine), pending(told, jobs.all)) == 1
    into_unet(jobs.all[1])
    assert told.position(jobs.of(mine), pending(told, jobs.all)) == 0


def test_the_position_is_that_of_the_prompt_s_first_image_that_waits(jobs: Jobs) -> None:
    told = forecast()
    jobs.one(1, age=9)
    mine = jobs.prompt(1, n=3, age=5)
    jobs.one(1, age=1)
    assert told.position(jobs.of(mine[0]), pending(told, jobs.all)) == 1
    for job in mine:
        into_unet(job)
    assert told.position(jobs.of(mine[0]), pending(told, jobs.all)) == 0  # none of it waits


def test_what_goes_before_counts_by_the_pace_at_which_work_gets_done(jobs: Jobs) -> None:
    told = forecast()
    for number in range(100):  # stages overlap: a second of work is done every half a second
        told.learn("denoise", 10 * SECOND, NOW + number * 5 * SECOND, 9, rows=2)
    job, mine = jobs.one(3, age=1), jobs.one(1)
    assert told.eta(mine, pending(told, jobs.all), NOW) == pytest.approx(0.5 * own(3) + own(1))
    scheduling_key = SchedulingKey(
        NOW / 1e9, 0, NOW / 1e9 + (1 + ESTIMATE_MARGIN) * 0.5 * (own(3) + own(1)) + own(2) + 0.01
    )
    assert told.fit(requests(2), scheduling_key, None, pending(told, jobs.all), NOW) == requests(2)
    assert job.scheduling_key.submitted < mine.scheduling_key.submitted


@pytest.mark.parametrize("order", ORDERS)
def test_ten_thousand_that_wait_are_ranked_by_a_few_looks_at_the_curves(
    order: Order, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each kind of stage of every number of rows left, not one for each job, and none while nothing changes."""
    looks: list[tuple[str, int]] = []
    cost = CostCurves.cost

    def counted(curves: CostCurves, task: TaskName, pixels: int) -> float:
        looks.append((task, pixels))
        return cost(curves, task, pixels)

    monkeypatch.setattr(CostCurves, "cost", counted)
    told = forecast(order)
    few = [jobs.one(steps) for steps in range(1, 21)]
    many = [dataclasses.replace(few[number % 20], number=number) for number in range(10_000)]
    line = told.line(many, NOW)
    assert 0 < len(looks) <= 3 * 20
    del looks[:]
    line.refresh(NOW + 10_000 * RERANK_NS)
    assert looks == []
    told.estimate.learn("denoise", 50 * SECOND)
    line.refresh(NOW + 2 * 10_000 * RERANK_NS)
    assert 0 < len(looks) <= 3 * 20, "what was known is not believed any more"


# Deadlines.


def test_lateness_is_by_how_much_the_deadline_would_be_missed(jobs: Jobs) -> None:
    told = forecast()
    job = jobs.one(2, deadline=30.0)
    assert told.lateness(job, NOW) == pytest.approx(own(2) - 30)
    assert told.lateness(job, NOW + 10 * SECOND) == pytest.approx(own(2) - 20)
    assert told.lateness(into_unet(job, 1), NOW + 10 * SECOND) == pytest.approx(13 - 20)
    assert told.lateness(jobs.one(99), NOW) == -math.inf


def fit(jobs: Jobs, asked: list[Request], deadline: float | None, min_steps: int | None = None) -> list[int]:
    """The steps of what was taken in."""
    scheduling_key = SchedulingKey(NOW / 1e9, 0, None if deadline is None else NOW / 1e9 + deadline)
    told = forecast()
    started = told.fit(asked, scheduling_key, min_steps, pending(told, jobs.all), NOW)
    assert [(r.denoise.seed, r.text) for r in started] == [(r.denoise.seed, r.text) for r in asked]
    return [request.denoise.steps for request in started]


def test_what_can_be_in_time_is_taken_as_it_is(jobs: Jobs) -> None:
    assert fit(jobs, requests(4), own(4) + 0.01) == [4]
    assert fit(jobs, requests(4), None) == [4]
    assert fit(jobs, requests(4), own(4) + 0.01, min_steps=1) == [4]


def test_what_cannot_is_refused_and_told_the_earliest_time(jobs: Jobs) -> None:
    jobs.one(2)
    with pytest.raises(DeadlineInfeasible, match=r"may take 70.4 s, and 50 s are allowed") as caught:
        fit(jobs, requests(4), 50.0)
    assert caught.value.retry_after_s == pytest.approx((1 + ESTIMATE_MARGIN) * own(2) + own(4) - 50)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("order", "share"), [("shortest", 0.6), ("deadline", 0.6), ("fair", 0.6), ("arrival", ESTIMATE_MARGIN)]
)
def test_a_promise_leaves_room_for_those_who_come_later_and_go_before(order: Order, share: float, jobs: Jobs) -> None:
    """For so much of what goes before it now; where nobody goes before who comes later, for errors alone."""
    for age in (2, 1):
        jobs.one(2, age=age, deadline=2 * own(2))
    told = forecast(order)
    ahead = 2 * own(2)

    def answer(deadline: float) -> list[Request]:
        scheduling_key = SchedulingKey(NOW / 1e9, 0, NOW / 1e9 + deadline)
        return told.fit(requests(4), scheduling_key, None, pending(told, jobs.all), NOW)

    earliest = (1 + share) * ahead + own(4)
    assert answer(earliest + 0.01) == requests(4)
    with pytest.raises(DeadlineInfeasible) as refused:
        answer(earliest - 0.01)
    assert refused.value.retry_after_s == pytest.approx(0.01)


def test_what_was_promised_holds_while_not_more_than_that_overtakes(jobs: Jobs) -> None:
    told = forecast("shortest")
    for _ in range(5):
        jobs.one(2, age=1)
    deadline = 1.6 * 5 * own(2) + own(4) + 0.01
    assert told.fit(requests(4), SchedulingKey(NOW / 1e9, 0, NOW / 1e9 + deadline), None, pending(told, jobs.all), NOW)
    mine = jobs.one(4, deadline=deadline)
    for _ in range(3):
        jobs.one(2)
        eta = told.eta(mine, pending(told, jobs.all), NOW)
        assert eta is not None
        assert eta < deadline
    jobs.one(2)
    late = told.eta(mine, pending(told, jobs.all), NOW)
    assert late is not None
    assert late > deadline, "four of five is more than was reckoned with"


def test_what_takes_too_long_by_itself_is_not_told_to_come_again(jobs: Jobs) -> None:
    jobs.one(2)
    with pytest.raises(DeadlineInfeasible) as caught:
        fit(jobs, requests(4), own(4) - 1)
    assert caught.value.retry_after_s is None


def test_who_goes_behind_does_not_count_against_a_deadline(jobs: Jobs) -> None:
    jobs.one(50)
    scheduling_key = SchedulingKey(NOW / 1e9, 0, NOW / 1e9 + own(1) + 1)
    told = forecast("shortest")
    assert len(told.fit(requests(1), scheduling_key, None, pending(told, jobs.all), NOW)) == 1
    told = forecast("arrival")
    with pytest.raises(DeadlineInfeasible):
        told.fit(requests(1), scheduling_key, None, pending(told, jobs.all), NOW)


def urgent(order: Order, jobs: Jobs, priority: int = 0, min_steps: int | None = None) -> list[int]:
    """The steps of a prompt of 4 that is wanted as soon as it can be, whatever waits."""
    scheduling_key = SchedulingKey(NOW / 1e9, priority, NOW / 1e9 + own(4) + 1)
    told = forecast(order)
    return [
        request.denoise.steps
        for request in told.fit(requests(4), scheduling_key, min_steps, pending(told, jobs.all), NOW)
    ]


@pytest.mark.parametrize("order", ["deadline", "shortest"])
def test_what_would_make_others_break_their_promise_is_refused(order: Order, jobs: Jobs) -> None:
    jobs.one(6, deadline=(1 + ESTIMATE_MARGIN) * own(6) + own(4) - 3.0)
    with pytest.raises(DeadlineInfeasible, match=r"make others late by 3 s that were accepted") as caught:
        urgent(order, jobs)
    assert caught.value.retry_after_s == pytest.approx(3.0)
    assert urgent(order, jobs, min_steps=2) == [3], "with a step less nobody is late"


def test_those_with_time_to_spare_those_late_anyway_and_those_of_no_deadline_can_be_overtaken(jobs: Jobs) -> None:
    jobs.one(6, deadline=(1 + ESTIMATE_MARGIN) * own(6) + own(4) + 1.0)
    jobs.one(50)
    jobs.one(7, deadline=own(7) - 1.0)
    assert urgent("deadline", jobs) == [4]


def test_who_has_priority_may_break_the_promises_of_others(jobs: Jobs) -> None:
    jobs.one(6, deadline=(1 + ESTIMATE_MARGIN) * own(6) + 1.0)
    assert urgent("deadline", jobs, priority=1) == [4]
    with pytest.raises(DeadlineInfeasible):
        urgent("deadline", jobs)


def test_fewer_steps_only_if_that_is_allowed_and_as_many_as_there_is_time_for(jobs: Jobs) -> None:
    for steps in (1, 2, 3):
        assert fit(jobs, requests(4), own(steps) + 0.01, min_steps=1) == [steps]
        assert fit(jobs, requests(4), own(steps + 1) - 0.01, min_steps=steps) == [steps]
        with pytest.raises(DeadlineInfeasible):
            fit(jobs, requests(4), own(steps) + 0.01, min_steps=steps + 1)
        with pytest.raises(DeadlineInfeasible):
            fit(jobs, requests(4), own(steps) + 0.01)
    with pytest.raises(DeadlineInfeasible):
        fit(jobs, requests(4), own(1) - 0.01, min_steps=1)


def test_every_image_of_a_prompt_counts(jobs: Jobs) -> None:
    assert fit(jobs, requests(4, n=3), 3 * own(4) + 0.01) == [4, 4, 4]
    with pytest.raises(DeadlineInfeasible):
        fit(jobs, requests(4, n=3), 3 * own(4) - 0.01)
    assert fit(jobs, requests(4, n=3), 3 * own(4) - 0.01, min_steps=2) == [3, 3, 3]
    assert fit(jobs, requests(4, n=3), 3 * own(2) + 0.01, min_steps=2) == [2, 2, 2]


@given(
    asked=st.lists(st.tuples(st.integers(1, 20), st.floats(1.0, 4.0)), min_size=1, max_size=12),
    order=st.sampled_from(["deadline", "shortest", "arrival"]),
)
def test_whatever_is_accepted_is_done_in_time_in_the_order_in_which_it_goes(
    asked: list[tuple[int, float]], order: Order
) -> None:
    jobs, told = Jobs(), forecast(order)
    for steps, patience in asked:
        scheduling_key = SchedulingKey(NOW / 1e9, 0, NOW / 1e9 + patience * own(steps))
        try:
            told.fit(requests(steps), scheduling_key, None, pending(told, jobs.all), NOW)
        except DeadlineInfeasible:
            continue
        jobs.one(steps, deadline=patience * own(steps))
    done = 0.0
    for job in sorted(jobs.all, key=lambda job: told.rank(job, NOW)[0]):
        done += told.left(job)
        assert job.scheduling_key.deadline is not None
        assert NOW / 1e9 + done <= job.scheduling_key.deadline + 1e-6


@given(
    before=st.lists(st.integers(1, 6), max_size=4),
    steps=st.integers(1, 20),
    n=st.integers(1, 4),
    guidance=st.sampled_from([1.0, 7.5]),
    deadline=st.floats(0, 500),
    min_steps=st.none() | st.integers(1, 20),
)
def test_what_is_taken_in_is_in_time_and_what_is_refused_could_not_be(
    before: list[int], steps: int, n: int, guidance: float, deadline: float, min_steps: int | None
) -> None:
    jobs = Jobs()
    for each in before:
        jobs.one(each, age=1)
    step_s = 10 if guidance > 1 else 5
    ahead = (1 + ESTIMATE_MARGIN) * sum(own(each) for each in before)

    def takes(count: int) -> float:
        return ahead + n * (4 + step_s * count)

    least = min(steps if min_steps is None else min_steps, steps)
    refused: DeadlineInfeasible | None = None
    try:
        [started] = {*fit(jobs, requests(steps, n, guidance), deadline, least if min_steps else None)}
    except DeadlineInfeasible as error:
        refused = error
    if refused is None:
        assert least <= started <= steps
        assert takes(started) <= deadline + 1e-6
        assert started == steps or takes(started + 1) > deadline - 1e-6, "it could have had a step more"
    else:
        assert takes(least) > deadline - 1e-6
        in_time_later = takes(steps) - ahead <= deadline
        wait = pytest.approx(takes(steps) - deadline, abs=0.001)
        assert refused.retry_after_s == (wait if in_time_later else None)
