import errno
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.__main__ import main
from orchestrator.cli.session import WINDOW
from orchestrator.cli.terminal.report import PlainReport
from orchestrator.client import Client, liveness
from stages.core import wire
from tests.unit.fake_hub import DEADLINE_S, Answer, FakeHub, failing, painted
from tests.unit.statuses import status

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        monkeypatch.setenv("TRIPTYCH_CONNECT", hub.address)
        monkeypatch.delenv("TRIPTYCH_CONFIG", raising=False)
        yield hub


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIPTYCH_OUT", str(tmp_path / "out"))
    return tmp_path / "out"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_generate_writes_every_picture_and_says_where(hub: FakeHub, out: Path, capsys: Captured) -> None:
    assert main(["generate", "a cat", "a dog", "-n", "2", "--seed", "7"]) == 0
    assert files(out) == {
        "0001-a-cat-7.png": b"a cat 0",
        "0002-a-cat-8.png": b"a cat 1",
        "0003-a-dog-7.png": b"a dog 0",
        "0004-a-dog-8.png": b"a dog 1",
    }
    printed, err = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0] == f"{out}/0001-a-cat-7.png  seed 7, 1.2 s"
    assert lines[-1].startswith("4 images in ")
    assert "images/s" in lines[-1]
    assert str(out) in lines[-1]
    assert (len(lines), err) == (5, "")


def test_the_options_reach_the_server(hub: FakeHub, out: Path) -> None:
    words = ["--negative", "blurry", "--steps", "9", "--guidance", "2.5", "--size", "64x128", "--schedule", "euler"]
    words += ["--guidance-rescale", "0.5", "--format", "webp", "--seed", "3"]
    words += ["--syntax", "a1111", "--clip-skip", "2"]
    assert main(["generate", "a cat", *words]) == 0
    (submit,) = hub.submits()
    assert submit == wire.Submit(
        id=submit.id,
        prompt="a cat",
        negative_prompt="blurry",
        steps=9,
        guidance_scale=2.5,
        guidance_rescale=0.5,
        seed=3,
        width=64,
        height=128,
        schedule="euler",
        syntax="a1111",
        clip_skip=2,
        output_format="webp",
    )
    assert list(files(out)) == ["0001-a-cat-3.webp"]


def test_what_is_left_out_is_the_models(hub: FakeHub, out: Path) -> None:
    assert main(["generate", "a cat"]) == 0
    (submit,) = hub.submits()
    assert submit == wire.Submit(id=submit.id, prompt="a cat")
    assert len(submit.id) == 32


def test_json_is_one_object_a_picture_and_nothing_else(hub: FakeHub, out: Path, capsys: Captured) -> None:
    assert main(["generate", "ein Kätzchen", "--json", "--seed", "7"]) == 0
    printed, err = capsys.readouterr()
    (found,) = objects(printed)
    (submit,) = hub.submits()
    assert found == {
        "id": submit.id,
        "index": 0,
        "prompt": "ein Kätzchen",
        "path": str(out / "0001-ein-kätzchen-7.png"),
        "seed": 7,
        "width": 8,
        "height": 8,
        "sha256": hashlib.sha256("ein Kätzchen 0".encode()).hexdigest(),
        "timings": {"queue_s": 5.0, "text_s": 0.1, "unet_s": 0.2, "vae_s": 0.3, "total_s": 6.2},
    }
    assert err == ""


@pytest.mark.parametrize(("code", "exit_status"), [("stage_lost", 1), ("bad_request", 2), ("overloaded", 1)])
def test_a_failure_is_told_and_the_others_go_on(
    code: str, exit_status: int, hub: FakeHub, out: Path, capsys: Captured
) -> None:
    hub.answers = failing(code, "a cat")
    assert main(["generate", "a cat", "a dog", "--seed", "7"]) == exit_status
    printed, err = capsys.readouterr()
    assert err == "triptych: error: a cat: the reason\n"
    assert list(files(out)) == ["0002-a-dog-7.png"]
    assert ", 1 failed" in printed.splitlines()[-1]


