import json

import msgspec
import pytest

from orchestrator.__main__ import main
from orchestrator.cli.commands import check
from orchestrator.cli.terminal.units import images, memory
from orchestrator.plan import Machine
from stages.core.model import demo_folder

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Four cores, a gigabyte, and no configuration lying about."""
    monkeypatch.delenv("TRIPTYCH_CONFIG", raising=False)
    here = Machine(frozenset(range(4)), float("inf"), 1 << 30)
    _use(here, monkeypatch)
    return here


def _use(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.Machine, "here", lambda: machine)


def test_the_plan_is_told_to_programs(capsys: Captured) -> None:
    assert (
        main(["check", "--no-start", "--json", "--set", "pipeline.share=disjoint", "--set", "stage.vae.threads=1"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["path"] == str(demo_folder())
    assert found["model"]["native_size"] == "128x128"
    assert found["share"] == "disjoint"
    assert [stage["name"] for stage in found["stages"]] == ["text-0", "unet-0", "vae-0"]
    assert found["stages"][1]["cores"] == "1-2"
    weights = sum(path.stat().st_size for path in demo_folder().glob("*/openvino_model.bin"))
    encoder = (demo_folder() / "vae_encoder" / "openvino_model.bin").stat().st_size
    assert found["memory"]["weights_bytes"] == weights - encoder
    assert found["memory"]["needed_bytes"] > 2 * found["memory"]["weights_bytes"] + found["arena"]["bytes"]
    slots = sum(pool["slots"] * pool["slot_bytes"] for pool in found["arena"]["pools"])
    assert slots <= found["arena"]["bytes"]


def test_a_second_unet_needs_its_own_weights(capsys: Captured) -> None:
    assert main(["check", "--no-start", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)["memory"]["weights_bytes"]
    assert main(["check", "--no-start", "--json", "--set", "stage.unet.replicas=2"]) == 0
    two = json.loads(capsys.readouterr().out)["memory"]["weights_bytes"]
    assert two - one == (demo_folder() / "unet" / "openvino_model.bin").stat().st_size


def test_the_plan_is_told_to_people(capsys: Captured) -> None:
    assert main(["check", "--no-start"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("demo (SD)", "128x128", "timeslice", "cores 0-3, 4 threads", "tcp://127.0.0.1:7801"):
        assert words in out


def test_a_quota_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    _use(msgspec.structs.replace(machine, quota=1.5), monkeypatch)
    assert main(["check", "--no-start"]) == 0
    assert "1.5 of them granted" in capsys.readouterr().out


def test_too_little_memory_is_an_error_after_the_table(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    _use(msgspec.structs.replace(machine, memory_available=1 << 20), monkeypatch)
    assert main(["check", "--no-start"]) == 2
    out, err = capsys.readouterr()
    assert "demo (SD)" in out
    assert err.startswith("triptych: error: about ")
    assert "1.0 MiB are available" in err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.path=nosuch", "nosuch: no such model folder"),
        ('stage.unet.cores="77"', "stage.unet.cores: 77 cannot be used here"),
        ("pipeline.share=sometimes", "pipeline.share"),
        ("nonsense", "--set nonsense: write it like"),
    ],
)
def test_what_cannot_run_is_one_line_and_status_2(override: str, says: str, capsys: Captured) -> None:
    assert main(["check", "--no-start", "--set", override]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


def test_what_is_told_of_stages_is_kept_but_for_their_loading() -> None:
    stderr = """triptych: unet-0 loaded in 1.00 s on cores 0-1, 9 threads, bf16
triptych: text-0: scheduler_config.json: not honoured: x
triptych: text-0: scheduler_config.json: not honoured: x
triptych: unet-0 (process 7) died of SIGKILL
triptych: stopping: nothing is in work
noise
"""
    assert check.remarks(stderr, ["text-0", "unet-0"]) == (
        "text-0: scheduler_config.json: not honoured: x",
        "unet-0 (process 7) died of SIGKILL",
    )


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 << 10, "10 KiB"),
        (999 << 20, "999 MiB"),
        (1000 << 20, "1.0 GiB"),
        (5 << 40, "5120 GiB"),
    ],
)
def test_memory(nbytes: int, expected: str) -> None:
    assert memory(nbytes) == expected


def test_images() -> None:
    assert [images(number) for number in range(3)] == ["0 images", "1 image", "2 images"]
