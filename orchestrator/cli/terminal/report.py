"""The lines that a command prints about its pictures, for people or for programs."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from orchestrator.cli.session import Failure, Picture, Session
from orchestrator.cli.terminal.sanitize import sanitize
from orchestrator.cli.terminal.units import images

WriteLine = Callable[[str], None]
"""Prints a line on stdout, past whatever is drawn on the terminal."""


class Report(Protocol):
    """The lines printed as pictures come and prompts fail, and at the end."""

    def picture(self, picture: Picture, path: Path) -> None:
        """Note a picture that has been written."""

    def failure(self, failure: Failure) -> None:
        """Note a prompt that has failed."""

    def summary(self, session: Session, seconds: float, start_s: float, folder: Path) -> None:
        """Note the end: `seconds` since the first stage took something up, `start_s` seconds before that."""


class JsonReport:
    """One object a line, as programs read them."""

    def __init__(self, write_line: WriteLine) -> None:
        self._write_line = write_line

    def picture(self, picture: Picture, path: Path) -> None:
        """Print an object with the file, and all that is needed to make the picture again."""
        image = picture.image
        self._write_line(
            json.dumps(
                {
                    "id": image.id,
                    "index": image.index,
                    "prompt": picture.job.request.prompt,
                    "path": str(path),
                    "seed": image.seed,
                    "width": image.width,
                    "height": image.height,
                    "sha256": hashlib.sha256(picture.encoded).hexdigest(),
                    "timings": msgspec.to_builtins(image.timings),
                }
            )
        )

    def failure(self, failure: Failure) -> None:
        """Print an object with the wire code and the message."""
        self._write_line(json.dumps(msgspec.to_builtins(failure)))

    def summary(self, session: Session, seconds: float, start_s: float, folder: Path) -> None:
        """Print nothing: programs can count."""


class PlainReport:
    """Lines for people: pictures on stdout, failures on stderr."""

    def __init__(self, write_line: WriteLine) -> None:
        self._write_line = write_line

    def picture(self, picture: Picture, path: Path) -> None:
        """Print the picture's path, its seed, and the seconds from the first stage on."""
        image = picture.image
        spent = image.timings.total_s - image.timings.queue_s
        self._write_line(f"{path}  seed {image.seed}, {spent:.1f} s")

    def failure(self, failure: Failure) -> None:
        """Print the error, and which prompt it is of, on stderr."""
        which = f"{sanitize(failure.prompt, 60)}: " if failure.prompt and failure.prompt.strip() else ""
        print(f"triptych: error: {which}{sanitize(failure.message, 500)}", file=sys.stderr, flush=True)

    def summary(self, session: Session, seconds: float, start_s: float, folder: Path) -> None:
        """Print how many pictures were made, how fast, and where they are."""
        done, failed = session.images_done, len(session.failures)
        if done:
            rate = f"{done / max(seconds, 1e-3):.2f} images/s" + (f", {failed} failed" if failed else "")
            self._write_line(
                f"{images(done)} in {seconds:.1f} s, {rate}, in {folder} (the first began after {start_s:.1f} s)"
            )
