"""The order of the measuring, with systems that only write down what they are asked."""

from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from benchmarks.comparison import baselines, measure
from benchmarks.comparison.pipe import WorkerLost
from benchmarks.comparison.results import Measured, Task
from benchmarks.comparison.systems import PEERS, Peer
from benchmarks.comparison.work import Work, native_precision, prompt

WORK = Work(model="", torch=None, width=8, height=8, steps=1, guidance_scale=1.0, negative_prompt="", precision="f32")


def task(images: int = 4, alone: bool = False) -> Task:
    return Task(
        model="fake", images=images, steps=1, guidance_scale=1.0, width=8, height=8, precision="f32", alone=alone
    )


class Fake:
    """A system of one shade of grey."""

    def __init__(self, name: str, log: list[tuple[object, ...]], grey: int = 0, broken: bool = False) -> None:
        self.name = name
        self._log = log
        self._grey = grey
        self._broken = broken

    def load(self) -> None:
        self._log.append((self.name, "load"))
        if self._broken:
            raise WorkerLost(f"{self.name}: no room")

    def draw(self, first: int, count: int) -> None:
        self._log.append((self.name, first, count))

    def save(self, number: int, path: Path) -> None:
        Image.fromarray(np.full((8, 8, 3), self._grey, np.uint8)).save(path)

    def close(self) -> None:
        self._log.append((self.name, "close"))


def raced(found: Measured, *systems: Fake, rounds: int = 1) -> list[str]:
    said: list[str] = []
    with closing(measure.interleave(systems, found, rounds, said.append)) as race:
        for _ in race:
            pass
    return said


def test_a_round_goes_forwards_and_backwards_and_no_picture_is_made_twice() -> None:
    log: list[tuple[object, ...]] = []
    found = Measured(task=task())
    raced(found, Fake("triptych", log), Fake("genai", log), Fake("diffusers", log), rounds=2)
    runs = [entry for entry in log if len(entry) == 3]
    forwards = ["triptych", "genai", "diffusers"]
    assert [name for name, *_ in runs] == forwards + 2 * [*forwards, *reversed(forwards)]
    for name in forwards:
        assert [(first, count) for who, first, count in runs if who == name] == [
            (0, 4),  # to warm up
            *((4 * number, 4) for number in (1, 2, 3, 4)),
        ]
    assert log[:3] == [(name, "load") for name in forwards]
    assert sorted(log[-3:]) == sorted((name, "close") for name in forwards)
    assert [{name: len(seconds) for name, seconds in one.items()} for one in found.rounds] == 2 * [
        dict.fromkeys(forwards, 2)
    ]


def test_alone_every_picture_is_timed_by_itself() -> None:
    log: list[tuple[object, ...]] = []
    found = Measured(task=task(images=3, alone=True))
    raced(found, Fake("triptych", log))
    assert [entry[1:] for entry in log if len(entry) == 3][1:] == [(number, 1) for number in range(3, 9)]
    assert len(found.rounds[0]["triptych"]) == 6


def test_who_cannot_be_loaded_is_left_out() -> None:
    log: list[tuple[object, ...]] = []
    found = Measured(task=task())
    said = raced(found, Fake("triptych", log), Fake("genai", log, broken=True))
    assert "genai left out: genai: no room" in said
    assert set(found.rounds[0]) == {"triptych"}
    assert ("genai", "close") in log


def test_pictures_are_compared_with_triptychs_and_each_system_is_by_itself() -> None:
    log: list[tuple[object, ...]] = []
    found = Measured(task=task())
    systems = [Fake("triptych", log, 100), Fake("genai", log, 100), Fake("diffusers", log, 110)]
    with closing(
        measure.measure_memory([*systems, Fake("optimum-intel", log, broken=True)], found, lambda line: None)
    ) as one:
        assert [list(found.peaks) for _ in one] == [
            ["triptych"],
            ["triptych", "genai"],
            ["triptych", "genai", "diffusers"],
        ]
    assert found.likeness == {"triptych": None, "genai": None, "diffusers": pytest.approx(28.13, abs=0.01)}
    assert set(found.peaks) == {"triptych", "genai", "diffusers"}
    assert [entry[0] for entry in log if entry[1:] in {("load",), ("close",)}] == [
        name for name in ("triptych", "genai", "diffusers", "optimum-intel") for _ in range(2)
    ]


def test_peers_that_cannot_take_part_say_what_would_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = {"optimum-intel": "pip install it"}
    monkeypatch.setattr(Peer, "missing", lambda peer: missing.get(peer.package, ""))
    monkeypatch.setattr(baselines.cores, "allowed", lambda: frozenset({0, 1}))
    said: list[str] = []

    def names(*, alone: bool = False, work: Work = WORK, only: tuple[str, ...] = ()) -> list[str]:
        said.clear()
        return [peer.name for peer in baselines.peers(task(alone=alone), work, only, ("genai",), said.append)]

    assert names() == ["genai-static", "genai-x2"]
    assert "optimum-intel left out: to have it: pip install it" in said[0]
    assert "diffusers left out" in said[1]
    assert "python -m benchmarks.models fake" in said[1]
    assert names(alone=True) == ["genai-static"]
    with_torch = msgspec.structs.replace(WORK, torch=str(tmp_path))
    assert names(work=with_torch, only=("diffusers",)) == ["diffusers"]
    assert said == []


@pytest.mark.parametrize(("free", "together"), [(100e9, True), (10e9, False)])
def test_what_does_not_fit_is_loaded_pair_by_pair(
    free: float, together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unet").mkdir()
    with (tmp_path / "unet" / "openvino_model.bin").open("wb") as weights:
        weights.truncate(2_000_000_000)
    monkeypatch.setattr(baselines.psutil, "virtual_memory", lambda: type("Memory", (), {"available": free}))
    work = msgspec.structs.replace(WORK, model=str(tmp_path))
    ours = baselines.triptych_systems(task(), work, ["stage.unet.streams=2"], ())
    said: list[str] = []
    groups = baselines.groups(ours, list(PEERS), work, said.append)
    names = [[system.name for system in group] for group in groups]
    peers = [peer.name for peer in PEERS]
    assert names == ([[*baselines.OURS, *peers]] if together else [[*baselines.OURS, peer] for peer in peers])
    assert bool(said) == (not together)


def test_triptych_as_it_comes_can_be_left_out() -> None:
    ours = baselines.triptych_systems(task(), WORK, ["stage.unet.streams=2"], ("triptych",))
    assert [system.name for system in ours] == ["triptych-tuned"]


def test_prompts_differ_for_long() -> None:
    assert len({prompt(number) for number in range(2000)}) == 2000


@pytest.mark.parametrize(("flags", "precision"), [("fpu avx512_bf16", "bf16"), ("fpu avx2", "f32")])
def test_the_precision_is_the_cpus(flags: str, precision: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert native_precision(tmp_path / "cpuinfo") == precision