def test_a_failure_in_json_is_an_object(hub: FakeHub, out: Path, capsys: Captured) -> None:
    hub.answers = failing("stage_lost", "a cat")
    assert main(["generate", "a cat", "--json"]) == 1
    printed, err = capsys.readouterr()
    (found,) = objects(printed)
    (submit,) = hub.submits()
    assert found == {"id": submit.id, "code": "stage_lost", "message": "the reason", "prompt": "a cat"}
    assert err == ""


def stream(tmp_path: Path, lines: str, *words: str) -> int:
    (tmp_path / "prompts").write_text(lines)
    return main(["stream", str(tmp_path / "prompts"), "--json", *words])


def test_stream_reads_prompts_and_objects(hub: FakeHub, out: Path, tmp_path: Path, capsys: Captured) -> None:
    lines = 'a cat\n\n{"prompt": "a dog", "id": "mine", "seed": 9, "output_format": "jpeg"}\n'
    assert stream(tmp_path, lines, "--steps", "4", "--seed", "7") == 0
    assert [(s.prompt, s.steps, s.seed) for s in hub.submits()] == [("a cat", 4, 7), ("a dog", 4, 9)]
    assert [found["seed"] for found in objects(capsys.readouterr().out)] == [7, 9]
    assert hub.submits()[1].id == "mine"
    assert list(files(out)) == ["0001-a-cat-7.png", "0002-a-dog-9.jpg"]


def test_a_bad_line_fails_alone_and_is_named(hub: FakeHub, out: Path, tmp_path: Path, capsys: Captured) -> None:
    assert stream(tmp_path, 'a cat\n{"prompt": 3, "id": "x"}\n{oops\na dog\n') == 1
    found = objects(capsys.readouterr().out)
    failures = [entry for entry in found if "code" in entry]
    assert [(entry["id"], entry["code"]) for entry in failures] == [("x", "bad_request"), (None, "bad_request")]
    assert [str(entry["message"]).partition(":")[0] for entry in failures] == ["line 2", "line 3"]
    assert [submit.prompt for submit in hub.submits()] == ["a cat", "a dog"]
    assert len(files(out)) == 2


def test_a_prompt_refused_for_lack_of_room_is_sent_again(
    hub: FakeHub, out: Path, tmp_path: Path, capsys: Captured
) -> None:
    refused: list[str] = []

    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.Submit) and message.prompt not in refused:
            refused.append(message.prompt)
            yield wire.Failed(id=message.id, code="overloaded", message="later", retryable=True)
        else:
            yield from painted(message)

    hub.answers = answers
    assert stream(tmp_path, "a\nb\nc\n") == 0
    assert sorted(str(found["prompt"]) for found in objects(capsys.readouterr().out)) == ["a", "b", "c"]
    assert len(hub.submits()) == 6


def test_no_more_is_sent_than_the_window_holds(
    hub: FakeHub, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(liveness.ASK_S, "serving", 0.0)
    unanswered: list[wire.Submit] = []
    most = 0

    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        nonlocal most
        if isinstance(message, wire.StatusRequest):
            yield status()  # asked in silence: nothing more will be sent
            for submit in unanswered:
                yield from painted(submit)
            unanswered.clear()
        elif isinstance(message, wire.Submit):
            unanswered.append(message)
            most = max(most, len(unanswered))

    hub.answers = answers
    assert stream(tmp_path, "a cat\n" * 70) == 0
    assert most == WINDOW
    assert len(files(out)) == 70


def test_a_line_is_sent_while_the_next_one_is_not_there_yet(
    hub: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    ours, theirs = os.pipe()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: ours))
    seen: list[int] = []

    def write() -> None:
        for number, line in enumerate((b"a cat\n", b"a dog"), start=1):
            os.write(theirs, line)
            if number == 1:
                seen.append(hub.wait_for(lambda: len(hub.submits()) == 1))
        os.close(theirs)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert main(["stream", "-", "--json"]) == 0
    finally:
        writer.join(DEADLINE_S)
        os.close(ours)
    assert seen == [True]
    assert [found["prompt"] for found in objects(capsys.readouterr().out)] == ["a cat", "a dog"]


