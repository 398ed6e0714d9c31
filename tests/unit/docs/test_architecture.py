"""docs/architecture.md names every message and every folder, and nothing that is not there."""

import re
import types
from typing import Any, Union, get_args, get_origin

import pytest

from stages.core import pipes, tasks, wire
from stages.core.route import LEGS
from tests.conftest import ROOT
from tests.unit.docs.markdown import DOCUMENTS, sections

PATH = ROOT / "docs" / "architecture.md"
SECTIONS = sections(PATH)
ROOMS = ("stages", "orchestrator", "benchmarks", "demo", "docs", "configs", "examples", "tests")

FILES = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")
"""Paths of the repository, as documents write them."""


def members(union: Any) -> list[type[Any]]:
    """The messages of a union; of a generic one, the message itself."""
    if get_origin(union) not in (Union, types.UnionType):
        return [get_origin(union) or union]
    return [kind for part in get_args(union) for kind in members(part)]


def rows(text: str) -> list[str]:
    """The first cells of the tables."""
    return [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]


def named(text: str) -> set[str]:
    return {name for cell in rows(text) for name in re.findall(r"`([^`]+)`", cell)}


def test_every_message_of_clients_and_hub_is_named() -> None:
    tags = {kind.__struct_config__.tag for union in (wire.ClientMessage, wire.HubMessage) for kind in members(union)}
    assert named(SECTIONS["Between a client and the hub"]) == tags


def test_every_message_of_hub_and_stages_is_named() -> None:
    names = {kind.__name__ for union in (pipes.ToStage, pipes.FromStage) for kind in members(union)}
    parts = {kind.__name__ for kind in members(tasks.Task)} | {pipes.Input.__name__}
    told = named(SECTIONS["Between the hub and a stage"])
    assert names <= told
    assert {name for name in told if "/" not in name} <= names | parts


def test_every_leg_of_every_route_is_in_the_table() -> None:
    legs = [(f" `{leg.task}` ", f" {leg.kind} ", leg.reads, leg.writes) for leg in LEGS.values()]
    told = [line.split("|")[1:5] for line in SECTIONS["A route is data"].splitlines() if line.startswith("| `")]
    assert [(task, kind, tuple(reads.split()), writes.strip()) for task, kind, reads, writes in told] == legs


def test_every_folder_of_the_source_is_named() -> None:
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for room in ("stages", "orchestrator", "benchmarks", "demo")
        for path in (ROOT / room).rglob("*.py")
    }
    assert "stages/unet/schedules/" in folders
    assert named(SECTIONS["What lies where"]) >= folders


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(document: Any) -> None:
    for path in FILES.findall(document.read_text()):
        if path.split("/")[0] in ROOMS and path != "orchestrator/configs":  # which only a wheel has
            assert (ROOT / path).exists(), f"{document.name} names {path}, which is not there"


@pytest.mark.parametrize("folder", ["stages/", "stages/text/", "stages/unet/", "stages/vae/", "orchestrator/hub/"])
def test_files_of_small_folders_are_named_completely(folder: str) -> None:
    [line] = [line for line in SECTIONS["What lies where"].splitlines() if line.startswith(f"| `{folder}` |")]
    files = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", line)) == files
