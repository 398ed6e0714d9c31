"""The figures of a load: throughput, latency, refusals. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from orchestrator.bench.drive import Played, Record


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of a set of times, in seconds; interpolated linearly between the measurements."""

    p50: float
    p90: float
    p99: float
    mean: float
    max: float


class ImageSeconds(msgspec.Struct, frozen=True):
    """Mean seconds that an image spent in the queue and in each stage."""

    queue_s: float
    text_s: float
    unet_s: float
    vae_s: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of some prompts of a load, or of all."""

    prompts: int
    images: int
    images_per_s: float
    latency_s: Percentiles | None
    """Seconds from when a prompt was due until its last image was there; None where none was done."""
    first_image_s: Percentiles | None
    """Seconds from when a prompt was due until its first image was there; None where none came."""
    an_image: ImageSeconds | None
    refused: dict[str, int]
    """Prompts that were not done, by the code they failed with."""
    refused_share: float


class LoadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a whole load."""

    span_s: float
    all: Summary
    kinds: dict[str, Summary]
    late_s: float
    """Seconds that the sender was late at worst; latencies include them."""


def figures(played: Played) -> LoadFigures:
    """The figures of a load, in all and by kind."""
    records = played.records
    kinds = dict.fromkeys(record.kind for record in records)
    return LoadFigures(
        span_s=played.span_s,
        all=summary(records, played.span_s),
        kinds={kind: summary([r for r in records if r.kind == kind], played.span_s) for kind in kinds},
        late_s=max((record.sent_s - record.due_s for record in records), default=0.0),
    )


def summary(records: Sequence[Record], span_s: float) -> Summary:
    """The figures of some prompts that were played in `span_s` seconds."""
    images = sum(len(record.timings) for record in records)
    refused = Counter(record.code for record in records if record.code is not None)
    return Summary(
        prompts=len(records),
        images=images,
        images_per_s=images / span_s if span_s > 0 else 0.0,
        latency_s=percentiles(record.latency_s for record in records),
        first_image_s=percentiles(
            record.first_image_s - record.due_s for record in records if record.first_image_s is not None
        ),
        an_image=_work(records),
        refused=dict(refused),
        refused_share=refused.total() / len(records) if records else 0.0,
    )


def percentiles(seconds: Iterable[float | None]) -> Percentiles | None:
    """The percentiles of the times that are known; None if none is."""
    known = [second for second in seconds if second is not None]
    if not known:
        return None
    p50, p90, p99 = np.percentile(known, (50, 90, 99), method="linear").tolist()
    return Percentiles(p50, p90, p99, float(np.mean(known)), max(known))


def _work(records: Sequence[Record]) -> ImageSeconds | None:
    timings = [timing for record in records for timing in record.timings]
    if not timings:
        return None
    means = np.mean([(t.queue_s, t.text_s, t.unet_s, t.vae_s) for t in timings], axis=0).tolist()
    return ImageSeconds(*means)
