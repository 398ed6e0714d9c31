"""Traces, opened in Perfetto itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.client.launch import private_pipeline
from tests.parity.perfetto import BROWSER, Perfetto, opened

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine, in which Perfetto could run")

JOBS, STEPS = 4, 6


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `triptych trace` and `triptych stream --trace` wrote of the embedded model at work."""
    folder = tmp_path_factory.mktemp("traces")
    paths = {name: folder / f"{name}.json" for name in ("trace", "stream")}
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"a fox {number}\n" for number in range(JOBS)))
    with private_pipeline(None, ["stage.unet.streams=2"]) as pipeline:
        there = ["--connect", pipeline.address]
        words = ["stream", str(prompts), *there, "--steps", f"{STEPS}", "-o", str(folder), "--trace"]
        assert main([*words, str(paths["stream"])]) == 0
        assert main(["trace", *there, "-o", str(paths["trace"])]) == 0
    return paths


@pytest.fixture(scope="module", params=["trace", "stream"])
def perfetto(
    request: pytest.FixtureRequest, traces: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Perfetto]:
    """The page that has opened one of them."""
    with opened(traces[request.param], tmp_path_factory.mktemp("browser")) as page:
        yield page


def test_nothing_is_lost_doubtful_or_repaired(perfetto: Perfetto) -> None:
    """Perfetto counts what it had to drop or mend while it imported; the page warns of these counts."""
    assert perfetto.query("select name, severity, value from stats where severity != 'info' and value > 0") == []


def test_every_stage_is_a_process_with_its_work(perfetto: Perfetto) -> None:
    found = perfetto.query(
        "select process.name as stage, count() as slices from slice join thread_track on track_id = thread_track.id "
        "join thread using (utid) join process using (upid) where dur >= 0 group by 1"
    )
    counts = {row["stage"].split()[0]: row["slices"] for row in found}
    assert {"text-0", "unet-0", "vae-0"} <= counts.keys()
    assert counts["unet-0"] >= JOBS * STEPS
    assert counts["vae-0"] >= JOBS


def test_no_slice_lies_within_another(perfetto: Perfetto) -> None:
    """Tracks hold what comes one after the other; a slice that began before the last one ended would be nested."""
    assert perfetto.query("select name, depth from slice where depth > 0") == []


def test_arrows_lead_every_job_from_stage_to_stage(perfetto: Perfetto) -> None:
    [found] = perfetto.query("select count() as arrows from flow")
    assert found["arrows"] >= 2 * JOBS


def test_depths_and_memory_of_the_whole_pipeline_are_counters(traces: dict[str, Path], tmp_path: Path) -> None:
    with opened(traces["trace"], tmp_path) as perfetto:
        names = {row["name"] for row in perfetto.query("select distinct name from counter_track")}
    assert {"images waiting", "arena slots in use", "memory MiB"} <= names
