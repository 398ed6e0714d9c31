"""`triptych check` starts the pipeline, so it tells what the embedded model does here, not what was meant."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.__main__ import main
from stages.core import cores
from tests.cpu import needs_bf16
from tests.proc.stubs import StubUnet
from tests.server import STUBS, alive, eventually

Captured = pytest.CaptureFixture[str]
Check = Callable[..., tuple[int, dict[str, Any], str]]


class FallsBack(StubUnet):
    """Says at load what the runtime says when a model fails its self-test."""

    precision = "f32"

    def load(self) -> None:
        super().load()
        print("unet fails its self-test in bf16 on this CPU; f32 is used", file=sys.stderr, flush=True)


@pytest.fixture
def check(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run `check --json` with overrides: (status, the object, stderr). No outcome of a self-test is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TRIPTYCH_CONFIG", raising=False)

    def run(*overrides: str) -> tuple[int, dict[str, Any], str]:
        status = main(["check", "--json", *(f"--set={override}" for override in overrides)])
        out, err = capsys.readouterr()
        return status, json.loads(out), err

    return run


def test_every_stage_is_seen_as_it_runs(check: Check) -> None:
    status, found, err = check("model.precision=f32", "stage.unet.threads=1")
    assert (status, err, found["error"]) == (0, "", None)
    assert found["trial"]["remarks"] == [], "neither a stage has anything to say, nor a library below it"
    stages = found["trial"]["stages"]
    assert [stage["name"] for stage in stages] == ["text-0", "unet-0", "vae-0"]
    for stage in stages:
        assert stage["precision"] == "f32"
        assert stage["cores_seen"] == stage["cores_asked"] == cores.render(cores.allowed())
        assert 0 < stage["load_s"] <= found["trial"]["start_s"]
        assert 10 << 20 < stage["pss_bytes"] <= stage["rss_bytes"]
        assert stage["restarts"] == 0
    assert stages[1]["threads"] == 1
    assert sum(stage["pss_bytes"] for stage in stages) < found["memory"]["needed_bytes"]
    eventually(lambda: not any(alive(stage["pid"]) for stage in stages), "all stages gone", 10.0)


@needs_bf16
def test_the_numerics_are_tested(check: Check, tmp_path: Path) -> None:
    status, found, _ = check("model.precision=bf16")
    assert status == 0
    assert {stage["precision"] for stage in found["trial"]["stages"]} == {"bf16"}
    outcomes = [json.loads(path.read_text()) for path in (tmp_path / "triptych" / "numerics").glob("*.json")]
    tested = {Path(outcome["model"]).parent.name for outcome in outcomes}
    assert tested == {"text_encoder", "unet", "vae_decoder"}


@pytest.mark.parametrize("asked", ["f16", "bf16"])
def test_a_precision_that_the_cpu_does_not_compute_in_is_told(asked: str, check: Check) -> None:
    status, found, err = check(f"model.precision={asked}")
    assert (status, err) == (0, "")
    line = "{}: model.precision is {}, which this CPU does not compute in; {} is used (name that one, or auto)"
    assert sorted(found["trial"]["remarks"]) == [
        line.format(stage["name"], asked, stage["precision"])
        for stage in found["trial"]["stages"]
        if stage["precision"] != asked
    ]


def test_a_fallback_is_told(check: Check, capsys: Captured) -> None:
    overrides = (*STUBS, "stage.unet.implementation=tests.model.test_check:FallsBack")
    status, found, _ = check(*overrides)
    assert status == 0
    assert [stage["precision"] for stage in found["trial"]["stages"]] == ["stub", "f32", "stub"]
    told = "unet-0: unet fails its self-test in bf16 on this CPU; f32 is used"
    assert found["trial"]["remarks"] == [told]
    assert main(["check", *(f"--set={override}" for override in overrides)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert told in out
    assert "serves after " in out


@pytest.mark.parametrize(
    ("stub", "expected", "says"),
    [("ExitsAtLoad", 3, "exited with status 7"), ("NoSuchStage", 2, "stage.unet.implementation")],
)
def test_what_does_not_start_is_one_line_and_its_status(stub: str, expected: int, says: str, check: Check) -> None:
    status, found, err = check(*STUBS, f"stage.unet.implementation=tests.proc.stubs:{stub}", "load_attempts=1")
    assert status == expected
    assert err.startswith("triptych: error: unet-0")
    assert err.count("\n") == 1
    assert says in err
    assert found["trial"] is None
    assert found["error"]["message"] in err
