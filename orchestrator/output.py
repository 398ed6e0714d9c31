"""Files that a command writes when its work is done: known to be possible before, and whole or not there after."""

import errno
import os
from pathlib import Path

from stages.core.errors import ConfigError, TriptychError


class CannotWrite(TriptychError):
    """A file cannot be written: the disk is full, or the folder was taken away; the user must make room."""

    code = "cannot_write"


def check(path: Path, what: str) -> None:
    """Raise ConfigError if no file can be written at `path`. To be called before the work that `what` is to tell of."""
    try:
        if not path.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"there is no folder {path.parent}")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_device(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        temporary = _beside(path)
        temporary.open("wb").close()
        temporary.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {what} to {path}: {error.strerror}; name another file") from error


def write(path: Path, content: bytes, what: str) -> None:
    """Write a file, whole or not at all; a device or a pipe is written to. Raises CannotWrite."""
    try:
        if _is_device(path):
            path.write_bytes(content)
            return
        temporary = _beside(path)
        try:
            temporary.write_bytes(content)
            temporary.replace(path.resolve())  # of a link, what it leads to
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:  # whoever read it has left, which is no mistake
        raise
    except OSError as error:
        raise CannotWrite(
            f"cannot write {what} to {path}: {error.strerror}; make room there, or name another file"
        ) from error


def _is_device(path: Path) -> bool:
    """Whether `path` is something that must not be replaced by a file, such as /dev/stdout."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _beside(path: Path) -> Path:
    return path.resolve().parent / f".triptych-{os.getpid()}.part"
