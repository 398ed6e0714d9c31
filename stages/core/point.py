"""One measurement of a stage alone: the answer of `python -m stages.profile`, as a line of JSON."""

import msgspec

from stages.core.wire import Kind


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work of a stage that has its cores to itself: an encoding, a U-Net forward, a decoding."""

    kind: Kind
    cores: str
    """Cores that the kernel said its threads may run on, a Linux CPU list."""
    threads: int
    streams: int
    """Forwards that were in flight at once, each with its part of the threads."""
    rows: int
    """Rows of one forward; 1 for the other stages."""
    seconds: float
    """Median of the time from the beginning of a unit of work to the end of what the stage does with its result."""
    spread_s: float
    """Interquartile range of those times, in seconds."""
    cpu_s: float
    """CPU time of the process, all threads, for one unit."""
    repeats: int
    rss_bytes: int
    """Resident memory of the process afterwards: every number of rows is compiled for itself."""
    precision: str
