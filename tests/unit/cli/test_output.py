import os
import stat
from pathlib import Path

import pytest

from orchestrator import output, plot_file
from orchestrator.output import CannotWrite
from stages.core.errors import ConfigError


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    output.check(path, "the trace")
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    output.check(path, "the trace")
    assert path.read_text() == "old"
    output.write(path, b"new", "the trace")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    output.check(tmp_path / "link", "the trace")
    output.write(tmp_path / "link", b"new", "the trace")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"new"


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        output.check(pipe, "the trace")
        output.write(pipe, b"new", "the trace")
        assert os.read(reader, 100) == b"new"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none/x", "there is no folder"),
        ("folder", "Is a directory"),
        ("file/x", "there is no folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_cannot_be_written_is_known_before_and_told_after(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"cannot write the trace to {tmp_path}/{name}: {says}"):
        output.check(tmp_path / name, "the trace")
    with pytest.raises(CannotWrite, match="cannot write the trace to"):
        output.write(tmp_path / name, b"new", "the trace")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="to /dev/full: No space left on device; make room there"):
        output.write(Path("/dev/full"), b"new", "the trace")


@pytest.mark.parametrize("name", ["x", "x.gif", "none/x.png"])
def test_a_plot_that_could_not_be_written_is_refused_before_anything_is_measured(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        plot_file.check(tmp_path / name)
    plot_file.check(tmp_path / "x.PNG")
    plot_file.check(None)


def test_without_matplotlib_a_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_file, "find_spec", lambda name: None)
    plot_file.check(None)
    with pytest.raises(ConfigError, match=r"pip install 'triptych\[plot\]'"):
        plot_file.check(tmp_path / "x.png")
