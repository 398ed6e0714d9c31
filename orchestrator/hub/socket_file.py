"""Removes the file of an ipc socket when the server dies without being able to.

Every other trace of a pipeline is anonymous and goes with its processes; the file of an `ipc://PATH` address is not.
"""

import subprocess
from types import TracebackType
from typing import Self

# Ends at the word of a server that cleans up by itself; removes the file when the pipe breaks instead.
_WATCH = 'read -r _ || rm -f -- "$0"'


class SocketFile:
    """A shell that waits for the end of this process. A context manager; inert for addresses without a file."""

    def __init__(self, address: str) -> None:
        self._path = address.removeprefix("ipc://")
        self._needed = address.startswith("ipc://") and not self._path.startswith("@")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._needed:
            # A session of its own: signals to the server's process group are not for it.
            command = ["/bin/sh", "-c", _WATCH, self._path]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate(b"\n")
