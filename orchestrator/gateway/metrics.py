"""Metrics of the pipeline, made from its newest status when asked for. Names follow vLLM's; times are in seconds."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as BaseCollector

from stages.core import wire

if TYPE_CHECKING:
    from orchestrator.gateway.server import Gateway

_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 240, 480, 960)


class Histograms:
    """What is noted when a job ends."""

    def __init__(self) -> None:
        self.latency = Histogram(
            "triptych_e2e_request_latency_seconds", "From submit to the last picture", buckets=_BUCKETS, registry=None
        )
        self.queue = Histogram(
            "triptych_request_queue_time_seconds", "From submit to the first stage", buckets=_BUCKETS, registry=None
        )


class Collector(BaseCollector):
    """Tells what the newest status and the gateway's own counts say."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        """All metrics, now."""
        gateway = self._gateway
        jobs = list(gateway.jobs)
        yield _gauge("num_requests_running", "Prompts in a stage", sum(job.state == "running" for job in jobs))
        yield _gauge(
            "num_requests_waiting",
            "Prompts that wait for their first stage",
            sum(job.state == "queued" for job in jobs),
        )
        ended = CounterMetricFamily(
            "triptych_request_success", "Prompts that have ended, by how", labels=["finished_reason"]
        )
        for state, count in gateway.finished.items():
            ended.add_metric([state], count)
        yield ended
        yield from gateway.histograms.latency.collect()
        yield from gateway.histograms.queue.collect()
        status = gateway.status
        yield _gauge("up", "Whether the hub answers", float(status is not None))
        if status is None:
            return
        yield _gauge("queue_images", "Images that wait for their first stage", status.queue.waiting)
        yield _gauge("arena_slots", "Slots of shared memory", status.arena.slots)
        yield _gauge("arena_slots_free", "Slots that are free", status.arena.free)
        yield _counter("jobs_replayed", "Jobs sent again after a death or spoiled data", status.replayed)
        yield _counter("hub_cpu_seconds", "CPU seconds of the hub", status.hub_cpu_s)
        if status.hop_us.p50 is not None and status.hop_us.p99 is not None:
            hop = GaugeMetricFamily("triptych_hop_seconds", "From one stage to the next, idle one", labels=["quantile"])
            hop.add_metric(["0.5"], status.hop_us.p50 / 1e6)
            hop.add_metric(["0.99"], status.hop_us.p99 / 1e6)
            yield hop
        for name, says, value in _STAGE_GAUGES:
            yield _by_stage(GaugeMetricFamily(f"triptych_{name}", says, labels=["stage"]), status, value)
        for name, says, value in _STAGE_COUNTERS:
            yield _by_stage(CounterMetricFamily(f"triptych_{name}", says, labels=["stage"]), status, value)


_STAGE_GAUGES: tuple[tuple[str, str, Callable[[wire.StageStatus], float]], ...] = (
    ("stage_up", "Whether the stage serves", lambda stage: float(stage.state in ("idle", "busy", "compiling"))),
    ("stage_busy_share", "Share of the last seconds at work", lambda stage: stage.recent_busy_share),
    ("stage_cores_used", "CPU seconds a second, lately", lambda stage: stage.recent_cores_used),
    ("stage_rss_bytes", "Resident memory", lambda stage: stage.rss_bytes),
    ("stage_pss_bytes", "Proportional memory", lambda stage: stage.pss_bytes),
)

_STAGE_COUNTERS: tuple[tuple[str, str, Callable[[wire.StageStatus], float]], ...] = (
    ("stage_restarts", "Processes started after the first", lambda stage: stage.restarts),
    ("stage_busy_seconds", "Seconds at work since it loaded", lambda stage: stage.busy_s),
    ("stage_cpu_seconds", "CPU seconds of its process", lambda stage: stage.cpu_s),
)

_Family = TypeVar("_Family", GaugeMetricFamily, CounterMetricFamily)


def _by_stage(family: _Family, status: wire.Status, value: Callable[[wire.StageStatus], float]) -> _Family:
    for stage in status.stages:
        family.add_metric([stage.name], value(stage))
    return family


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(f"triptych_{name}", says, value=value)


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(f"triptych_{name}", says, value=value)
