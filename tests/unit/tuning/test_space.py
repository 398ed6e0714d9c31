from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan import Machine, plan
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.space import candidates
from orchestrator.tuning.tuner import configured_candidate
from stages.core import config, cores
from stages.core.config import Config
from tests.unit.cards import CARD, DISTILLED

machines = st.one_of(
    st.tuples(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 28]), st.just(1)),
    st.tuples(st.sampled_from([4, 8, 16, 32, 64]), st.sampled_from([2, 4])),
)


@given(machines, st.booleans())
@settings(deadline=None, max_examples=25)
def test_every_candidate_can_be_planned_as_it_says(size: tuple[int, int], distilled: bool) -> None:
    topology = Topology.what_if(*size, memory=1 << 40)
    card = DISTILLED if distilled else CARD
    for each in candidates(topology, card):
        planned = plan(each.apply(Config()), card, topology.machine)
        unets = [spec for spec in planned.stages if spec.kind == "unet"]
        assert len(unets) == each.unet.replicas
        for spec in unets:
            assert (spec.threads, spec.streams, spec.max_rows) == (
                each.unet.threads,
                each.unet.streams,
                each.unet.max_rows,
            )
            assert spec.threads <= len(cores.parse(spec.cores))


def test_no_two_candidates_are_the_same_or_have_the_same_name() -> None:
    for topology in (Topology.what_if(2, 1), Topology.what_if(16, 2), Topology.what_if(64, 4)):
        every = candidates(topology, CARD)
        assert len(set(every)) == len(every) == len({each.name for each in every})


def test_two_cores_have_all_ways_to_share() -> None:
    every = candidates(Topology.what_if(2, 1), CARD)
    assert {each.share for each in every} == {"turns", "timeslice"}
    assert any(each.unet.cores == "0" and each.vae.cores == "1" for each in every)
    assert any(each.unet.streams == 2 for each in every)


def test_a_quota_bounds_the_threads() -> None:
    topology = Topology(((0, 1, 2, 3),), Machine(frozenset(range(4)), 2.5, 1 << 34))
    for each in candidates(topology, CARD):
        assert max(each.unet.threads, each.vae.threads, each.text.threads) <= 2


def test_overrides_say_the_same_as_apply() -> None:
    for each in candidates(Topology.what_if(8, 2), CARD):
        told = config.load(None, each.overrides(), environ={})
        applied = each.apply(Config())
        assert (told.pipeline, told.stages()) == (applied.pipeline, applied.stages())


def test_apply_leaves_the_rest_of_a_configuration_alone() -> None:
    each = candidates(Topology.what_if(2, 1), CARD)[0]
    own = config.load(
        None, ["pipeline.order=fair", "model.embed_cache_mb=3", "stage.vae.implementation=a:B"], environ={}
    )
    applied = each.apply(own)
    assert applied.pipeline.order == "fair"
    assert applied.model == own.model
    assert applied.stages()[2].implementation == "a:B"


def test_a_configuration_is_read_as_the_candidate_it_is() -> None:
    topology = Topology.what_if(4, 1)
    own = config.load(None, ["stage.unet.streams=2", "stage.unet.max_rows=8"], environ={})
    found = configured_candidate(own, CARD, topology)
    assert (found.unet.cores, found.unet.threads, found.unet.streams, found.unet.max_rows) == ("0-3", 4, 2, 8)
    for each in candidates(topology, CARD):
        assert configured_candidate(each.apply(Config()), CARD, topology).unet == each.unet
