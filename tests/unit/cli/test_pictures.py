import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.terminal import pictures
from orchestrator.cli.terminal.pictures import CannotWrite, Folder, slug
from orchestrator.cli.terminal.sanitize import sanitize
from stages.core import wire
from stages.core.errors import ConfigError

TIMINGS = wire.Timings(0.0, 0.0, 0.0, 0.0, 0.0)


def image(seed: int = 7, format: wire.Format = "png") -> wire.Image:
    return wire.Image(id="a", index=0, format=format, width=8, height=8, seed=seed, timings=TIMINGS)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "out")
    folder.open()
    return folder


def names(folder: Folder) -> list[str]:
    return sorted(os.listdir(folder.path))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A photo of an Astronaut, riding a horse!", "a-photo-of-an-astronaut-riding-a-horse"),
        ("../../etc/passwd\0", "etc-passwd"),
        ("eine Straße in Köln", "eine-straße-in-köln"),
        ("赤い 城", "赤い-城"),
        ("🦄 ✨", "picture"),
        ("", "picture"),
        ("x" * 100, "x" * 60),
        ("-n --help", "n-help"),
    ],
)
def test_slug(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


@given(st.text())
def test_any_prompt_makes_a_name_that_any_file_system_takes(prompt: str) -> None:
    name = slug(prompt)
    assert name
    assert name[0] != "-"
    assert len(f".0000001-{name}-{2**64 - 1}.webp.4194304.part".encode()) <= 255
    assert not set(name) & set('/\\:*?"<>|\0. \n')


def test_a_name_tells_number_prompt_and_seed(folder: Folder) -> None:
    assert folder.write(1, "a cat", image(), b"1").name == "0001-a-cat-7.png"
    assert folder.write(2, "a cat", image(format="jpeg"), b"2").name == "0002-a-cat-7.jpg"
    assert folder.write(12345, "a cat", image(2**64 - 1, "webp"), b"3").name == f"12345-a-cat-{2**64 - 1}.webp"
    assert (folder.path / "0001-a-cat-7.png").read_bytes() == b"1"


def test_another_command_counts_on(folder: Folder) -> None:
    folder.write(1, "a cat", image(), b"old")
    (folder.path / "9999999999999-unrelated").touch()
    (folder.path / "notes.txt").touch()
    again = Folder(folder.path)
    again.open()
    assert again.write(1, "a cat", image(), b"new").name == "0002-a-cat-7.png"
    assert (folder.path / "0001-a-cat-7.png").read_bytes() == b"old"


def test_a_name_that_somebody_took_meanwhile_is_left_alone(folder: Folder) -> None:
    taken = folder.path / "0001-a-cat-7.png"
    taken.write_bytes(b"theirs")
    assert folder.write(1, "a cat", image(), b"ours").name == "0002-a-cat-7.png"
    assert taken.read_bytes() == b"theirs"
    assert len(names(folder)) == 2


def test_a_link_that_leads_nowhere_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    (folder.path / "0001-a-cat-7.png").symlink_to(tmp_path / "elsewhere")
    assert folder.write(1, "a cat", image(), b"ours").name == "0002-a-cat-7.png"
    assert not (tmp_path / "elsewhere").exists()


def test_a_write_that_fails_half_way_leaves_nothing_behind(folder: Folder) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CannotWrite, match="File too large") as caught:
            folder.write(1, "a cat", image(), b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_status == 1
    assert names(folder) == []


def test_files_have_the_permissions_of_any_other_file(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    path = folder.write(1, "a cat", image(), b"1")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_folder_that_cannot_be_is_an_error_of_usage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "out", tmp_path / "file", Path("/dev/full")):
        with pytest.raises(ConfigError, match="Not a directory; choose another -o"):
            Folder(path).open()


def test_the_limits_leave_room_for_the_rest_of_the_name() -> None:
    assert pictures._SLUG_BYTES < 255 - 60


@given(st.text(max_size=300), st.integers(1, 80))
def test_legible_text_is_one_short_line_without_control_codes(text: str, limit: int) -> None:
    line = sanitize(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


def test_legible_text_is_otherwise_as_it_was() -> None:
    assert sanitize("a cat\x1b[31m\nin  the snow") == "a cat [31m in the snow"
    assert sanitize("abcdef", 4) == "abc…"
