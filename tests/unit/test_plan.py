from itertools import combinations, zip_longest
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.plan import IMPLEMENTATIONS, PREEMPTION_SLOTS, SHARED, Machine, Plan, plan
from stages.core import cores
from stages.core.checkpoint import slot_bytes
from stages.core.config import Config, ModelConfig, PipelineConfig, StageConfig
from stages.core.errors import ConfigError
from stages.core.model import TOKENS
from stages.core.route import TEXT_TO_IMAGE
from stages.core.wire import KINDS
from tests.unit.cards import CARD, DISTILLED, machine

UNGUIDED = msgspec.structs.replace(CARD, guidance_scale=0.0)
"""As turbo models are: not told the guidance scale, and of one row an image where nothing else is asked for."""


def configure(share: str = "auto", model: ModelConfig | None = None, **stages: Any) -> Config:
    return Config(
        model=model or ModelConfig(),
        pipeline=PipelineConfig(share=share),  # type: ignore[arg-type]
        stage=tuple(StageConfig(kind=kind, **fields) for kind, fields in stages.items()),  # type: ignore[arg-type]
    )


def core_lists(found: Plan) -> list[str]:
    return [stage.cores for stage in found.stages]


def refusal(config: Config, on: Machine) -> str:
    with pytest.raises(ConfigError) as refused:
        plan(config, CARD, on)
    return refused.value.message


# Cores.


@pytest.mark.parametrize(("share", "made"), [("auto", SHARED), ("timeslice", "timeslice"), ("turns", "turns")])
@pytest.mark.parametrize(("count", "everywhere"), [(1, "0"), (2, "0-1"), (16, "0-15"), (64, "0-63")])
def test_left_alone_all_stages_share_all_cores(count: int, everywhere: str, share: str, made: str) -> None:
    found = plan(configure(share), CARD, machine(count))
    assert found.share == made
    assert [stage.name for stage in found.stages] == ["text-0", "unet-0", "vae-0"]
    assert core_lists(found) == [everywhere] * 3
    assert [stage.threads for stage in found.stages] == [count] * 3
    assert [stage.takes_turns for stage in found.stages] == [made == "turns"] * 3
    assert [stage.bind_threads for stage in found.stages] == [made == "turns"] * 3


@pytest.mark.parametrize(
    ("count", "dealt"),
    [
        (3, ["0", "1", "2"]),
        (4, ["0", "1-2", "3"]),
        (16, ["0", "1-12", "13-15"]),
        (64, ["0", "1-48", "49-63"]),
    ],
)
def test_disjoint_deals_all_cores_out_most_of_them_to_the_unet(count: int, dealt: list[str]) -> None:
    found = plan(configure("disjoint"), CARD, machine(count))
    assert found.share == "disjoint"
    assert core_lists(found) == dealt
    assert [stage.threads for stage in found.stages] == [len(cores.parse(part)) for part in dealt]
    assert all(stage.bind_threads for stage in found.stages)


@pytest.mark.parametrize(
    ("asked", "dealt"),
    [
        ({"unet": {"cores": "8-15"}}, ["0", "8-15", "1-7"]),
        ({"vae": {"cores": "0"}}, ["1", "2-15", "0"]),
        ({"text": {"cores": "3"}, "vae": {"cores": "4-7"}}, ["3", "0-2,8-15", "4-7"]),
        ({"text": {"cores": "0"}, "unet": {"cores": "1-2"}, "vae": {"cores": "3"}}, ["0", "1-2", "3"]),
    ],
)
def test_disjoint_deals_what_is_left_to_those_who_ask_for_nothing(asked: dict[str, Any], dealt: list[str]) -> None:
    assert core_lists(plan(configure("disjoint", **asked), CARD, machine(16))) == dealt


