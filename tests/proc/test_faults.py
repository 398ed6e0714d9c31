"""RELIABILITY rows 1 to 3, 6, 8 to 12: processes die, nothing is lost, nothing is left. Real processes, stub stages."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from stages.core import wire
from tests.server import STUBS, Server, alive, eventually, run, serving

STEPS = 8


def prompts(count: int = 8, word: str = "") -> list[wire.Submit]:
    """One of them, job-2, is so slow that its client hears of every step."""
    words = {2: f"{word} [slow]"}
    return [
        wire.Submit(
            id=f"job-{number}",
            prompt=f"{words.get(number, word)} a picture of number {number}",
            seed=number,
            steps=STEPS,
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def undisturbed() -> dict[tuple[str, int], bytes]:
    """What the prompts give when nothing happens."""
    with serving(*STUBS) as server, server.client() as client:
        return run(client, prompts()).images


def kill_once(server: Server, stage: str, when: wire.Progress) -> "Killer":
    return Killer(server.pids()[stage], when)


class Killer:
    """Kills a process when a certain progress has been seen."""

    def __init__(self, pid: int, when: wire.Progress) -> None:
        self.pid = pid
        self.when = when
        self.killed_at: float | None = None

    def __call__(self, message: wire.HubMessage) -> None:
        if not isinstance(message, wire.Progress) or self.killed_at is not None:
            return
        if (message.id, message.stage, message.step) == (self.when.id, self.when.stage, self.when.step):
            os.kill(self.pid, signal.SIGKILL)
            self.killed_at = time.monotonic()


@pytest.mark.parametrize("stage", ["text", "unet", "vae"])
def test_a_killed_stage_loses_nothing_and_changes_no_picture(
    stage: wire.Kind, undisturbed: dict[tuple[str, int], bytes]
) -> None:
    with serving(*STUBS) as server, server.client() as client:
        steps = STEPS if stage == "unet" else 1
        killer = kill_once(server, f"{stage}-0", wire.Progress(id="job-3", stage=stage, step=0, steps=steps))
        outcome = run(client, prompts(), killer)
        assert killer.killed_at is not None
        assert not outcome.failed()
        assert outcome.images == undisturbed
        status = client.status()
        assert [s.restarts for s in status.stages if s.kind == stage] == [1]
        assert status.arena.free == status.arena.slots
    earlier = {"text": (), "unet": ("text",), "vae": ("text", "unet")}[stage]
    for kind in earlier:  # what was done before the stage that died is not done again
        taken = [p.id for p in outcome.progress if p.stage == kind and p.step == 0]
        assert sorted(taken) == sorted(set(taken))


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_unet_killed_at_step_k_goes_on_from_there(step: int, undisturbed: dict[tuple[str, int], bytes]) -> None:
    with serving(*STUBS) as server, server.client() as client:
        killer = kill_once(server, "unet-0", wire.Progress(id="job-2", stage="unet", step=step, steps=STEPS))
        outcome = run(client, prompts(4), killer)
    assert killer.killed_at is not None
    assert not outcome.failed()
    assert outcome.images == {key: undisturbed[key] for key in outcome.images}
    seen = [p.step for p in outcome.progress if p.id == "job-2" and p.stage == "unet" and p.step > 0]
    repeated = [k for k in seen if seen.count(k) > 1]
    assert all(k > step - 1 for k in repeated), f"steps {repeated} were done twice after a kill at {step}"


def test_a_prompt_that_kills_its_stage_fails_alone() -> None:
    poison = wire.Submit(id="poison", prompt="[crash] please", steps=STEPS)
    with serving(*STUBS) as server, server.client() as client:
        outcome = run(client, [*prompts(3), poison, *[p for p in prompts() if p.seed and p.seed > 2]])
        failed = outcome.failed()
        assert list(failed) == ["poison"]
        assert failed["poison"].code == "stage_lost"
        assert len(outcome.images) == 8
        # Once, perhaps, with a neighbour that had been sent to the same process; then alone, twice.
        assert 2 <= next(s for s in client.status().stages if s.kind == "unet").restarts <= 3


def test_an_error_costs_one_job_and_not_the_stage() -> None:
    bad = wire.Submit(id="bad", prompt="[error] please", steps=STEPS)
    with serving(*STUBS) as server, server.client() as client:
        before = server.pids()
        outcome = run(client, [*prompts(2), bad])
        assert outcome.failed()["bad"].code == "stage_fault"
        assert "asked for by the prompt" in outcome.failed()["bad"].message
        assert len(run(client, [wire.Submit(id="next", prompt="again")]).images) == 1
        assert server.pids() == before


def test_an_error_that_names_no_job_costs_the_one_it_comes_back_with(
    undisturbed: dict[tuple[str, int], bytes],
) -> None:
    bad = wire.Submit(id="bad", prompt="[error] please", steps=STEPS)
    with serving(*STUBS, "stage.unet.implementation=tests.proc.stubs:NamesNobody") as server, server.client() as client:
        innocents = prompts()
        outcome = run(client, [*innocents[:4], bad, *innocents[4:]])
        assert list(outcome.failed()) == ["bad"]
        assert outcome.failed()["bad"].code == "stage_fault"
        assert outcome.images == undisturbed


def test_previews_that_raise_cost_a_line_and_nothing_else() -> None:
    watched = wire.Submit(id="watched", prompt="a cat [slow]", steps=STEPS, preview_every=1)
    with serving(*STUBS, "stage.vae.implementation=tests.proc.stubs:BadPreviews") as server, server.client() as client:
        before = server.pids()
        assert len(run(client, [watched, *prompts(2)]).images) == 3
        assert server.pids() == before
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[1].count("no luck with this preview") == 1


@pytest.mark.parametrize(
    ("stub", "cause"), [("ExitsAtLoad", "exited with status 7"), ("RefusesToLoad", "no luck with this machine")]
)
def test_a_stage_that_never_loads_ends_the_server_with_the_cause(stub: str, cause: str) -> None:
    overrides = (*STUBS, f"stage.unet.implementation=tests.proc.stubs:{stub}")
    with serving(*overrides, ready=False) as server:
        status, stderr = server.end()
    assert status == 3
    errors = [line for line in stderr.splitlines() if line.startswith("triptych: error:")]
    assert len(errors) == 1
    assert cause in errors[0]


@pytest.mark.parametrize(
    "wrong", ["tests.nosuch:Stub", "tests.proc.stubs:NoSuch", "tests.proc.stubs:encode", "tests.proc.stubs", "a b:C"]
)
def test_a_wrong_implementation_is_tried_once_and_named(wrong: str) -> None:
    with serving(*STUBS, f"stage.unet.implementation={wrong}", ready=False) as server:
        status, stderr = server.end()
    assert status == 2
    errors = [line for line in stderr.splitlines() if line.startswith("triptych: error:")]
    assert len(errors) == 1
    assert f"stage.unet.implementation: {wrong!r} " in errors[0]
    assert stderr.count("exited with status") == 1
    assert "Traceback" not in stderr


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.mark.parametrize(
    ("socket", "loaded"), [("abstract", False), ("abstract", True), ("file", False), ("file", True), ("tcp", False)]
)
def test_nothing_is_left_of_a_killed_orchestrator(socket: str, loaded: bool, tmp_path: Path) -> None:
    before = shared_memory()
    address = {"abstract": None, "file": f"ipc://{tmp_path}/socket", "tcp": "tcp://127.0.0.1:*"}[socket]
    with serving(*STUBS, address=address) as server, ExitStack() as stack:
        children = server.children()
        if loaded:
            client = stack.enter_context(server.client())
            for prompt in prompts(8, "[slow]"):
                client.send(prompt)
            assert client.receive(10.0) is not None
        assert len(children) >= 3
        server.process.kill()
        eventually(lambda: not any(map(alive, children)), "all stages gone", 5.0)
        eventually(lambda: not list(tmp_path.iterdir()), "socket file gone", 5.0)
    assert shared_memory() <= before


def test_sigterm_under_load_finishes_what_was_accepted() -> None:
    with serving(*STUBS) as server, server.client() as client:

        def stop(message: wire.HubMessage) -> None:
            if isinstance(message, wire.Accepted) and message.id == "job-7":
                server.process.send_signal(signal.SIGTERM)

        outcome = run(client, prompts(), stop)
        assert len(outcome.images) == 8
        assert not outcome.failed()
        status, _ = server.end()
        assert status == 0


def test_sigterm_answers_what_it_cannot_finish() -> None:
    with serving(*STUBS, "deadlines.drain_s=0.3") as server, server.client() as client:

        def stop(message: wire.HubMessage) -> None:
            if isinstance(message, wire.Accepted) and message.id == "job-7":
                server.process.send_signal(signal.SIGTERM)

        outcome = run(client, prompts(8, "[slow]"), stop)
        codes = {failed.code for failed in outcome.failed().values()}
        assert codes == {"shutting_down"}
        assert all(failed.retryable for failed in outcome.failed().values())
        status, _ = server.end()
        assert status == 0


def test_a_draining_server_takes_nothing_in() -> None:
    with serving(*STUBS) as server, server.client() as client:
        late = wire.Submit(id="late", prompt="too late")

        def stop(message: wire.HubMessage) -> None:
            if isinstance(message, wire.Progress) and message.step == 1 and not outcome_sent:
                server.process.send_signal(signal.SIGTERM)
                eventually(lambda: client_state(server) == "draining", "draining")
                outcome_sent.append(True)
                client.send(late)

        outcome_sent: list[bool] = []
        outcome = run(client, [*prompts(1, "[slow]")], stop)
        while "late" not in outcome.terminal:
            event = client.receive(10.0)
            assert event is not None
            outcome.take(event)
        assert outcome.failed()["late"].code == "shutting_down"


def client_state(server: Server) -> str:
    with server.client() as client:
        return client.status().state


def test_a_second_sigint_ends_everything_at_once() -> None:
    with serving(*STUBS) as server, server.client() as client:
        children = list(server.pids().values())
        for prompt in prompts(8, "[slow]"):
            client.send(prompt)
        assert client.receive(10.0) is not None
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: client_state(server) == "draining", "draining")
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        status, _ = server.end()
        assert status == 130
        assert time.monotonic() - began < 5.0  # asked for: 2 s; generous for a noisy machine
        assert not any(map(alive, children))
