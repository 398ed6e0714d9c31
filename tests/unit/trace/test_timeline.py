"""The trace of a whole pipeline, as Perfetto wants it: no overlaps on a track, arrows that begin, go on and end."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.trace import events as trace_events
from orchestrator.trace import timeline
from orchestrator.trace.recording import Fact, Level, Lost, Memory, Recording
from tests.unit.trace.test_recording import MS, WORKERS, histories, life, put, recording, stepped, timed, took

Events = list[dict[str, Any]]


def slices(events: Events, category: str = "") -> Events:
    return [event for event in events if event["ph"] == "X" and category in ("", event["cat"])]


def names(events: Events, what: str) -> dict[tuple[int, int], Any]:
    found = [event for event in events if event["ph"] == "M" and event["name"] == what]
    assert len({(event["pid"], event["tid"]) for event in found}) == len(found)
    return {(event["pid"], event["tid"]): next(iter(event["args"].values())) for event in found}


def check(events: Events) -> None:
    """What every trace must keep to."""
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in slices(events):
        assert event["dur"] >= 0
        assert isinstance(event["ts"], int)
        tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for spans in tracks.values():
        for (_, ended), (began, _) in pairwise(sorted(spans)):
            assert ended <= began
    assert tracks.keys() == names(events, "thread_name").keys()
    assert {pid for pid, _ in tracks} <= {pid for pid, _ in names(events, "process_name")}
    chains: dict[int, Events] = {}
    for event in events:
        if event["ph"] in "stf":
            chains.setdefault(event["id"], []).append(event)
            around = tracks[event["pid"], event["tid"]]
            assert any(began <= event["ts"] < ended for began, ended in around), "an arrow outside of all slices"
    for chain in chains.values():
        assert [event["ph"] for event in chain] == ["s", *"t" * (len(chain) - 2), "f"]
        assert [event["ts"] for event in chain] == sorted(event["ts"] for event in chain)


def test_a_pipeline_has_a_process_for_each_stage_named_with_its_cores() -> None:
    events = timeline.events(recording(*life(1, 0), *life(2, 40)))
    check(events)
    assert names(events, "process_name") == {
        (99, 0): "hub",
        (100, 0): "text-0 on cores 0-1",
        (101, 0): "unet-0 on cores 0-1",
        (102, 0): "vae-0 on cores 0-1",
    }
    order = {pid: place for (pid, _), place in names(events, "process_sort_index").items()}
    assert sorted(order, key=lambda pid: order[pid]) == [99, 100, 101, 102]


def test_forwards_are_slices_with_what_they_were_for() -> None:
    events = timeline.events(recording(*life(1, 100), stepped(1, 3, 200, 210), stepped(2, 1, 200, 210), began=50))
    check(events)
    text, first, _, vae, both = (
        slices(events, "work")[:1]
        + slices(events, "step")[:2]
        + [
            slices(events, "work")[1],
            slices(events, "step")[2],
        ]
    )
    assert (text["name"], text["ts"], text["dur"]) == ("prompt 1", 50_000, 2000)
    assert text["args"] == {"job": "id1", "prompt": "prompt 1"}
    assert (first["name"], first["args"]) == ("step 1", {"job": "id1", "prompt": "prompt 1", "steps": [1]})
    assert vae["pid"] == 102
    assert (both["name"], both["args"]) == ("2 jobs", {"jobs": ["id1", "number 2"], "steps": [3, 1]})


def test_arrows_lead_from_stage_to_stage_by_the_first_and_the_last_step() -> None:
    facts = [*life(1, 0)]
    facts[6:7] = [stepped(1, 2, 15, 18), stepped(1, 3, 18, 21), stepped(1, 4, 21, 25)]
    events = timeline.events(recording(*facts))
    check(events)
    assert [(e["ph"], e["pid"], e["ts"]) for e in events if e["ph"] in "stf"] == [
        ("s", 100, 1000),
        ("t", 101, 10_000),
        ("t", 101, 23_000),
        ("f", 102, 28_500),
    ]


def test_jobs_have_lanes_of_their_own_at_the_hub() -> None:
    events = timeline.events(recording(*life(1, 0), *life(2, 10), *life(3, 100)))
    lanes = names(events, "thread_name")
    assert [name for (pid, _), name in sorted(lanes.items()) if pid == 99] == ["job 1", "job 2"]
    assert [event["name"] for event in slices(events, "job") if event["tid"] == 1] == [
        *("text", "waits for unet", "unet", "vae"),
        *("text", "waits for unet", "unet", "vae"),
    ]


def test_forwards_that_overlap_get_tracks_of_their_own() -> None:
    events = timeline.events(recording(stepped(1, 1, 0, 10), stepped(2, 1, 5, 15), stepped(1, 2, 10, 20)))
    check(events)
    assert [event["tid"] for event in slices(events, "step")] == [1, 2, 1]
    assert names(events, "thread_name")[101, 2] == "forwards (2)"


def test_counters_tell_the_queue_the_slots_and_the_memory() -> None:
    facts: list[Fact] = [Level(5 * MS, 1, 2), Level(10 * MS, 3, 4), Memory(20 * MS, 101, 3 << 20), Level(30 * MS, 0, 0)]
    events = timeline.events(recording(*facts, began=15, ended=40))
    counters = [
        (e["pid"], f"{e['name']} {what}", e["ts"], value)
        for e in events
        if e["ph"] == "C"
        for what, value in e["args"].items()
    ]
    assert counters == [
        (101, "memory MiB", 5000, 3.0),
        (99, "images waiting", 0, 3),
        (99, "arena slots in use", 0, 4),
        (99, "images waiting", 15_000, 0),
        (99, "arena slots in use", 15_000, 0),
    ]
    still = timeline.events(recording(Level(1 * MS, 2, 3), began=15, ended=40))
    assert [value for e in still if e["ph"] == "C" for value in e["args"].values()] == [2, 3]


def test_a_process_that_has_ended_is_shown_as_such() -> None:
    ended = Lost(6 * MS, "unet-0", 201)
    events = timeline.events(recording(took("vae-0", 202, 1, 0), put("vae-0", 202, 1, 0, 5), ended))
    check(events)
    assert names(events, "process_name")[202, 0] == "vae-0 (ended)"
    assert names(events, "process_name")[201, 0] == "unet-0 (ended)"  # it died before it could say anything


@given(histories, st.integers(0, 60_000), st.integers(0, 150_000), st.sampled_from([1, 1000]))
def test_whatever_was_recorded_is_a_trace_that_opens(facts: list[Fact], began: int, lasted: int, scale: int) -> None:
    spread = timed(facts)
    check(timeline.events(Recording(began, began + lasted, 99, WORKERS, tuple(spread))))
    check(timeline.events(Recording(began // scale, (began + lasted) // scale, 99, WORKERS, tuple(spread))))


def test_the_file_is_json_with_trace_events(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace_events.write(path, timeline.events(recording(*life(1, 0))))
    document = json.loads(path.read_text())
    assert document["displayTimeUnit"] == "ms"
    check(document["traceEvents"])


@pytest.mark.parametrize("ended", [0, 1000])
def test_nothing_recorded_is_a_trace_without_slices(ended: int) -> None:
    events = timeline.events(recording(ended=ended))
    check(events)
    assert slices(events) == []
