"""Writing pictures: names that tell what is in them, and files that are either whole or not there."""

import errno
import os
import re
import unicodedata
from pathlib import Path

from orchestrator.output import CannotWrite
from stages.core import wire
from stages.core.errors import ConfigError

_SLUG_CHARACTERS = 60
_SLUG_BYTES = 160
"""Bytes of a slug, at most: a name may have 255, and number, seed and the temporary name's additions take up to 60."""

_SUFFIX: dict[wire.Format, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}

_NUMBERED = re.compile(r"(\d{4,9})-")


def slug(prompt: str) -> str:
    """The prompt as a part of a file name: letters and digits of any script, with dashes between."""
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in unicodedata.normalize("NFKC", prompt.lower()))
    words = "-".join("".join(kept).split())[:_SLUG_CHARACTERS]
    return words.encode()[:_SLUG_BYTES].decode(errors="ignore").strip("-") or "picture"


class Folder:
    """The folder of one command's pictures, which are numbered on from those that are there already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = 0

    def open(self) -> None:
        """Make the folder and see what is in it. Raises ConfigError."""
        try:
            if self.path.exists() and not self.path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self.path.mkdir(parents=True, exist_ok=True)
            names = os.listdir(self.path)
        except OSError as error:
            raise ConfigError(f"cannot write pictures to {self.path}: {error.strerror}; choose another -o") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigError(f"cannot write pictures to {self.path}: Permission denied; choose another -o")
        self._last = max((int(match[1]) for name in names if (match := _NUMBERED.match(name))), default=0)

    def write(self, number: int, prompt: str, image: wire.Image, encoded: bytes) -> Path:
        """Write picture `number` (from 1) of this command, whole, under a name that was free. Raises CannotWrite."""
        number += self._last
        words, suffix = slug(prompt), _SUFFIX[image.format]
        try:
            while True:
                path = self.path / f"{number:04}-{words}-{image.seed}.{suffix}"
                if _write_new(path, encoded):
                    return path
                number += 1
        except OSError as error:
            raise CannotWrite(
                f"cannot write {path}: {error.strerror}; make room there, or choose another -o"
            ) from error


def _write_new(path: Path, content: bytes) -> bool:
    """Write a file, unless there is one. Everything is on the disk before the name is taken."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
        try:
            path.open("xb").close()
        except FileExistsError:
            return False
        temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)
