"""One stage process: how it is started, how its end is noticed, what it says on its standard error."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from stages.core.config import StageSpec

_SENT_BY_OTHERS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""By the kernel when memory runs out, by whoever administers the machine, by a test."""


def environment() -> dict[str, str]:
    """Ours, and that a child runs the code we run, not a namesake in the current folder."""
    here = str(Path(__file__).parents[2])
    paths = [path for path in (os.environ.get("PYTHONPATH"), here) if path]
    # A stage computes in OpenVINO's threads; those that BLAS would start at the import of numpy are never used.
    return os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}


class Child:
    """A running `python -m stages`. Started from the main thread: PDEATHSIG is tied to the thread that forks."""

    def __init__(self, spec: StageSpec) -> None:
        """`spec` is complete but for the life-line and the parent."""
        ours, theirs = socket.socketpair()
        with theirs:
            told = msgspec.structs.replace(spec, lifeline_fd=theirs.fileno(), parent=os.getpid())
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stages", msgspec.json.encode(told).decode()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(told.arena_fd, told.board_fd, told.lifeline_fd),
                env=environment(),
            )
        self.spec = spec
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)
        """Readable when the process has ended."""
        assert self._process.stderr is not None
        self.stderr = self._process.stderr
        os.set_blocking(self.stderr.fileno(), False)
        self._lifeline = ours
        self._partial = b""

    def read_stderr(self) -> tuple[list[str], bool]:
        """The whole lines that have come since the last call, and whether more may come."""
        try:
            data = os.read(self.stderr.fileno(), 1 << 16)
        except BlockingIOError:
            return [], True
        *lines, self._partial = (self._partial + data).split(b"\n")
        if not data and self._partial:
            lines, self._partial = [self._partial], b""
        return [line.decode(errors="replace") for line in lines], bool(data)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    @property
    def killed(self) -> bool:
        """Once it is reaped: whether it died of a signal that others send, and not of a fault of its own."""
        return -(self._process.returncode or 0) in _SENT_BY_OTHERS

    def reap(self) -> str:
        """After the pidfd has become readable: how it ended, in words."""
        status = self._process.wait()
        if status >= 0:
            return f"exited with status {status}"
        try:
            return f"died of {signal.Signals(-status).name}"
        except ValueError:
            return f"died of signal {-status}"

    def close(self) -> None:
        """Give its descriptors back."""
        os.close(self.pidfd)
        self.stderr.close()
        self._lifeline.close()
