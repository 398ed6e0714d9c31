"""Reading a command line: errors are one line that says where help is, and values are checked as they are read."""

import argparse
import math
import os
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors fit the others of this program: one line, exit status 2."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """End with the line on stderr."""
        line = " ".join(message.split())
        self.exit(2, f"triptych: error: {line} (see {self.prog} --help)\n")


def text(value: str) -> str:
    """Text that can be sent: bytes of the command line that are no UTF-8 are refused."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("not valid UTF-8") from None
    return value


def path(value: str) -> Path:
    """A path; `~` is the home folder, also where no shell has seen it (`-o '~/pics'`, `--out=~/pics`)."""
    return Path(os.path.expanduser(value))


def count(value: str) -> int:
    """A whole number of at least 1."""
    number = _whole(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; at least 1")
    return number


def layers(value: str) -> int:
    """A whole number, 0 too."""
    number = _whole(value)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{value} is too small; at least 0")
    return number


def seed(value: str) -> int:
    """A seed, 64 bits unsigned."""
    number = _whole(value)
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError(f"{value} is no seed; 0 to {2**64 - 1}, or leave it out for a random one")
    return number


def finite(value: str) -> float:
    """A number that JSON has."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{value!r} is no number")
    return number


def positive(value: str) -> float:
    """A number above 0."""
    number = finite(value)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return number


def seconds(value: str) -> float:
    """A time of up to a day."""
    number = finite(value)
    if not 0 < number <= 86_400:
        raise argparse.ArgumentTypeError(f"{value} is no time; more than 0, at most 86400 seconds")
    return number


def share(value: str) -> float:
    """A number from 0 to 1."""
    number = finite(value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to 1")
    return number


def size(value: str) -> tuple[int, int]:
    """Width and height in pixels, as `512x768`."""
    from stages.core.config import parse_size  # numpy comes with it, which --help need not wait for
    from stages.core.errors import ConfigError

    try:
        return parse_size(value, "size")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.message.removeprefix("size: ")) from None


def _whole(value: str) -> int:
    # int() alone takes underscores and other scripts' digits, and complains about more than 4300 of them.
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
        raise argparse.ArgumentTypeError(f"{value!r} is no whole number")
    return int(value)
