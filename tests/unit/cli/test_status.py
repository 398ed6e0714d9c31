"""The table of `triptych status`: what stands in it, and that it fits."""

import json
from io import StringIO

import pytest
from rich.console import Console

from orchestrator.cli.commands.status import as_json, table
from stages.core import wire
from tests.unit.statuses import stage, status

BUSY = stage(
    "unet-0",
    pid=1234567,
    state="compiling",
    cores_asked="0-63",
    cores_seen="0-63",
    threads=64,
    depth=17,
    job="f" * 32,
    step=50,
    steps=150,
    busy_share=1.0,
    pss_bytes=12345 << 20,
    rss_bytes=12345 << 20,
    cpu_outside_infer_share=0.123,
)


def cells(told: wire.StageStatus, width: int) -> dict[str, str]:
    """The row of one stage, by the head of the table; memory, which is two words, without its unit."""
    written = StringIO()
    Console(width=width, file=written).print(table(status(stages=(told,)), width))
    head, _, row, *_ = filter(str.strip, written.getvalue().splitlines())
    return dict(zip(head.split(), row.replace(" GiB", "").split(), strict=True))


@pytest.mark.parametrize("width", [130, 160])
def test_a_wide_table_shows_the_depth(width: int) -> None:
    assert cells(BUSY, width)["depth"] == "17"


@pytest.mark.parametrize(
    ("width", "told"),
    [(80, stage("unet-0", pid=12345, pss_bytes=1 << 30)), (129, BUSY), (130, BUSY)],
    ids=["usual", "narrow", "wide"],
)
def test_nothing_is_cut_off(width: int, told: wire.StageStatus) -> None:
    shown = cells(told, width)
    assert "\u2026" not in "".join([*shown, *shown.values()])
    assert shown["stage"] == "unet-0"
    assert ("depth" in shown) is (width >= 130)


def test_the_json_says_the_depth() -> None:
    (told,) = json.loads(as_json(status(stages=(BUSY,))))["stages"]
    assert told["depth"] == 17
