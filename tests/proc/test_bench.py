"""`bench`, `trace` and the bottleneck line, with real processes and stages that are stubs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.bench.drive import play
from orchestrator.bench.measure import BenchTask, measure
from orchestrator.bench.workload import DEFAULT, Closed, arrivals
from orchestrator.trace import timeline
from orchestrator.trace.recording import Reported, forwards, jobs, visits
from stages.core import wire
from tests.server import DEADLINE_S, STUBS, Server, run, serving
from tests.unit.trace.test_timeline import check, names, slices

MIX = """
[[prompt]]
kind = "short"
weight = 3
prompt = "a fox"
steps = 2
[[prompt]]
kind = "long"
prompt = "a castle"
steps = 6
n = 2
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(*STUBS) as server:
        yield server


def triptych(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_left_alone_bench_has_as_many_prompts_out_as_the_stages_hold() -> None:
    wide = (*STUBS, "stage.unet.streams=2", "stage.unet.max_rows=3")
    ended = triptych("bench", *(f"--set={override}" for override in wide), "--jobs", "3", "--rounds", "1", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert [stage["depth"] for stage in found["config"]["stages"]] == [2, 2 * (3 // 2) + 1, 2]
    assert [level["arrivals"] for level in found["levels"]] == ["closed:7"]


def test_bench_starts_plays_measures_and_stops(tmp_path: Path) -> None:
    (tmp_path / "mix.toml").write_text(MIX)
    plot = tmp_path / "bench.png"
    ended = triptych(
        *("bench", *(f"--set={override}" for override in STUBS), "--mix", str(tmp_path / "mix.toml")),
        *("--jobs", "12", "--rounds", "2", "--arrivals", "closed:1,4", "--json", "--plot", str(plot)),
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert {"images_per_s", "latency_s", "first_image_s", "stages", "peak_pss_bytes", "config", "versions"} <= set(
        found
    )
    assert {"p50", "p90", "p99", "mean"} <= set(found["latency_s"])
    assert found["stages"].keys() == {"text", "unet", "vae"}
    assert 0 < found["stages"]["unet"]["busy_share"] <= 1
    assert 0 < found["start_s"] < found["first_image_s"]
    assert found["peak_pss_bytes"] > 30 << 20
    assert found["bottleneck"]["why"]
    assert [level["arrivals"] for level in found["levels"]] == ["closed:1", "closed:4"]
    assert found["images_per_s"] == max(level["figures"]["all"]["images_per_s"] for level in found["levels"])
    for level in found["levels"]:
        assert len(level["rounds"]) == 2
        assert level["figures"]["all"]["prompts"] == 24
        kinds = level["figures"]["kinds"]
        assert sum(kind["prompts"] for kind in kinds.values()) == 24
        assert kinds["long"]["images"] == 2 * kinds["long"]["prompts"]
    assert plot.stat().st_size > 10_000


def test_bench_shows_tables_of_a_running_server_and_what_it_refuses(server: Server) -> None:
    ended = triptych("bench", "--connect", server.address, "--jobs", "6", "--rounds", "1", "--arrivals", "poisson:200")
    assert (ended.returncode, ended.stderr) == (0, "")
    for words in ("poisson:200", "images/s", "unet", "hops: p50", "memory: at most", "limit: "):
        assert words in ended.stdout
    assert "first image" not in ended.stdout  # it was not started for this


def test_what_is_not_served_is_one_line(server: Server, tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text('[[prompt]]\nprompt = "a fox"\nwidth = 640\n')
    ended = triptych("bench", "--connect", server.address, "--mix", str(mix))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "640x128 is not served" in ended.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--arrivals", "open"), "write closed, closed:4"),
        (("--mix", "/none.toml"), "/none.toml: No such file"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], line: str) -> None:
    ended = triptych("bench", *words)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert line in ended.stderr


def test_progress_names_what_is_played_and_counts_to_the_end(server: Server) -> None:
    told: list[tuple[str, int, int]] = []
    task = BenchTask(mix=DEFAULT, levels=(Closed(2),), jobs=3, rounds=2, warm_up=1, seed=0)
    with server.client() as client:
        measure(client, task, client.status(), lambda what, ended, total: told.append((what, ended, total)))
    played = list(dict.fromkeys(what for what, _, _ in told))
    assert played == ["warm-up", "closed:2, round 1 of 2", "closed:2, round 2 of 2"]
    assert told[-1][1:] == (7, 7)


def test_a_load_is_sent_whatever_becomes_of_it(server: Server) -> None:
    with server.client() as client:
        played = play(client, arrivals(DEFAULT, Closed(), 8, 1), 3)
    assert [record.code for record in played.records] == [None] * 8
    for record in played.records:
        assert record.accepted_s is not None
        assert record.first_image_s is not None
        assert record.done_s is not None
        assert 0 <= record.due_s <= record.sent_s <= record.accepted_s <= record.first_image_s <= record.done_s
    assert played.span_s == pytest.approx(max(record.done_s or 0 for record in played.records), abs=0.05)


def test_a_recording_tells_what_became_of_every_prompt(server: Server) -> None:
    with server.client() as client:
        prompts = [wire.Submit(id=f"told {number}", prompt=f"prompt {number}", steps=3, n=2) for number in range(4)]
        run(client, prompts)
        told = client.trace(60.0)
    mine = {number for number, sent in jobs(told).items() if sent.id.startswith("told")}
    assert len(mine) == 8
    work = [forward for forward in forwards(told) if set(forward.jobs) & mine]
    assert {forward.kind: sum(f.kind == forward.kind for f in work) for forward in work} == {
        "text": 8,
        "unet": 24,
        "vae": 8,
    }
    assert all(forward.finished for forward in work)
    assert {worker.name for worker in told.workers} == {"text-0", "unet-0", "vae-0"}
    assert all(visit.began_ns <= visit.ended_ns for visit in visits(told))


def test_a_trace_of_the_last_seconds_opens(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        run(client, [wire.Submit(id=f"{number}", prompt="a fox", steps=3) for number in range(4)])
    path = tmp_path / "trace.json"
    ended = triptych("trace", "--connect", server.address, "--seconds", "60", "-o", str(path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "open it at https://ui.perfetto.dev" in ended.stdout
    events = json.loads(path.read_text())["traceEvents"]
    check(events)
    assert {name.partition(" ")[0] for name in names(events, "process_name").values()} == {
        *("hub", "text-0", "unet-0", "vae-0")
    }
    assert slices(events, "step")
    counters = {(event["name"], *event["args"]) for event in events if event["ph"] == "C"}
    assert counters == {("images", "waiting"), ("arena slots", "in use"), ("memory", "MiB")}


def test_a_trace_of_nothing_says_so(tmp_path: Path) -> None:
    with serving(*STUBS) as idle:
        path = tmp_path / "trace.json"
        ended = triptych("trace", "--connect", idle.address, "-o", str(path))
        assert "no stage did anything in the last 30 s" in ended.stdout
        check(json.loads(path.read_text())["traceEvents"])
        with idle.client() as client:
            assert not [fact for fact in client.trace(5.0).facts if isinstance(fact, Reported)]


def test_a_stage_that_dies_leaves_a_trace_that_opens() -> None:
    with serving(*STUBS) as server, server.client() as client:
        outcome = run(client, [wire.Submit(id="dies", prompt="[crash]", steps=3), wire.Submit(id="b", prompt="b")])
        assert "dies" in outcome.failed()
        told = client.trace(60.0)
        events = timeline.events(told)
        check(events)
        assert "unet-0 (ended)" in names(events, "process_name").values()


def test_status_says_what_limits(server: Server) -> None:
    with server.client() as client:
        run(client, [wire.Submit(id=f"{number}", prompt="[slow]", steps=5) for number in range(4)])
        status = client.status()
    assert status.bottleneck is not None
    assert status.share == "timeslice"
    assert status.recent_s > 0
    unet = status.stages[1]
    assert 0 < unet.recent_busy_share <= 1
    assert unet.busy_s >= 2.0  # four times five steps of a tenth of a second
    shown = triptych("status", "--connect", server.address).stdout
    assert " s: " in next(line for line in shown.splitlines() if line.startswith("last "))
    assert json.loads(triptych("status", "--connect", server.address, "--json").stdout)["bottleneck"]["why"]
