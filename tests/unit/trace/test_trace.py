import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.output import CannotWrite
from orchestrator.trace import prompts as trace
from stages.core import wire
from stages.core.wire import Slice

MS = 1_000_000
START = 5_000 * MS

Events = list[dict[str, Any]]


def prompt(id: str, began_ms: int, *, index: int = 0, unet_slot: int = 4) -> list[Slice]:
    """One image: 2 ms of text, two steps of 10 ms, 5 ms of VAE."""
    began = START + began_ms * MS

    def piece(what: Any, stage: str, pid: int, slot: int, first: int, last: int, step: int = 0) -> Slice:
        return Slice(what, index, stage, pid, slot, began + first * MS, began + last * MS, step)

    return [
        piece("hold", "embeds", 0, 0, 0, 30),
        piece("work", "text-0", 100, 0, 1, 3),
        piece("hold", "latents", 0, unet_slot, 3, 40),
        piece("work", "unet-0", 101, unet_slot, 5, 26),
        piece("step", "unet-0", 101, unet_slot, 5, 15, 1),
        piece("step", "unet-0", 101, unet_slot, 15, 25, 2),
        piece("hold", "image", 0, 8, 30, 41),
        piece("work", "vae-0", 102, 8, 31, 36),
    ]


def entry(id: str, slices: list[Slice]) -> trace.Entry:
    return trace.Entry(f"prompt {id}", id, wire.Traced(id=id, slices=tuple(slices)))


def two() -> Events:
    return trace.events([entry("a", prompt("a", 0)), entry("b", prompt("b", 50, unet_slot=5))])


def slices(events: Events) -> Events:
    return [event for event in events if event["ph"] == "X"]


def metadata(events: Events, what: str) -> dict[tuple[int, int], Any]:
    found = [event for event in events if event["ph"] == "M" and event["name"] == what]
    assert len({(event["pid"], event["tid"]) for event in found}) == len(found)
    return {(event["pid"], event["tid"]): next(iter(event["args"].values())) for event in found}


def test_every_stage_process_is_one_and_the_arena_another() -> None:
    events = two()
    names = {pid: name for (pid, _), name in metadata(events, "process_name").items()}
    assert names == {0: "arena", 100: "text-0", 101: "unet-0", 102: "vae-0"}
    order = {pid: place for (pid, _), place in metadata(events, "process_sort_index").items()}
    assert sorted(names, key=lambda pid: order[pid]) == [100, 101, 102, 0]


def test_every_slot_has_a_track_and_its_steps_another() -> None:
    events = two()
    tracks: dict[int, list[str]] = {}
    for (pid, _), name in sorted(metadata(events, "thread_name").items()):
        tracks.setdefault(pid, []).append(name)
    assert tracks == {
        0: ["embeds 0", "latents 4", "latents 5", "image 8"],
        100: ["slot 0"],
        101: ["slot 4", "slot 4 steps", "slot 5", "slot 5 steps"],
        102: ["slot 8"],
    }


def test_every_slice_is_there_with_what_it_was_for() -> None:
    found = slices(two())
    assert len(found) == 16
    work = next(event for event in found if event["cat"] == "work" and event["pid"] == 101)
    assert (work["ts"], work["dur"]) == (5000.0, 21000.0)
    assert work["args"] == {"job": "a", "prompt": "prompt a", "index": 0, "slot": 4}
    step = next(event for event in found if event["cat"] == "step")
    assert (step["name"], step["args"]["step"]) == ("step 1", 1)


def test_times_begin_at_nought() -> None:
    assert min(event["ts"] for event in slices(two())) == 0.0


def test_arrows_lead_each_image_from_stage_to_stage() -> None:
    events = two()
    arrows = [event for event in events if event["ph"] in "stf"]
    chains: dict[int, Events] = {}
    for arrow in arrows:
        chains.setdefault(arrow["id"], []).append(arrow)
    assert len(chains) == 2
    for chain in chains.values():
        assert [(arrow["ph"], arrow["pid"]) for arrow in chain] == [("s", 100), ("t", 101), ("f", 102)]
        jobs = set()
        for arrow in chain:
            (inside,) = [
                event
                for event in slices(events)
                if (event["pid"], event["tid"]) == (arrow["pid"], arrow["tid"])
                and event["ts"] <= arrow["ts"] <= event["ts"] + event["dur"]
            ]
            jobs.add(inside["args"]["job"])
        assert len(jobs) == 1


def test_images_of_one_prompt_and_prompts_of_one_id_have_arrows_of_their_own() -> None:
    one = entry("a", prompt("a", 0) + prompt("a", 100, index=1))
    events = trace.events([one, entry("a", prompt("a", 200))])
    assert [event["id"] for event in events if event["ph"] == "s"] == [1, 2, 3]


def test_a_job_that_only_one_stage_knew_has_no_arrow() -> None:
    events = trace.events([entry("a", prompt("a", 0)[:2])])
    assert [event for event in events if event["ph"] in "stf"] == []


def test_a_stage_that_came_back_is_another_process() -> None:
    first = Slice("work", 0, "unet-0", 101, 4, START, START + 10)
    again = Slice("work", 0, "unet-0", 201, 4, START + 20, START + 30)
    names = metadata(trace.events([entry("a", [first, again])]), "process_name")
    assert names == {(101, 0): "unet-0", (201, 0): "unet-0"}


pieces = st.builds(
    lambda what, index, stage, slot, began, lasts: Slice(
        what, index, f"{stage}-0", hash(stage) % 100 + 1, slot, began, began + lasts
    ),
    st.sampled_from(["hold", "work", "step"]),
    st.integers(0, 2),
    st.sampled_from(wire.KINDS),
    st.integers(0, 3),
    st.integers(0, 50),
    st.integers(0, 20),
)


@given(st.lists(st.lists(pieces, max_size=20), max_size=4))
def test_slices_of_one_track_never_overlap_whatever_the_stamps(stamps: list[list[Slice]]) -> None:
    events = trace.events([entry(str(number), slices) for number, slices in enumerate(stamps)])
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in slices(events):
        tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    assert sum(map(len, tracks.values())) == sum(map(len, stamps))
    for spans in tracks.values():
        for (_, ended), (began, _) in pairwise(sorted(spans)):
            assert ended <= began + 1e-6  # microseconds as floats; the stamps themselves are whole nanoseconds
    assert set(metadata(events, "thread_name")) == set(tracks)


def test_the_file_is_what_perfetto_reads(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("old")
    trace.write(path, [entry("ä", prompt("ä", 0))])
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["displayTimeUnit"] == "ms"
    assert document["traceEvents"] == trace.events([entry("ä", prompt("ä", 0))])
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_traced_is_an_empty_trace(tmp_path: Path) -> None:
    trace.write(tmp_path / "trace.json", [])
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"] == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="cannot write the trace to"):
        trace.write(tmp_path / "none" / "trace.json", [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWrite, match="Is a directory"):
        trace.write(tmp_path / "folder", [])
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
