import io
from collections.abc import Callable

import pytest
from rich.console import Console

from orchestrator.cli.session import Session
from orchestrator.cli.terminal import live
from orchestrator.cli.terminal.live import Live
from stages.core import wire
from tests.unit.cli.test_session import done, due, failed, image, progress, submit, tell
from tests.unit.statuses import stage, status

Draw = Callable[..., list[str]]


def session(*messages: wire.HubMessage, prompts: int = 3) -> Session:
    session = Session(60.0)
    for number in range(prompts):
        session.add(submit("abcdef"[number]))
    due(session)
    tell(session, messages, now=10.0)
    return session


def drawn(
    session: Session,
    *,
    per_stage: bool,
    status: wire.Status | None = None,
    connected: bool = True,
    width: int = 100,
    now: float = 12.0,
) -> list[str]:
    """The lines of one drawing."""
    screen = Live(per_stage)
    screen._console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    lines = list(screen._lines(session, status, connected, now))
    with screen._console.capture() as capture:
        for line in lines:
            screen._console.print(line)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_while_stages_load_there_is_a_line_for_each() -> None:
    assert drawn(session(), per_stage=True, connected=False) == ["⠋ starting the pipeline"]
    loading = stage("unet-0", state="loading", cores_seen="")
    starting = status(state="starting", model="demo", stages=(loading,))
    assert drawn(session(), per_stage=True, status=starting) == ["⠋ loading demo", "  unet-0   loading    cores 0-1"]


@pytest.mark.parametrize(("state", "bold"), [("loading", False), ("backoff", False), ("idle", True)])
def test_only_a_stage_that_has_loaded_is_bold(state: str, bold: bool) -> None:
    assert live._loading(state) is not bold


def test_generate_has_a_bar_for_each_image_in_a_stage() -> None:
    now = session(progress("a", "vae"), progress("b", "unet", 12, 25), progress("c", "text"))
    lines = drawn(now, per_stage=False)
    assert [line.split()[1] for line in lines[:3]] == ["a", "b", "c"]
    assert [line.split()[-1] for line in lines[:3]] == ["vae", "12/25", "text"]
    assert lines[3].endswith(" 0 images")


def test_generate_counts_what_it_has_no_room_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MOST_ROWS", 1)
    now = session(progress("a", "unet", 1, 2), progress("b", "text"), image("c"), done("c"))
    now.all_asked = True
    lines = drawn(now, per_stage=False)
    assert len(lines) == 2
    assert lines[1].endswith("1 of 3 images, 0.50 images/s")


def test_stream_has_a_line_for_each_stage_with_what_it_holds() -> None:
    now = session(progress("a", "vae"), progress("b", "unet", 12, 25), progress("c", "text"), prompts=5)
    text, unet, vae, whole = drawn(now, per_stage=True)
    assert text.split() == ["text", "prompt", "c"]
    assert unet.split()[:3] == ["unet", "prompt", "b"]
    assert unet.endswith("unet 12/25")
    assert vae.split()[:3] == ["vae", "prompt", "a"]
    assert whole.endswith("0 images, 2 waiting")


def test_a_stage_is_said_to_hold_the_unet_s_first_and_the_others_last() -> None:
    now = session(progress("a", "unet", 1, 25), progress("b", "text"), progress("c", "vae"), prompts=6)
    tell(now, [progress("d", "unet", 1, 25), progress("e", "text"), progress("f", "vae")], now=11.0)
    text, unet, vae, _ = drawn(now, per_stage=True)
    assert [line.split()[2] for line in (text, unet, vae)] == ["e", "a", "f"]


def test_stream_counts_failures_and_knows_the_whole_once_all_is_read() -> None:
    now = session(progress("a", "vae"), image("a"), done("a"), failed("b", "stage_lost"))
    now.all_asked = True
    whole = drawn(now, per_stage=True)[-1]
    assert "1 of 3 images, 0.50 images/s, 1 waiting, 1 failed" in whole
    assert "━" in whole


def test_what_a_stage_held_last_stays_in_view() -> None:
    screen = Live(per_stage=True)
    screen._console = Console(file=io.StringIO(), width=100, color_system=None)
    now = session(progress("a", "text"))
    for _ in screen._lines(now, status(), True, 12.0):
        pass
    tell(now, [progress("a", "unet", 0, 25)], now=13.0)
    with screen._console.capture() as capture:
        for line in screen._lines(now, status(), True, 14.0):
            screen._console.print(line)
    assert capture.get().splitlines()[0].split() == ["text", "prompt", "a"]


def test_prompts_obey_nobody_and_fit() -> None:
    wild = Session(60.0)
    wild.add(wire.Submit(id="a", prompt="[red]x\x1b[31m\n" + "y" * 500))
    due(wild)
    tell(wild, [progress("a", "unet", 1, 2)], now=1.0)
    for per_stage in (True, False):
        for width in (60, 80, 200):
            lines = drawn(wild, per_stage=per_stage, width=width)
            assert all(len(line) <= width for line in lines)
            assert len(lines) == (4 if per_stage else 1)
            assert "[red]x [31m y" in "".join(lines)
