"""The plan of a configuration: processes, cores, threads, and the sizes of the arena. Pure."""

import math

import msgspec

from stages.core import checkpoint, cores
from stages.core.arena import Layout, PoolSpec
from stages.core.config import Config, Share, StageConfig, StageSpec, parse_size
from stages.core.embeds import nbytes
from stages.core.errors import ConfigError
from stages.core.model import TOKENS, ModelCard
from stages.core.order import Order
from stages.core.region import available_memory
from stages.core.route import POOLS, STEPWISE, Pool, kinds
from stages.core.wire import KINDS, Kind

IMPLEMENTATIONS: dict[Kind, str] = {
    "text": "stages.text.encoder:TextStage",
    "unet": "stages.unet.engine:UnetStage",
    "vae": "stages.vae.decoder:VaeStage",
}

SHARED: Share = "timeslice"
"""`pipeline.share` where the configuration says `auto`: the one that measured best (docs/measured.md)."""

PREEMPTION_SLOTS = 8
"""Jobs a U-Net process may hold beyond its depth because they go before all that it has."""

_IMAGE_OVERHEAD = 1 << 20
"""Bytes for what an encoded picture holds beyond its pixels: two prompts, twice, at their longest, and headers."""


class Machine(msgspec.Struct, frozen=True):
    """The cores, CPU time and memory of a machine that may be used."""

    cores: frozenset[int]
    quota: float
    """CPU seconds per second granted by the cgroup; infinity where there is no limit."""
    memory_available: int

    @classmethod
    def here(cls) -> "Machine":
        """The machine this process runs on."""
        return cls(cores.allowed(), cores.quota(), available_memory())


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a pipeline; `stages` lack only what exists after launch (descriptors, address, parent)."""

    card: ModelCard
    share: Share
    order: Order
    stages: tuple[StageSpec, ...]
    pools: tuple[PoolSpec, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def depths(self) -> dict[Kind, int]:
        """The depth of the processes of a kind, which is the same for all of them."""
        return {spec.kind: spec.depth for spec in self.stages}

    @property
    def arena_bytes(self) -> int:
        """Bytes of shared memory that the tensors take."""
        return Layout(self.pools).nbytes


def plan(config: Config, card: ModelCard, machine: Machine) -> Plan:
    """The plan of a configuration. Raises ConfigError naming the key that cannot be had on this machine."""
    stages = config.stages()
    core_sets = _core_sets(config, machine)
    share: Share = config.pipeline.share
    if _disjoint(list(core_sets.values())):
        share = "disjoint"
    elif share == "auto":
        share = SHARED
    sizes = tuple(parse_size(size, "model.sizes") for size in config.model.sizes) or (card.native,)
    for size in sizes:
        _check_size(size, card.size_step)
    by_kind = {stage.kind: stage for stage in stages}
    depths = {stage.kind: _at_work(stage, card) + 1 for stage in stages}
    most = depths | {STEPWISE: depths[STEPWISE] + PREEMPTION_SLOTS}
    pools = _pools(config, card, sizes, {kind: most[kind] * by_kind[kind].replicas for kind in KINDS})
    specs: list[StageSpec] = []
    for stage in stages:
        for replica in range(stage.replicas):
            mine = _part(core_sets[stage.kind], replica, stage.replicas) if share == "disjoint" else None
            own = mine or core_sets[stage.kind]
            alone = share == "disjoint" and (stage.replicas == 1 or mine is not None)
            specs.append(
                StageSpec(
                    name=f"{stage.kind}-{replica}",
                    number=len(specs),
                    kind=stage.kind,
                    replica=replica,
                    implementation=stage.implementation or IMPLEMENTATIONS[stage.kind],
                    cores=cores.render(own),
                    threads=_threads(stage, own, machine),
                    takes_turns=share == "turns",
                    bind_threads=alone or share == "turns",
                    streams=stage.streams if stage.kind == STEPWISE else 1,
                    max_rows=stage.max_rows,
                    depth=depths[stage.kind],
                    shapes_bytes=(stage.shapes_mb << 20) or machine.memory_available // 4 // stage.replicas,
                    order=config.pipeline.order,
                    precision=config.model.precision,
                    model=str(card.path),
                    sizes=sizes,
                    schedule=config.model.schedule,
                    prompt_chunks=config.model.prompt_chunks,
                    embed_cache_mb=config.model.embed_cache_mb,
                    pools=pools,
                )
            )
    return Plan(
        card=card,
        share=share,
        order=config.pipeline.order,
        stages=tuple(specs),
        pools=pools,
        sizes=sizes,
    )


def _check_size(size: tuple[int, int], step: int) -> None:
    """Refuse a size that the U-Net cannot take, with the nearest one that it can."""
    if any(side % step for side in size):
        # The half rounds up: a larger picture than was asked for can be cut.
        width, height = (max(1, (side + step // 2) // step) * step for side in size)
        raise ConfigError(
            f"model.sizes: {size[0]}x{size[1]} is no multiple of {step} pixels each way, which this model needs; "
            f"the nearest size is {width}x{height}"
        )


def _core_sets(config: Config, machine: Machine) -> dict[Kind, frozenset[int]]:
    """The cores of every kind, as asked for; those that ask for none get the rest, or all, as `share` says."""
    asked = {stage.kind: cores.parse(stage.cores) for stage in config.stages()}
    for kind, wanted in asked.items():
        if absent := wanted - machine.cores:
            raise ConfigError(
                f"stage.{kind}.cores: {cores.render(absent)} cannot be used here; "
                f"the cores of this process are {cores.render(machine.cores)}"
            )
    named = {kind: wanted for kind, wanted in asked.items() if wanted}
    silent = [kind for kind in KINDS if not asked[kind]]
    share = config.pipeline.share
    if share == "disjoint":
        rest = machine.cores - frozenset().union(*named.values())
        sets = named | _divide(rest, silent)
        if not _disjoint(list(sets.values())):
            raise ConfigError('stage.cores: cores stand in two stages, and pipeline.share is "disjoint"')
        return sets
    sets = named | dict.fromkeys(silent, machine.cores)
    for one in sets.values():
        for other in sets.values():
            if one != other and one & other:
                raise ConfigError(
                    f"stage.cores: {cores.render(one)} and {cores.render(other)} overlap in part, the slowest way to "
                    "share (every forward waits for its busiest core); make the sets equal, or disjoint"
                )
    return sets


def _divide(rest: frozenset[int], kinds: list[Kind]) -> dict[Kind, frozenset[int]]:
    """Deal `rest` out: one core to the text encoder, a quarter to the VAE, the others to the U-Net."""
    if not kinds:
        return {}
    if len(rest) < len(kinds):
        raise ConfigError(
            f'pipeline.share: "disjoint" needs a core for each of {", ".join(kinds)}, '
            f'{len(rest)} are left; use "timeslice"'
        )
    ordered = sorted(rest)
    counts = {kind: 1 for kind in kinds}
    if "vae" in counts:
        counts["vae"] = max(1, (len(rest) - len(kinds)) // 4)
    largest: Kind = "unet" if "unet" in counts else kinds[-1]
    counts[largest] += len(rest) - sum(counts.values())
    dealt: dict[Kind, frozenset[int]] = {}
    for kind in kinds:
        dealt[kind] = frozenset(ordered[: counts[kind]])
        ordered = ordered[counts[kind] :]
    return dealt


def _disjoint(sets: list[frozenset[int]]) -> bool:
    return sum(map(len, sets)) == len(frozenset().union(*sets))


def _part(own: frozenset[int], replica: int, replicas: int) -> frozenset[int] | None:
    """The share of one of `replicas` processes in the cores of their kind; None where there are too few."""
    if replicas == 1 or len(own) < replicas:
        return None
    ordered = sorted(own)
    first, last = (len(own) * number // replicas for number in (replica, replica + 1))
    return frozenset(ordered[first:last])


def _threads(stage: StageConfig, own: frozenset[int], machine: Machine) -> int:
    """Inference threads of a process: one a core, but no more than the cgroup grants CPU time for."""
    if stage.threads > len(own):
        raise ConfigError(
            f"stage.{stage.kind}.threads: {stage.threads} threads on {len(own)} cores wait for each other"
        )
    granted = len(own) if math.isinf(machine.quota) else max(1, math.floor(machine.quota))
    return stage.threads or min(len(own), granted)


def _at_work(stage: StageConfig, card: ModelCard) -> int:
    """Jobs that one process works on at once, of pictures with the model's own guidance scale."""
    if stage.kind != STEPWISE:
        return 1
    return stage.streams * (stage.max_rows // card.rows(card.guidance_scale))


def _pools(
    config: Config, card: ModelCard, sizes: tuple[tuple[int, int], ...], jobs: dict[Kind, int]
) -> tuple[PoolSpec, ...]:
    """The arena's pools: a slot for every job that may write one, and for every job that may still read one."""
    slot_bytes: dict[Pool, int] = {
        "embeds": nbytes((2, config.model.prompt_chunks * TOKENS, card.embed_dim), card.pooled_dim),
        "latents": max(checkpoint.slot_bytes(card.latent_shape(*size)) for size in sizes),
        "image": max(width * height * 4 for width, height in sizes) + _IMAGE_OVERHEAD,
    }
    return tuple(PoolSpec(pool, sum(jobs[kind] for kind in kinds(pool)), slot_bytes[pool]) for pool in POOLS)
