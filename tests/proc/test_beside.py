"""A child that is not essential, beside the stages: real processes, stub stages."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from stages.core import wire
from tests.server import STUBS, alive, eventually, run, serving

BACKOFF_S = 0.4

PROMPTS = [
    wire.Submit(id=f"job-{number}", prompt=f"picture {number} [slow]", seed=number, steps=8) for number in range(4)
]


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    path = tmp_path / "diary"
    path.touch()
    return path


def command(diary: Path, backoff_s: float = BACKOFF_S) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.proc.beside", str(diary), str(backoff_s))


def started(diary: Path, count: int) -> int:
    """The process id of the `count`th process, once it serves."""

    def pids() -> list[int]:
        return [int(line.split()[1]) for line in diary.read_text().splitlines() if line.startswith("serves")]

    return eventually(lambda: pids()[count - 1 :], f"process {count}")[0]


class Killer:
    """Kills the child whenever it serves, three times in all."""

    def __init__(self, diary: Path) -> None:
        self.diary = diary
        self.back_after_s: list[float] = []
        """Seconds from each death to the next process that serves."""

    def __call__(self, message: wire.HubMessage) -> None:
        if not isinstance(message, wire.Progress) or self.back_after_s:
            return
        for count in (1, 2):
            os.kill(started(self.diary, count), signal.SIGKILL)
            died = time.monotonic()
            started(self.diary, count + 1)
            self.back_after_s.append(time.monotonic() - died)
        os.kill(started(self.diary, 3), signal.SIGKILL)


def test_it_may_die_three_times_and_be_given_up_while_every_prompt_is_served(diary: Path) -> None:
    with serving(*STUBS) as server, server.client() as client:
        undisturbed = run(client, PROMPTS).images
    with serving(*STUBS, command=command(diary)) as server, server.client() as client:
        killer = Killer(diary)
        outcome = run(client, PROMPTS, killer)
        assert not outcome.failed()
        assert outcome.images == undisturbed
        assert killer.back_after_s[1] >= BACKOFF_S
        status = client.status()
        assert [stage.name for stage in status.stages] == ["text-0", "unet-0", "vae-0"]
        assert [stage.restarts for stage in status.stages] == [0, 0, 0]
        eventually(lambda: len(server.children()) == 3, "only the stages left")
        assert len(run(client, [wire.Submit(id="after", prompt="without it")]).images) == 1
        server.process.send_signal(signal.SIGTERM)
        code, stderr = server.end()
    assert code == 0
    assert stderr.count("died of SIGKILL\n") == 3
    told = [line for line in stderr.splitlines() if "given up" in line]
    assert told == [
        "triptych: diarist is given up, and all else goes on without it: "
        "diarist died of SIGKILL: 3 deaths in service within 600 s"
    ]
    assert len(diary.read_text().splitlines()) == 3


def test_it_is_told_where_prompts_go_and_leaves_when_the_pipeline_stops(diary: Path) -> None:
    with serving(*STUBS, command=command(diary)) as server:
        pid = started(diary, 1)
        server.process.send_signal(signal.SIGTERM)
        code, stderr = server.end()
        assert code == 0
        assert diary.read_text().splitlines() == [f"serves {pid} {server.address}", f"leaves {pid}"]
        assert "diarist (process" not in stderr
        assert not alive(pid)


def test_it_leaves_when_the_orchestrator_is_killed(diary: Path) -> None:
    with serving(*STUBS, command=command(diary)) as server:
        pid = started(diary, 1)
        children = server.children()
        assert pid in children
        server.process.kill()
        eventually(lambda: not any(map(alive, children)), "all children gone", 5.0)
        assert diary.read_text().splitlines()[-1] == f"leaves {pid}"


def test_what_waits_to_be_started_again_delays_no_stop(diary: Path) -> None:
    with serving(*STUBS, command=command(diary, backoff_s=20.0)) as server:
        os.kill(started(diary, 1), signal.SIGKILL)
        os.kill(started(diary, 2), signal.SIGKILL)
        eventually(lambda: len(server.children()) == 3, "its death noticed")
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0
    assert len(diary.read_text().splitlines()) == 2
