"""Text files in UTF-8 as people have them: some editors put a byte order mark in front, which is no text."""

import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIXES = (".json", ".txt")


def read_text_file(path: Path) -> bytes:
    """The bytes of a text file, without a byte order mark. Raises OSError."""
    return path.read_bytes().removeprefix(BOM_UTF8)


@contextmanager
def without_marks(folder: Path) -> Iterator[Path]:
    """A folder to be read by somebody else, whose .json and .txt files have no byte order mark: `folder` itself, or a
    copy of those files, until the end of the block. Raises OSError.
    """
    files = [file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    if not any(_is_marked(file) for file in files):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="triptych-") as copy:
        for file in files:
            (Path(copy) / file.name).write_bytes(read_text_file(file))
        yield Path(copy)


def _is_marked(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(BOM_UTF8)) == BOM_UTF8
