"""What a hub says of itself, for tests of those who read it."""

import msgspec

from stages.core import wire


def stage(name: str, **changes: object) -> wire.StageStatus:
    """A stage process at rest on two cores."""
    kind, replica = name.split("-")
    at_rest = wire.StageStatus(
        name=name,
        kind=kind,  # type: ignore[arg-type]  # the caller names a kind that exists
        replica=int(replica),
        pid=123,
        state="busy",
        cores_asked="0-1",
        cores_seen="0-1",
        threads=2,
        job=None,
        step=0,
        steps=0,
        busy_share=0.0,
        restarts=0,
        rss_bytes=0,
        pss_bytes=0,
        cpu_outside_infer_share=None,
    )
    return msgspec.structs.replace(at_rest, **changes)


def status(**changes: object) -> wire.Status:
    """A hub that serves, without a stage to speak of."""
    serving = wire.Status(
        state="serving",
        uptime_s=1.0,
        model="paper",
        queue=wire.QueueStatus(0, 64),
        arena=wire.ArenaStatus(10, 10),
        stages=(),
        hop_us=wire.HopStatus(None, None),
        hub_pid=1,
        hub_cpu_s=0.0,
    )
    return msgspec.structs.replace(serving, **changes)
