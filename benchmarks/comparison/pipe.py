"""The parent's end of the line protocol of benchmarks.comparison.worker."""

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_STOP_S = 30.0
"""Seconds that a worker whose input has ended may take to end, too."""

_TAIL_BYTES = 1 << 14


class WorkerLost(Exception):
    """A worker ended, fell silent or spoke nonsense. The message is one line and names the worker."""


class Worker:
    """One process that answers lines. What it writes on stderr is kept, to say why if it ends."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        self._unread = b""

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def ask(self, line: str) -> None:
        """Send one line. Raises WorkerLost."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            raise self._lost() from None

    def expect(self, answer: str, wait_s: float) -> None:
        """Wait for one line. Raises WorkerLost where it is another one, or none within `wait_s` seconds."""
        deadline = time.monotonic() + wait_s
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise WorkerLost(f"{self.name}: not {answer} within {wait_s:.0f} s")
            heard = os.read(self._process.stdout.fileno(), 4096)
            if not heard:
                raise self._lost()
            self._unread += heard
        line, _, self._unread = self._unread.partition(b"\n")
        if line.decode(errors="replace") != answer:
            raise WorkerLost(f"{self.name}: said {line!r} where {answer!r} was due")

    def draw(self, first: int, count: int) -> None:
        """Ask for pictures; `expect("done", ...)` waits for them."""
        self.ask(f"draw {first} {count}")

    def save(self, number: int, path: Path) -> None:
        """Ask for one picture in a file."""
        self.ask(f"save {number} {path}")

    def close(self) -> None:
        """End the process: by the end of its input, after a deadline by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except BaseException as error:  # a second Ctrl-C also ends the waiting
            self._process.kill()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self._process.stdout.close()
            self._stderr.close()

    def _lost(self) -> WorkerLost:
        """The error of a worker that has ended: why, by the last thing it wrote."""
        status = self._process.wait(_STOP_S)
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace")
        said = [line for line in tail.splitlines() if line.strip()]
        return WorkerLost(f"{self.name}: ended with status {status}: {said[-1] if said else 'without a word'}")
