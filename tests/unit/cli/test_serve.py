import io
import json
from collections.abc import Callable, Sequence

import msgspec
import pytest
from rich.console import Console

from orchestrator.__main__ import main
from orchestrator.cli.commands import serve, status
from orchestrator.hub import hub
from orchestrator.hub.child_spec import ChildSpec
from orchestrator.hub.hub import Ready
from orchestrator.output import CannotWrite
from stages.core import wire
from stages.core.config import Config
from stages.core.errors import StartFailed
from tests.unit.statuses import stage


def busy(kind: wire.Kind) -> wire.StageStatus:
    return stage(
        f"{kind}-0",
        precision="bf16" if kind == "unet" else "f32",
        job="0123456789abcdef",
        step=12,
        steps=25,
        busy_share=0.5,
        restarts=1,
        rss_bytes=3 << 30,
        pss_bytes=2 << 30,
        cpu_outside_infer_share=0.012,
    )


READY = Ready(
    address="tcp://127.0.0.1:7801", model="demo", load_s=3.14, stages=(busy("text"), busy("unet"), busy("vae"))
)

STATUS = wire.Status(
    state="serving",
    uptime_s=3725.0,
    model="demo",
    queue=wire.QueueStatus(3, 64),
    arena=wire.ArenaStatus(10, 4),
    stages=READY.stages,
    hop_us=wire.HopStatus(61.2, 3000.4),
    hub_pid=99,
    hub_cpu_s=0.5,
)


def test_the_ready_line_says_where_what_and_on_which_cores() -> None:
    assert serve.line(READY, as_json=False) == (
        "triptych: ready at tcp://127.0.0.1:7801 with demo, text 0-1 | unet 0-1 | vae 0-1, loaded in 3.1 s"
    )


def test_replicas_are_told_apart() -> None:
    two = msgspec.structs.replace(READY, stages=(*READY.stages, stage("unet-1")))
    assert "text 0-1 | unet-0 0-1 | vae 0-1 | unet-1 0-1" in serve.line(two, as_json=False)


def test_the_ready_line_for_programs_is_one_object() -> None:
    line = serve.line(READY, as_json=True)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["address"], found["model"], found["load_s"]) == ("tcp://127.0.0.1:7801", "demo", 3.14)
    assert found["stages"][1]["cores_seen"] == "0-1"


def test_serve_hands_over_the_configuration_and_the_life_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[object] = []

    def fake(
        config: Config,
        *,
        ready: Callable[[Ready], None],
        lifeline: int | None = None,
        beside: Callable[[str], Sequence[ChildSpec]] = hub.none_beside,
    ) -> int:
        served.extend((config.pipeline.queue_limit, lifeline, len(beside("ipc://x"))))
        ready(READY)
        return 0

    monkeypatch.setattr(hub, "serve", fake)
    monkeypatch.delenv("TRIPTYCH_CONFIG", raising=False)
    assert main(["serve", "--set", "pipeline.queue_limit=5", "--lifeline-fd", "17", "--json"]) == 0
    assert served == [5, 17, 0]
    assert capsys.readouterr().out == serve.line(READY, as_json=True) + "\n"


@pytest.mark.parametrize("error", [BrokenPipeError(), CannotWrite("the disk is full")])
def test_a_ready_line_that_nobody_can_read_is_no_reason_not_to_serve(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(serve, "print", unwritable, raising=False)
    serve._say("ready")


def test_a_pipeline_that_does_not_start_is_status_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(*_: object, **__: object) -> int:
        raise StartFailed("unet-0 died three times")

    monkeypatch.setattr(hub, "serve", fake)
    assert main(["serve"]) == 3
    assert capsys.readouterr().err == "triptych: error: unet-0 died three times\n"


def rendered(width: int, found: wire.Status = STATUS) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(status.table(found, width))
    return capture.get()


@pytest.mark.parametrize("width", [80, 119, 120, 200])
def test_the_table_fits_and_shortens_nothing_but_ids(width: int) -> None:
    text = rendered(width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "…" not in text
    for words in ("unet-0", "123", "busy", "0-1", "01234567", "12/25", "50%", "2.0 GiB", "1.2%"):
        assert words in text
    assert "serving for 1 h 02 min" in text
    assert "computes in f32 (text-0, vae-0), bf16 (unet-0)" in text
    assert "queue 3 of 64" in text
    assert "4 of 10 slots free" in text
    assert "p50 61 us, p99 3000 us" in text


@pytest.mark.parametrize("width", [80, 200])
def test_cores_that_are_not_those_asked_for_are_shown(width: int) -> None:
    strayed = msgspec.structs.replace(busy("unet"), cores_seen="0-7")
    assert "0-7" in rendered(width, msgspec.structs.replace(STATUS, stages=(strayed,)))


def test_a_stage_that_is_not_there_has_dashes() -> None:
    gone = msgspec.structs.replace(
        busy("unet"), pid=None, job=None, cores_seen="", cpu_outside_infer_share=None, state="waiting"
    )
    hops = wire.HopStatus(None, None)
    text = rendered(160, msgspec.structs.replace(STATUS, stages=(gone,), hop_us=hops))
    assert text.count(" - ") >= 3
    assert "hops none yet" in text
