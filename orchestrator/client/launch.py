"""A pipeline of one's own: `triptych serve` as a child, reachable at an address nobody else knows.

The child lives in its own session, so that Ctrl-C reaches only us, and holds one end of a socketpair, its life-line:
when we close our end, or die in whatever way, it stops at once and takes its stages with it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orchestrator.hub.child import environment
from stages.core import link
from stages.core.errors import ConfigError, StartFailed

_STOP_S = 10.0
"""Seconds that the child may take to stop before it is killed; it gives its stages less (`deadlines.stop_s`)."""

_TAIL_BYTES = 1 << 14

PREFIX = "triptych: error: "
"""Beginning of the line in which every command of Triptych says why it ends."""


class Pipeline:
    """A child that serves, or is about to; what it writes on stderr is kept, to say why if it ends."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, stderr: IO[bytes]) -> None:
        self.address = address
        self._process = process
        self._stderr = stderr

    def poll(self, wait_s: float = 0.0) -> None:
        """Raise what ended the child: ConfigError, StartFailed. Nothing if it still runs after `wait_s` seconds."""
        try:
            status = self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return
        message = self._last_error() or _ending(status)
        raise ConfigError(message) if status == ConfigError.exit_status else StartFailed(message)

    def stderr(self) -> str:
        """The end of what the child wrote on stderr."""
        descriptor = self._stderr.fileno()
        # Not by seeking: the child, which may be writing, has the same file position.
        start = max(0, os.fstat(descriptor).st_size - _TAIL_BYTES)
        return os.pread(descriptor, _TAIL_BYTES, start).decode(errors="replace")

    def stop(self) -> None:
        """Wait for the child, whose life-line must have been closed; kill it and its stages after a deadline."""
        try:
            self._process.wait(_STOP_S)
        except BaseException as error:  # a second Ctrl-C also ends the waiting
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def _last_error(self) -> str | None:
        lines = [line for line in self.stderr().splitlines() if line.startswith(PREFIX)]
        return lines[-1].removeprefix(PREFIX) if lines else None


def _ending(status: int) -> str:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"the pipeline {how} without a word; `triptych serve --debug` shows what it does"


@contextmanager
def private_pipeline(config: Path | None, overrides: Sequence[str], debug: bool = False) -> Iterator[Pipeline]:
    """Start a pipeline and stop it at the end.

    It can be connected to within a moment, long before its stages have loaded. With `debug`, what it wrote on stderr
    is shown at the end.
    """
    address = link.private_address()
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as stderr:
        with theirs:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "orchestrator", "serve"),
                    *(f"--set={override}" for override in overrides),
                    *(f"--set=listen.socket={address}", f"--lifeline-fd={theirs.fileno()}"),
                    *(("--debug",) if debug else ()),
                    *(("--", str(config)) if config is not None else ()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=environment(),
            )
        pipeline = Pipeline(process, address, stderr)
        try:
            yield pipeline
        finally:
            ours.close()
            pipeline.stop()
            if debug:
                sys.stderr.write(pipeline.stderr())
