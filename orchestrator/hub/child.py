"""One child process: how it is started, how its end is noticed, what it says on its standard error."""

import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from orchestrator.hub.child_spec import ChildSpec, Lifeline

_SENT_BY_OTHERS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""By the kernel when memory runs out, by whoever administers the machine, by a test."""

_NICEST = 19
"""The nice level beyond which there is none."""


_FOR_US_ALONE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What a service manager tells the hub, and no child is to answer."""


def environment() -> dict[str, str]:
    """Ours, and that a child runs the code we run, not a namesake in the current folder."""
    here = str(Path(__file__).parents[2])
    paths = [path for path in (os.environ.get("PYTHONPATH"), here) if path]
    # A stage computes in OpenVINO's threads; those that BLAS would start at the import of numpy are never used.
    ours = {name: value for name, value in os.environ.items() if name not in _FOR_US_ALONE}
    return ours | {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}


class Child:
    """A running process of a ChildSpec.

    Started from the main thread: the signal that a child may ask of the kernel for its parent's death is tied to the
    thread that forks.
    """

    def __init__(self, spec: ChildSpec) -> None:
        """Start it. Raises OSError, and leaves nothing behind then."""
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.enter_context(ours)
            with theirs:
                self._process = subprocess.Popen(
                    list(spec.argv(Lifeline(theirs.fileno(), os.getpid()))),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(*spec.pass_fds, theirs.fileno()),
                    env=environment() | dict(spec.env),
                )
            undo.callback(self._discard)
            self.spec = spec
            self.pid = self._process.pid
            if spec.nice:  # from outside, before it has threads: between fork and exec, Python code may deadlock
                own = os.getpriority(os.PRIO_PROCESS, 0)
                os.setpriority(os.PRIO_PROCESS, self.pid, min(own + spec.nice, _NICEST))
            self.pidfd = os.pidfd_open(self.pid)
            """Readable when the process has ended."""
            undo.pop_all()
        assert self._process.stderr is not None
        self.stderr = self._process.stderr
        os.set_blocking(self.stderr.fileno(), False)
        self.lifeline = ours
        """Our end; of a child that is no stage, readable when it says that it has loaded."""
        ours.setblocking(False)
        self._partial = b""

    def read_lifeline(self) -> tuple[bool, bool]:
        """Whether the child has said on its life-line that it has loaded, and whether more may come."""
        try:
            data = self.lifeline.recv(1 << 12)
        except BlockingIOError:
            return False, True
        return bool(data), bool(data)

    def hang_up(self) -> None:
        """Tell it, by the end of its life-line, to leave."""
        self.lifeline.shutdown(socket.SHUT_WR)

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
        self.lifeline.close()

    def _discard(self) -> None:
        """End and reap a process of which not all could be had that is needed to watch it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