@pytest.mark.parametrize("share", ["auto", "disjoint", "timeslice"])
def test_cores_that_are_named_apart_are_disjoint(share: str) -> None:
    asked: dict[str, Any] = {"text": {"cores": "0"}, "unet": {"cores": "1-2"}, "vae": {"cores": "3"}}
    found = plan(configure(share, **asked), CARD, machine(4))
    assert (found.share, core_lists(found)) == ("disjoint", ["0", "1-2", "3"])
    assert all(stage.bind_threads for stage in found.stages)


@pytest.mark.parametrize(
    ("share", "asked"),
    [
        ("auto", {"text": {"cores": "0-1"}, "unet": {"cores": "0-1"}, "vae": {"cores": "2-3"}}),
        ("timeslice", {"text": {"cores": "0-1"}, "unet": {"cores": "2-3"}, "vae": {"cores": "2-3"}}),
    ],
)
def test_equal_sets_may_be_shared(share: str, asked: dict[str, Any]) -> None:
    found = plan(configure(share, **asked), CARD, machine(4))
    assert (found.share, core_lists(found)) == ("timeslice", [asked[kind]["cores"] for kind in KINDS])
    assert not any(stage.bind_threads for stage in found.stages)


@pytest.mark.parametrize(
    ("share", "asked", "count", "said"),
    [
        ("auto", {"unet": {"cores": "1"}}, 2, ["stage.cores: ", "0-1", "overlap in part"]),
        ("timeslice", {"text": {"cores": "0-1"}, "unet": {"cores": "1-2"}}, 4, ["stage.cores: ", "overlap in part"]),
        ("disjoint", {"text": {"cores": "0-1"}, "unet": {"cores": "1-2"}}, 4, ["stage.cores: ", "pipeline.share"]),
        ("disjoint", {"text": {"cores": "0"}, "unet": {"cores": "0"}}, 4, ["stage.cores: ", "pipeline.share"]),
        ("disjoint", {}, 1, ["pipeline.share: ", "text, unet, vae", "1 are left", "timeslice"]),
        ("disjoint", {}, 2, ["pipeline.share: ", "text, unet, vae", "2 are left", "timeslice"]),
        ("disjoint", {"unet": {"cores": "0-2"}}, 4, ["pipeline.share: ", "text, vae", "1 are left"]),
        ("auto", {"unet": {"cores": "1-3"}}, 2, ["stage.unet.cores: 2-3 ", "0-1"]),
        ("disjoint", {"vae": {"cores": "64"}}, 64, ["stage.vae.cores: 64 ", "0-63"]),
        ("auto", {"text": {"cores": "0-1", "threads": 3}}, 2, ["stage.text.threads: 3 ", "2 cores"]),
        ("auto", {"unet": {"threads": 3}}, 2, ["stage.unet.threads: 3 "]),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_key(
    share: str, asked: dict[str, Any], count: int, said: list[str]
) -> None:
    message = refusal(configure(share, **asked), machine(count))
    assert message.startswith(said[0])
    assert all(part in message for part in said)


# Processes and threads.


@pytest.mark.parametrize(
    ("replicas", "parts"),
    [(1, ["1-12"]), (2, ["1-6", "7-12"]), (5, ["1-2", "3-4", "5-7", "8-9", "10-12"]), (13, ["1-12"] * 13)],
)
def test_processes_of_a_kind_split_its_cores_where_there_are_enough(replicas: int, parts: list[str]) -> None:
    found = plan(configure("disjoint", unet={"replicas": replicas}), CARD, machine(16))
    unets = [stage for stage in found.stages if stage.kind == "unet"]
    assert [(stage.name, stage.replica) for stage in unets] == [(f"unet-{n}", n) for n in range(replicas)]
    assert [stage.cores for stage in unets] == parts
    assert [stage.threads for stage in unets] == [len(cores.parse(part)) for part in parts]
    assert [stage.bind_threads for stage in unets] == [replicas <= 12] * replicas


def test_processes_of_a_kind_share_where_all_share() -> None:
    found = plan(configure("timeslice", vae={"replicas": 2}), CARD, machine(4))
    assert core_lists(found) == ["0-3"] * 4


def test_threads_of_a_split_kind_must_fit_into_a_part() -> None:
    config = configure("disjoint", unet={"replicas": 2, "threads": 7})
    assert refusal(config, machine(16)).startswith("stage.unet.threads: 7 threads on 6 cores")


@pytest.mark.parametrize(
    ("quota", "asked", "threads"), [(4.0, 0, 4), (0.25, 0, 1), (100.0, 0, 16), (4.0, 8, 8), (1.0, 0, 1)]
)
def test_no_more_threads_than_the_cgroup_grants_unless_asked_for(quota: float, asked: int, threads: int) -> None:
    found = plan(configure(unet={"threads": asked}), CARD, machine(16, quota))
    assert found.stages[1].threads == threads


def test_a_stage_is_told_what_the_configuration_says() -> None:
    config = configure(
        model=ModelConfig(precision="f32", prompt_chunks=5),
        text={"implementation": "mine:Stage"},
        unet={"max_rows": 6, "replicas": 2, "streams": 3},
    )
    config = msgspec.structs.replace(config, pipeline=PipelineConfig(order="fair"))
    found = plan(config, CARD, machine(2))
    assert [stage.number for stage in found.stages] == [0, 1, 2, 3]
    assert [stage.streams for stage in found.stages] == [1, 3, 3, 1]
    implementations = [stage.implementation for stage in found.stages]
    assert implementations == ["mine:Stage", *[IMPLEMENTATIONS["unet"]] * 2, IMPLEMENTATIONS["vae"]]
    assert [stage.max_rows for stage in found.stages] == [2, 6, 6, 2]
    for stage in found.stages:
        assert (stage.precision, stage.prompt_chunks, stage.model) == ("f32", 5, str(CARD.path))
        assert (stage.pools, stage.sizes, stage.order) == (found.pools, found.sizes, "fair")


# Sizes and slots.


def test_the_size_is_the_one_of_the_model_unless_others_are_named() -> None:
    assert plan(Config(), CARD, machine(2)).sizes == (CARD.native,)
    named = configure(model=ModelConfig(sizes=("64x128", "32x32")))
    assert plan(named, CARD, machine(2)).sizes == ((64, 128), (32, 32))


@pytest.mark.parametrize(
    ("step", "size", "nearest"),
    [
        (16, "64x72", "64x80"),
        (16, "72x64", "80x64"),
        (32, "136x128", "128x128"),
        (64, "128x544", "128x576"),
        (64, "8x4088", "64x4096"),
        (64, "1000x8", "1024x64"),
    ],
)
def test_a_size_that_the_unet_cannot_take_is_refused_with_the_nearest(step: int, size: str, nearest: str) -> None:
    coarse = msgspec.structs.replace(CARD, size_step=step)
    with pytest.raises(ConfigError) as refused:
        plan(configure(model=ModelConfig(sizes=("64x64", size))), coarse, machine(2))
    assert refused.value.message == (
        f"model.sizes: {size} is no multiple of {step} pixels each way, which this model needs; "
        f"the nearest size is {nearest}"
    )
    assert plan(configure(model=ModelConfig(sizes=(nearest,))), coarse, machine(2)).sizes


def test_a_model_s_own_size_that_its_unet_cannot_take_is_refused_too() -> None:
    odd = msgspec.structs.replace(CARD, size_step=32, native=(72, 64))
    with pytest.raises(ConfigError, match="the nearest size is 64x64"):
        plan(Config(), odd, machine(2))


@pytest.mark.parametrize(
    ("card", "max_rows", "streams", "depth"),
    [
        (CARD, 2, 1, 2),
        (CARD, 3, 1, 2),
        (CARD, 8, 1, 5),
        (CARD, 8, 2, 9),
        (DISTILLED, 2, 1, 3),
        (DISTILLED, 8, 1, 9),
        (DISTILLED, 2, 3, 7),
        (UNGUIDED, 8, 1, 9),
    ],
)
def test_a_unet_holds_the_jobs_of_its_forwards_and_one_more(card: Any, max_rows: int, streams: int, depth: int) -> None:
    found = plan(configure(unet={"max_rows": max_rows, "streams": streams}), card, machine(4))
    assert found.depths == {"text": 2, "unet": depth, "vae": 2}
    assert [stage.depth for stage in found.stages] == [2, depth, 2]


CONFIGS = st.builds(
    configure,
    share=st.sampled_from(["auto", "disjoint", "timeslice", "turns"]),
    model=st.builds(
        ModelConfig,
        sizes=st.lists(st.sampled_from(["64x64", "32x128", "256x8"]), max_size=2, unique=True).map(tuple),
        prompt_chunks=st.integers(1, 16),
    ),
    text=st.fixed_dictionaries({"replicas": st.integers(1, 3), "cores": st.sampled_from(["", "0", "0-1"])}),
    unet=st.fixed_dictionaries(
        {"replicas": st.integers(1, 5), "max_rows": st.integers(2, 64), "cores": st.sampled_from(["", "0-1", "2-7"])}
    ),
    vae=st.fixed_dictionaries({"replicas": st.integers(1, 3), "cores": st.sampled_from(["", "1", "8-9"])}),
)


@given(CONFIGS, st.sampled_from([CARD, DISTILLED]), st.integers(1, 20))
def test_every_plan_has_room_for_the_jobs_its_stages_may_hold(config: Config, card: Any, count: int) -> None:
    try:
        found = plan(config, card, machine(count))
    except ConfigError:
        assume(False)
    pools = {pool.name: pool for pool in found.pools}
    most = found.depths | {"unet": found.depths["unet"] + PREEMPTION_SLOTS}
    jobs = {kind: most[kind] * sum(stage.kind == kind for stage in found.stages) for kind in KINDS}
    for leg, following in zip_longest(TEXT_TO_IMAGE, TEXT_TO_IMAGE[1:]):
        # A job holds its output until the next leg's output is accepted, and all its stages may be full.
        assert pools[leg.writes].count >= jobs[leg.kind] + (jobs[following.kind] if following else 0)
    assert pools["embeds"].slot_bytes >= 2 * config.model.prompt_chunks * TOKENS * card.embed_dim * 4
    for width, height in found.sizes:
        assert pools["latents"].slot_bytes >= slot_bytes(card.latent_shape(width, height))
        assert pools["image"].slot_bytes > width * height * 3
    assert found.arena_bytes >= sum(pool.count * pool.slot_bytes for pool in found.pools)


@given(CONFIGS, st.integers(1, 20))
def test_every_plan_puts_processes_on_cores_that_there_are(config: Config, count: int) -> None:
    try:
        found = plan(config, CARD, machine(count))
    except ConfigError:
        assume(False)
    assert [stage.number for stage in found.stages] == list(range(len(found.stages)))
    sets = [cores.parse(stage.cores) for stage in found.stages]
    for stage, own in zip(found.stages, sets, strict=True):
        assert own
        assert own <= machine(count).cores
        assert 1 <= stage.threads <= len(own)
    for (one, own), (other, others) in combinations(zip(found.stages, sets, strict=True), 2):
        assert own == others or not own & others  # overlap in part is the slowest way to share
        if own & others:  # threads bound to the same cores would wait for each other, but for those that take turns
            assert one.takes_turns == other.takes_turns == one.bind_threads == other.bind_threads


def test_the_machine_here_has_cores_and_memory() -> None:
    here = Machine.here()
    assert here.cores == cores.allowed()
    assert here.quota > 0
    assert here.memory_available > 0


@pytest.mark.parametrize("schedule", ["", "euler_karras"])
def test_stages_are_told_the_schedule_of_requests_that_name_none(schedule: str) -> None:
    planned = plan(Config(model=ModelConfig(schedule=schedule)), CARD, machine(4))
    assert {stage.schedule for stage in planned.stages} == {schedule}
