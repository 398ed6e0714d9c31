"""What limits: histories of loads whose answer is known."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import bottleneck
from orchestrator.bottleneck import Host, Load, between, find
from stages.core import cores
from tests.unit.statuses import stage, status

STAGE = stage("unet-0", cores_asked="0-3", cores_seen="0-3", threads=4)


def load(name: str, busy: float, used: float, own: str, idle: float = 0.0, **more: int) -> Load:
    kind = name.partition("-")[0]
    mine = cores.parse(own)
    settings = {"threads": len(mine), "streams": 1, "max_rows": 2} | more
    return Load(
        name=name,
        kind=kind,
        busy_share=busy,
        cores_used=used,
        cores=mine,
        cores_idle=idle,
        **settings,  # type: ignore[arg-type]
    )


def host(share: str = "timeslice", own: str = "0-3", quota: float = math.inf) -> Host:
    return Host(share=share, cores=cores.parse(own), quota=quota)


def shared(busy: tuple[float, float], used: tuple[float, float], idle: float = 0.0, **unet: int) -> list[Load]:
    """A U-Net and a VAE on the same four cores."""
    return [load("unet-0", busy[0], used[0], "0-3", idle, **unet), load("vae-0", busy[1], used[1], "0-3", idle)]


def test_where_nothing_runs_nothing_limits() -> None:
    found = find(shared((0.0, 0.0), (0.0, 0.0), idle=4.0), host())
    assert (found.limits, found.change) == (None, "")
    assert find([], host()).limits is None


def test_one_prompt_after_another_leaves_every_stage_waiting() -> None:
    found = find(shared((0.7, 0.28), (1.9, 0.7)), host())
    assert found.limits == "prompts"
    assert "unet-0 70%, vae-0 28%" in found.why
    assert "more prompts at once" in found.change


def test_one_prompt_that_fills_the_cores_by_itself_needs_no_others_beside_it() -> None:
    assert find(shared((0.7, 0.28), (2.7, 1.0)), host()).limits == "cores 0-3"


def test_shared_cores_that_are_full_limit_and_the_share_of_their_user_bounds_the_gain() -> None:
    found = find(shared((0.97, 0.41), (2.9, 0.97)), host())
    assert found.limits == "cores 0-3"
    assert "97% of cores 0-3 are in use, 75% of that by unet-0" in found.why
    assert "up to 1.6 times" in found.change  # 1 / (1 - 0.75 / 2)


def test_a_stage_that_is_always_busy_on_idle_cores_wants_more_at_once() -> None:
    found = find(shared((0.97, 0.2), (2.0, 0.1), idle=1.9), host())
    assert found.limits == "unet-0"
    assert "stage.unet.streams = 2" in found.change
    assert "max_rows = 16" in find(shared((0.97, 0.2), (2.0, 0.1), idle=1.9, streams=2, max_rows=8), host()).change
    assert "threads = 4" in find(shared((0.97, 0.2), (2.0, 0.1), idle=1.9, threads=2), host()).change


def test_other_programs_on_the_same_cores_are_named() -> None:
    found = find(shared((0.97, 0.2), (1.4, 0.1), idle=0.1), host())
    assert found.limits == "other programs"
    assert "60% of cores 0-3" in found.why


def test_turns_are_full_when_the_lease_is_always_out() -> None:
    loads = shared((0.7, 0.28), (2.0, 1.0))
    assert find(loads, host("turns")).limits == "cores 0-3"
    assert find(loads, host("timeslice")).limits == "prompts"


def test_cores_that_no_stage_has_are_offered_first() -> None:
    loads = [load("unet-0", 0.97, 3.9, "0-3"), load("vae-0", 0.4, 1.6, "4-7")]
    assert "cores 8-11" in find(loads, host(own="0-11")).change
    assert "cores 4-5" in find(shared((0.97, 0.41), (2.9, 0.97)), host(own="0-5")).change


def test_a_core_moves_from_the_stage_that_can_spare_one() -> None:
    loads = [load("unet-0", 0.97, 3.9, "0-3"), load("vae-0", 0.4, 1.6, "4-7"), load("text-0", 0.01, 0.01, "8")]
    found = find(loads, host("disjoint", "0-8"))
    assert (found.limits, "a core of vae-0 (up to 1.25 times" in found.change) == ("unet-0", True)
    assert "unet-0 is busy 97% of the time; vae-0 40%, text-0 1%" in found.why


def test_stages_of_one_core_each_had_better_share() -> None:
    loads = [load("unet-0", 0.98, 0.98, "0"), load("vae-0", 0.42, 0.42, "1", idle=0.58)]
    found = find(loads, host("disjoint", "0-1"))
    assert found.limits == "unet-0"
    assert 'pipeline.share = "timeslice": up to 1.40 times' in found.change  # 0.98 of 2 cores, 0.70 of them busy


def test_where_all_stages_are_full_only_less_work_or_more_cores_help() -> None:
    loads = [load("unet-0", 0.98, 1.96, "0-1"), load("vae-0", 0.97, 1.94, "2-3")]
    assert "fewer steps, or more cores" in find(loads, host("disjoint")).change


def test_a_quota_is_all_the_room_there_is() -> None:
    loads = shared((0.97, 0.41), (1.4, 0.5), idle=2.1, threads=2)
    found = find(loads, host(quota=2.0))
    assert found.limits == "cores 0-3"
    assert "95% of cores" in found.why


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["text-0", "unet-0", "unet-1", "vae-0"]),
            st.floats(0, 1),
            st.floats(0, 8),
            st.sampled_from(["0", "0-3", "4-7", "8"]),
            st.floats(0, 4),
        ),
        max_size=4,
        unique_by=lambda entry: entry[0],
    ),
    st.sampled_from(["disjoint", "timeslice", "turns"]),
    st.sampled_from([math.inf, 1.0, 2.5]),
)
def test_there_is_always_one_line(
    entries: list[tuple[str, float, float, str, float]], share: str, quota: float
) -> None:
    found = find([load(*entry) for entry in entries], host(share, "0-11", quota))
    assert found.why
    assert "\n" not in found.why + found.change
    assert "nan" not in found.why + found.change
    assert (found.limits is None) == (found.change == "")


def test_loads_between_statuses_are_differences() -> None:
    before = msgspec.structs.replace(STAGE, busy_s=10.0, cpu_s=30.0, cores_idle_s=100.0, cores_asked="0-3")
    after = msgspec.structs.replace(before, busy_s=14.0, cpu_s=42.0, cores_idle_s=102.0)
    (found,) = between([before], [after], 5.0)
    assert (found.busy_share, found.cores_used, found.cores_idle) == pytest.approx((0.8, 2.4, 0.4))
    (anew,) = between([before], [msgspec.structs.replace(after, pid=2, busy_s=1.0)], 5.0)
    assert anew.busy_share == pytest.approx(0.2)
    assert between([before], [after], 0.0) == []


def test_the_recent_loads_are_the_status_own() -> None:
    stage = msgspec.structs.replace(STAGE, recent_busy_share=0.5, recent_cores_used=1.5, recent_cores_idle=0.5)
    (found,) = bottleneck.recent([stage])
    assert (found.busy_share, found.cores_used, found.cores_idle) == (0.5, 1.5, 0.5)


def test_a_status_says_where_it_runs() -> None:
    told = msgspec.structs.replace(status(), share="turns", cores="0-3", cpu_quota=2.0)
    assert Host.of(told) == host("turns", quota=2.0)
    assert Host.of(msgspec.structs.replace(told, cpu_quota=None)).quota == math.inf
