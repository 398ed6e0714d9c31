"""Standard input, output and error, as a program needs them: open, and with errors that are one line."""

import io
import os
import sys

from orchestrator.output import CannotWrite

closed: set[int] = set()
"""Descriptors, of 0, 1 and 2, that this process was started without."""

_NAMES = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


class _Output(io.FileIO):
    """Standard output. What cannot be written is told once; from then on nothing is written, and nothing complains."""

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if isinstance(error, BrokenPipeError):  # whoever read it has left, which is no mistake
                raise
            raise CannotWrite(f"cannot write to standard output: {error.strerror}; send it elsewhere") from error


def prepare() -> None:
    """Open what is closed, on /dev/null, and let standard output raise CannotWrite. To be called before all else.

    Of a descriptor that is closed, what is opened next would take the place: a socket as number 0 that a child reads
    from, a memfd as number 2 that warnings are written to.
    """
    for descriptor, (name, mode) in _NAMES.items():
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
            closed.add(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115, it stays
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno(), "wb", closefd=False)),
            encoding=sys.stdout.encoding,
            line_buffering=sys.stdout.line_buffering,
        )
    if isinstance(sys.stdout, io.TextIOWrapper):  # a picture's name must not end the program in a latin-1 locale
        sys.stdout.reconfigure(errors="backslashreplace")
