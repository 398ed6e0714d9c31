"""What work costs here, learned while it runs, so that waiting can be told in seconds."""

from stages.core.wire import KINDS, Kind

_NEWEST = 0.2
"""Weight of the newest measurement in a running mean."""

_GUESS: dict[Kind, float] = {"text": 0.01, "unet": 0.5, "vae": 1.5}
"""Before anything has run, for the order only: the proportions of a Stable Diffusion, in row forwards of a second."""


class Estimate:
    """Running means: seconds of a text encoding, of a row of a U-Net forward, of a decoding."""

    def __init__(self) -> None:
        self._seconds: dict[Kind, float] = {}

    @property
    def complete(self) -> bool:
        """Whether every kind of work has been seen."""
        return len(self._seconds) == len(KINDS)

    def learn(self, kind: Kind, nanoseconds: int, rows: int = 1) -> None:
        """Take one measurement in."""
        seconds = nanoseconds / rows / 1e9
        known = self._seconds.get(kind, seconds)
        self._seconds[kind] = known + _NEWEST * (seconds - known)

    def of(self, kind: Kind, rows: int) -> float:
        """Seconds of work that a job has left which is at (or waits for) a stage of `kind`, U-Net rows left."""
        known = self._seconds if self.complete else _GUESS
        left = known["vae"]
        if kind != "vae":
            left += known["unet"] * rows
        if kind == "text":
            left += known["text"]
        return left
