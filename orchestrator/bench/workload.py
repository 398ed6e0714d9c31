"""Loads: which prompts, in which proportions, arriving when. Pure.

A mix is a file, TOML or JSON, with a list of `prompt` tables. Each has any field of a submit message but `id`, a
`kind` to report it under, and a `weight`: how often it comes beside the others.

    [[prompt]]
    kind = "short"
    weight = 4
    prompt = "a photo of a fox in the snow"
    steps = 4

    [[prompt]]
    kind = "long"
    prompt = "a castle on the moon"
    steps = 50
    deadline_s = 60
"""

import math
import random
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from stages.core import wire
from stages.core.errors import ConfigError
from stages.core.text_file import read_text_file

_OURS = ("kind", "weight")
_NOT_THEIRS = ("id", "type", "trace")
"""Fields of a submit message that the load generator fills in itself."""

_UNREADABLE = (ValueError, RecursionError, msgspec.DecodeError)


class MixEntry(msgspec.Struct, frozen=True):
    """One kind of prompt of a mix."""

    kind: str
    weight: Annotated[float, msgspec.Meta(gt=0)]
    """Relative frequency of the prompt, beside the weights of the others."""
    submit: wire.Submit
    """The message that is sent; its id, and its seed if it has none, are filled in for each arrival."""


Mix = tuple[MixEntry, ...]

DEFAULT: Mix = (
    MixEntry(
        "default",
        1.0,
        wire.Submit(
            id="", prompt="a photo of an astronaut riding a horse on mars", negative_prompt="low resolution, blurry"
        ),
    ),
)
"""One prompt, with the model's own steps and guidance."""


class Closed(msgspec.Struct, frozen=True):
    """A closed loop: a prompt is sent when one has ended, so that `in_flight` are out; None: all are sent at once."""

    in_flight: int | None = None

    def __str__(self) -> str:
        return "closed" if self.in_flight is None else f"closed:{self.in_flight}"


class Poisson(msgspec.Struct, frozen=True):
    """A Poisson process: prompts arrive independently of each other and of the server, on average `rate` a second."""

    rate: float

    def __str__(self) -> str:
        return f"poisson:{self.rate:g}"


ArrivalProcess = Closed | Poisson


class Arrival(msgspec.Struct, frozen=True):
    """One prompt of a load."""

    kind: str
    submit: wire.Submit
    at_s: float | None
    """Seconds after the start at which it is due; None: as soon as the closed loop has room for it."""


def arrivals(mix: Mix, process: ArrivalProcess, jobs: int, seed: int) -> list[Arrival]:
    """`jobs` prompts of a mix in the order of their arrival. The same arguments give the same load, to the seed.

    Ids are the numbers from 0. Prompts without a seed of their own get their number as seed.
    """
    rng = random.Random(seed)
    weights = [entry.weight for entry in mix]
    at_s = 0.0
    found = []
    for number in range(jobs):
        (entry,) = rng.choices(mix, weights)
        submit = entry.submit
        submit = msgspec.structs.replace(submit, id=str(number), seed=number if submit.seed is None else submit.seed)
        if isinstance(process, Poisson):
            at_s += rng.expovariate(process.rate)
        found.append(Arrival(entry.kind, submit, at_s if isinstance(process, Poisson) else None))
    return found


def parse(text: str) -> tuple[ArrivalProcess, ...]:
    """Read `closed`, `closed:4`, `closed:1,2,4`, `poisson:0.5` or `poisson:0.5,1`. Raises ConfigError."""
    name, colon, levels = text.partition(":")
    values = levels.split(",") if colon else []
    try:
        if name == "closed" and not colon:
            return (Closed(),)
        if name == "closed":
            return tuple(Closed(_whole(value)) for value in values)
        if name == "poisson" and colon:
            return tuple(Poisson(_rate(value)) for value in values)
    except ValueError as error:
        raise ConfigError(f"arrivals {text!r}: {error}") from None
    raise ConfigError(
        f"arrivals {text!r}: write closed, closed:4 (prompts in flight), poisson:0.5 (prompts a second), or several "
        "levels, as closed:1,2,4"
    )


def _whole(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 100_000):
        raise ValueError(f"{value!r} is no number of prompts in flight")
    return int(value)


def _rate(value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"{value!r} is no number of prompts a second")
    return rate


def read_mix(path: Path) -> Mix:
    """Read a mix from a TOML file, or from a JSON file (`.json`). Raises ConfigError naming the entry and the key."""
    try:
        text = read_text_file(path).decode()
        tables: Any = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except _UNREADABLE as error:
        raise ConfigError(f"{path}: not {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error
    listed = tables.get("prompt") if isinstance(tables, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{path}: there is no prompt in it; write one [[prompt]] table for each kind of prompt")
    if other := sorted(tables.keys() - {"prompt"}):
        raise ConfigError(f"{path}: `{other[0]}` is no key; a mix has [[prompt]] tables only")
    return tuple(_entry(table, f"{path}: prompt[{number}]", number) for number, table in enumerate(listed))


def _entry(table: Any, where: str, number: int) -> MixEntry:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: write a table, with `prompt` and what else is to be said")
    for key in _NOT_THEIRS:
        if key in table:
            raise ConfigError(f"{where}.{key}: filled in for every prompt that is sent; leave it out")
    fields = {key: value for key, value in table.items() if key not in _OURS}
    try:
        submit = msgspec.convert({"id": "", **fields}, wire.Submit)
        return msgspec.convert(
            {"kind": table.get("kind", f"prompt {number}"), "weight": table.get("weight", 1.0), "submit": submit},
            MixEntry,
        )
    except msgspec.ValidationError as error:
        text, _, at = str(error).partition(" - at `$")
        raise ConfigError(f"{where}{at.rstrip('`')}: {text}") from error
