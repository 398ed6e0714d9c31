"""Figures measured on this machine, remembered in the user's cache folder.

What was measured holds only for the CPU, the weights and the inference library it was measured with, so all of them
are in the name of its file. A folder that cannot be read or written is done without.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class FigureStore:
    """The figures of one kind of measurement: a file for each set of `facts` that they depend on."""

    def __init__(self, kind: str, folder: Path | None = None) -> None:
        """`kind` names the subfolder of `folder`, by default the user's cache folder for Triptych."""
        self._folder = (cache_folder() if folder is None else folder) / kind

    def read(self, facts: object, kind: type[T]) -> T | None:
        """The figures remembered under these facts; None if there are none, or none that can be read as `kind`."""
        try:
            return msgspec.json.decode(self._path(facts).read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def write(self, facts: object, figures: object) -> None:
        """Remember, in place of what was remembered before."""
        path = self._path(facts)
        part = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1))
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()

    def _path(self, facts: object) -> Path:
        return self._folder / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.json"


def cache_folder() -> Path:
    """Triptych's folder in the user's cache, as XDG_CACHE_HOME says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triptych"


def cpu() -> str:
    """Model and instruction sets of the first core, as the kernel names them."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("model name", "stepping", "microcode", "flags")))


def weights(ir: Path) -> tuple[str, int, int]:
    """The path, size and time of writing of an IR's weights, which tell them from others."""
    stat = ir.with_suffix(".bin").stat()
    return str(ir.resolve()), stat.st_size, stat.st_mtime_ns
