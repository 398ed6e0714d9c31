import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cli.connection import connect
from orchestrator.cli.options import Private
from orchestrator.client import Client, launch
from orchestrator.client.launch import Pipeline, private_pipeline
from stages.core import wire
from stages.core.errors import ConfigError, StartFailed, TriptychError
from tests.unit.fake_hub import FakeHub
from tests.unit.statuses import status

DEADLINE_S = 20.0

Start = Callable[[str], Pipeline]


@pytest.fixture
def start() -> Iterator[Start]:
    """Run Python code where a pipeline would be."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as stderr:

        def run(code: str) -> Pipeline:
            child = subprocess.Popen([sys.executable, "-c", code], stderr=stderr, start_new_session=True)
            started.append(child)
            return Pipeline(child, "ipc://@nowhere", stderr)

        yield run
        for child in started:
            child.kill()
            child.wait(DEADLINE_S)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("print('noise\\ntriptych: error: the key\\nmore', file=sys.stderr); sys.exit(2)", ConfigError, "the key"),
        ("print('triptych: error: cause', file=sys.stderr); sys.exit(3)", StartFailed, "cause"),
        ("print('triptych: error: odd', file=sys.stderr); sys.exit(1)", StartFailed, "odd"),
        ("print('x' * 10**6 + '\\ntriptych: error: last', file=sys.stderr); sys.exit(3)", StartFailed, "last"),
        ("sys.exit(0)", StartFailed, "ended with status 0 without a word"),
        ("import os; os.kill(os.getpid(), 9)", StartFailed, "was killed by SIGKILL"),
    ],
)
def test_a_child_that_ended_says_why(code: str, kind: type[TriptychError], says: str, start: Start) -> None:
    pipeline = start(f"import sys; {code}")
    with pytest.raises(kind, match=says) as caught:
        pipeline.poll(DEADLINE_S)
    assert type(caught.value) is kind


def test_a_child_that_runs_is_left_alone(start: Start) -> None:
    start("import time; time.sleep(60)").poll()


def test_a_child_that_does_not_stop_is_killed_with_its_own(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_STOP_S", 0.1)
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    child = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; os.fork(); os.write({theirs}, b'x'); time.sleep(60)"],
        start_new_session=True,
        pass_fds=(theirs,),
    )
    os.close(theirs)
    try:
        for _ in range(2):  # both of them
            assert select.select([ours], [], [], DEADLINE_S)[0]
            os.read(ours, 1)
        with tempfile.TemporaryFile() as stderr:
            Pipeline(child, "ipc://@nowhere", stderr).stop()
        assert child.returncode == -signal.SIGKILL
        assert select.select([ours], [], [], DEADLINE_S)[0]
        assert os.read(ours, 1) == b""  # nobody holds the other end any more
    finally:
        os.close(ours)


def test_ctrl_c_ends_the_waiting_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = start("import time; time.sleep(60)")
    process = pipeline._process
    wait = process.wait

    def press(timeout: float | None = None) -> int:
        monkeypatch.setattr(process, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "wait", press)
    with pytest.raises(KeyboardInterrupt):
        pipeline.stop()
    assert process.returncode == -signal.SIGKILL


def test_a_pipeline_that_cannot_be_says_why_and_is_gone(tmp_path: Path) -> None:
    with private_pipeline(None, (f"model.path={tmp_path}",)) as pipeline:
        with pytest.raises(ConfigError, match=f"{tmp_path}/model_index.json"):
            pipeline.poll(DEADLINE_S)
        process = pipeline._process
    assert process.returncode == 2


def test_the_child_runs_our_code_whatever_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "orchestrator" / "__init__.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    with private_pipeline(None, ("model.path=nonexistent",)) as pipeline, pytest.raises(ConfigError, match="no such"):
        pipeline.poll(DEADLINE_S)


def test_a_mistake_in_the_configuration_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ConfigError, match="queue_limit"), connect(Private(None, ("pipeline.queue_limit=x",))):
        pass


def test_what_ended_our_pipeline_is_told_instead_of_silence(start: Start) -> None:
    pipeline = start("import sys; print('triptych: error: cause', file=sys.stderr); sys.exit(3)")
    with Client("ipc://@nobody", DEADLINE_S, pipeline=pipeline) as client:
        for ask in (client.status, client.wait_serving, lambda: client.submit(wire.Submit(id="a", prompt="a"))):
            with pytest.raises(StartFailed, match="cause"):
                ask()
        with pytest.raises(StartFailed, match="cause"):
            list(iter(lambda: client.receive(0.0), "never"))


def test_a_pipeline_that_takes_too_long_is_given_up(start: Start) -> None:
    pipeline = start("import time; time.sleep(60)")
    with FakeHub() as hub, Client(hub.address, DEADLINE_S, pipeline=pipeline) as client:
        hub.answers = lambda message: iter([status(state="starting")])
        with pytest.raises(StartFailed, match="not loaded within 0 s"):
            client.wait_serving(timeout_s=0.05)


def test_prompts_that_our_pipeline_lets_go_end_with_its_reason(start: Start) -> None:
    pipeline = start("import sys, time; print('triptych: error: cause', file=sys.stderr); sys.exit(3)")
    let_go = wire.Failed(id="a", code="shutting_down", message="stopped", retryable=True)
    with FakeHub() as hub, Client(hub.address, DEADLINE_S, pipeline=pipeline) as client:
        hub.answers = lambda message: iter([let_go])
        with pytest.raises(StartFailed, match="cause"):
            list(client.submit(wire.Submit(id="a", prompt="a")))
