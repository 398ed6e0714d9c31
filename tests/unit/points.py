"""Stages that were never measured: points that follow a law, so that what comes of them can be computed by hand."""

from orchestrator.tuning.curves import Law
from stages.core.point import Point
from stages.core.wire import Kind

UNET = Law(0.001, 0.0002, 0.002, 0.004, 0.0, 0.0, 0.0)
VAE = Law(0.002, 0.0, 0.018, 0.0, 0.0, 0.0, 0.0)
TEXT = Law(0.0, 0.0, 0.002, 0.0, 0.0, 0.0, 0.0)


def point(kind: Kind, law: Law, threads: int, streams: int, rows: int) -> Point:
    """One measurement, by the law."""
    seconds = law.seconds(threads, streams, rows)
    alone = law.serial + law.serial_row * rows
    part = threads / streams
    return Point(
        kind=kind,
        cores=f"0-{threads - 1}",
        threads=threads,
        streams=streams,
        rows=rows,
        seconds=seconds,
        spread_s=0.0,
        cpu_s=alone + part * (seconds - alone),
        repeats=10,
        rss_bytes=(100 + 10 * rows) << 20,
        precision="f32",
    )


def points(
    cores: int = 2, unet: Law = UNET, vae: Law = VAE, text: Law = TEXT, rows: tuple[int, ...] = (2, 4, 8, 16, 32)
) -> tuple[Point, ...]:
    """What the tuner measures on a machine of 1 or 2 cores."""
    found = []
    for threads in range(1, cores + 1):
        found += [point("text", text, threads, 1, 1), point("vae", vae, threads, 1, 1)]
        for streams in range(1, threads + 1):
            found += [point("unet", unet, threads, streams, number) for number in rows]
    return tuple(found)