def test_a_file_that_is_not_there_is_an_error_of_usage(out: Path, capsys: Captured) -> None:
    assert main(["stream", "/nonexistent/prompts"]) == 2
    assert capsys.readouterr().err == "triptych: error: /nonexistent/prompts: No such file or directory\n"


def test_a_folder_of_prompts_is_an_error_of_usage(hub: FakeHub, out: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["stream", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"triptych: error: {tmp_path}: a folder; name a file of prompts in it\n"
    assert hub.received == []


def test_a_trace_that_cannot_be_written_is_told_before_anything_is_asked(
    hub: FakeHub, out: Path, tmp_path: Path, capsys: Captured
) -> None:
    for words in (["generate", "a cat", "--trace"], ["trace", "-o"]):
        assert main([*words, str(tmp_path / "none" / "t.json")]) == 2
        assert "cannot write the trace to" in capsys.readouterr().err
    assert hub.received == []


def test_a_full_disk_is_one_line_and_a_failure(
    hub: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def full(path: Path, content: bytes) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("orchestrator.cli.terminal.pictures._write_new", full)
    assert main(["generate", "a cat"]) == 1
    assert capsys.readouterr().err.endswith(": No space left on device; make room there, or choose another -o\n")


def test_ctrl_c_gives_up_what_is_outstanding(
    hub: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.Submit) and message.prompt == "slow":
            return
        yield from painted(message)

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    hub.answers = answers
    monkeypatch.setattr(PlainReport, "picture", press)
    assert main(["generate", "slow", "a cat"]) == 130
    slow = hub.submits()[0]
    assert hub.wait_for(lambda: wire.Cancel(id=slow.id) in hub.received)
    assert capsys.readouterr().err == ""


def test_a_trace_is_asked_for_and_written(hub: FakeHub, out: Path, tmp_path: Path) -> None:
    assert main(["generate", "a cat", "--trace", str(tmp_path / "t.json")]) == 0
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert [event["args"]["prompt"] for event in events if event["ph"] == "X"] == ["a cat"]


def test_nothing_listens(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr("orchestrator.cli.connection.Client", partial(Client, connect_s=0.0))
    address = f"ipc://{tmp_path}/nobody"
    assert main(["generate", "a cat", "--connect", address]) == 3
    assert f"nothing listens at {address}" in capsys.readouterr().err


def test_another_server_at_the_same_address_is_noticed(
    hub: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    pids = iter(range(10))

    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.StatusRequest):
            yield status(hub_pid=next(pids))

    hub.answers = answers
    monkeypatch.setitem(liveness.ASK_S, "serving", 0.0)
    assert main(["generate", "a cat"]) == 3
    assert "was restarted" in capsys.readouterr().err


def test_a_silent_server_is_given_up(
    hub: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    hub.answers = lambda message: iter(())
    monkeypatch.setattr("orchestrator.cli.connection.Client", partial(Client, silence_s=0.3))
    assert main(["generate", "a cat"]) == 3
    assert "silent" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_told_before_anything_is_asked(
    hub: FakeHub, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "file").touch()
    assert main(["generate", "a cat", "-o", str(tmp_path / "file" / "out")]) == 2
    assert hub.received == []


def test_status_shows_what_the_server_says(hub: FakeHub, capsys: Captured) -> None:
    assert main(["status", "--json"]) == 0
    (found,) = objects(capsys.readouterr().out)
    assert found["state"] == "serving"
    assert found["queue"] == {"waiting": 0, "limit": 64}
    assert "type" not in found
    assert main(["status"]) == 0
    assert "queue 0 of 64" in capsys.readouterr().out


def test_status_is_watched_until_ctrl_c(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        yield status()

    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    hub.answers = answers
    monkeypatch.setattr("orchestrator.cli.commands.status.time", SimpleNamespace(sleep=nap))
    assert main(["status", "--watch", "--json"]) == 130
    assert len(objects(capsys.readouterr().out)) == 3
    naps.clear()
    assert main(["status", "--watch"]) == 130
    assert naps == [1.0, 1.0, 1.0]
