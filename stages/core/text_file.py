"""Text files in UTF-8 as people have them: some editors put a byte order mark in front, which is no text."""

from codecs import BOM_UTF8
from pathlib import Path


def read_text_file(path: Path) -> bytes:
    """The bytes of a text file, without a byte order mark. Raises OSError."""
    return path.read_bytes().removeprefix(BOM_UTF8)
