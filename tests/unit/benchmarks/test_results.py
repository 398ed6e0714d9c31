"""Files of the comparison, put together, and the table made of them."""

from pathlib import Path

import msgspec
import pytest

from benchmarks import peers
from benchmarks.comparison import results
from benchmarks.comparison.memory import Peak
from benchmarks.comparison.results import Measured, Report, Task

TASK = Task(
    model="demo",
    images=4,
    steps=25,
    guidance_scale=4.0,
    width=128,
    height=128,
    precision="bf16",
    alone=False,
)


def measured(task: Task = TASK) -> Measured:
    return Measured(
        task=task,
        rounds=[{"triptych": [1.0, 1.0], "genai": [2.0, 2.0]}, {"triptych": [2.0, 2.0], "genai": [4.0, 4.0]}],
        peaks={"triptych": Peak(500_000_000, 900_000_000)},
        likeness={"triptych": None, "genai": 40.4},
        idle_share={"genai": 0.01},
    )


def report(found: Measured, **changes: object) -> Report:
    return msgspec.structs.replace(Report(machine="2 cores", versions={"triptych": "1"}, measured=[found]), **changes)


def saved(path: Path, content: Report) -> Path:
    path.write_bytes(msgspec.json.encode(content))
    return path


def test_a_row_holds_rate_ratio_memory_and_likeness() -> None:
    assert results.table(measured()) == [
        "|  | images/s | triptych / it | peak PSS | picture |",
        "| --- | --: | --: | --: | --: |",
        "| genai | 1.5 | 2.00 (2.00 to 2.00, 2 rounds) |  | 40 dB |",
        "| triptych | 3 |  | 0.50 GB | equal |",
    ]


def test_alone_seconds_of_one_picture_count() -> None:
    task = msgspec.structs.replace(TASK, alone=True)
    found = Measured(task=task, rounds=[{"triptych": [1.0, 9.0, 1.0], "genai": [2.0, 2.0, 2.0]}])
    assert results.table(found)[2:] == ["| genai | 2 | 0.50 |  |  |", "| triptych | 1 |  |  |  |"]


def test_who_never_met_has_no_ratio() -> None:
    apart = Measured(task=TASK, rounds=[{"triptych": [1.0], "genai": [1.0]}, {"triptych": [2.0], "diffusers": [8.0]}])
    assert str(apart.ratio("triptych", "diffusers")) == "4.00"
    assert apart.ratio("genai", "diffusers") is None


def test_rounds_of_equal_tasks_are_put_together(tmp_path: Path) -> None:
    other = msgspec.structs.replace(TASK, steps=4)
    more = Measured(task=TASK, rounds=[{"triptych": [1.0], "diffusers": [8.0]}], peaks={"diffusers": Peak(1, 1)})
    files = [
        saved(tmp_path / "a", report(measured())),
        saved(tmp_path / "b", report(more)),
        saved(tmp_path / "c", report(measured(other))),
    ]
    together = results.read(files)
    assert [found.task for found in together.measured] == [TASK, other]
    assert len(together.measured[0].rounds) == 3
    assert set(together.measured[0].peaks) == {"triptych", "diffusers"}


def test_machines_are_not_mixed(tmp_path: Path) -> None:
    files = [
        saved(tmp_path / "a", report(measured())),
        saved(tmp_path / "b", report(measured(), machine="64 cores")),
    ]
    with pytest.raises(ValueError, match="make a table of each"):
        results.read(files)


def test_the_command_makes_a_table_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "a", report(msgspec.structs.replace(measured(), idle_share={"genai": 0.5})))
    peers.main(["--table", str(file)])
    out = capsys.readouterr().out
    assert "demo: 4 images at once, 128x128, 25 steps, guidance 4, bf16" in out
    assert "| genai | 1.5 |" in out
    assert "these used part of a core: genai 50%" in out
    assert out.endswith("2 cores; triptych 1.\n")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--only", "nobody"], 2, "there is no system nobody"),
        (["--full", "--model", "sd15"], 2, "leave --model out"),
        (["--images", "0"], 2, "--images: at least 1"),
        (["--model", "/nowhere"], 2, "peers: error: /nowhere: no such model folder"),
        (["--table", __file__], 1, f"peers: error: {__file__}: not written by --json: "),
        (["--table", "/nowhere"], 1, "peers: error: [Errno 2]"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        peers.main(words)
    assert leaving.value.code == status
    assert says in capsys.readouterr().err.splitlines()[-1]
