import pytest

from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.routes import a1111_samplers
from orchestrator.gateway.routes.a1111_samplers import Chosen, choose, sampler_name
from stages.core.schedule_names import SCHEDULE_NAMES


@pytest.mark.parametrize(
    ("sampler", "scheduler", "chosen"),
    [
        (None, None, Chosen(None, True)),
        ("", "", Chosen(None, True)),
        (" ", None, Chosen(None, True)),
        ("Automatic", "Automatic", Chosen(None, True)),
        ("Euler a", None, Chosen("euler_a", True)),
        ("Euler a", "automatic", Chosen("euler_a", True)),
        ("euler A", "AUTOMATIC", Chosen("euler_a", True)),
        ("k_euler_a", None, Chosen("euler_a", True)),
        ("DPM++ 2M", None, Chosen("dpmpp_2m", True)),
        ("DPM++ 2M Karras", None, Chosen("dpmpp_2m_karras", True)),
        ("DPM++ 2M Karras", "beta", Chosen("dpmpp_2m_karras", True)),
        ("DPM++ 2M", "karras", Chosen("dpmpp_2m_karras", True)),
        ("DPM++ 2M SDE", "Exponential", Chosen("dpmpp_2m_sde_exponential", True)),
        ("DPM++ 2M SDE Karras", "automatic", Chosen("dpmpp_2m_sde_karras", True)),
        ("dpmpp_2m_karras", None, Chosen("dpmpp_2m_karras", True)),
        ("dpmpp_2m_karras", "Karras", Chosen("dpmpp_2m_karras", True)),
        ("dpmpp_2m_karras", "beta", Chosen("dpmpp_2m_karras", False)),
        ("dpmpp_2m", "karras", Chosen("dpmpp_2m_karras", True)),
        ("PLMS", None, Chosen("pndm", True)),
        ("UniPC", "Beta", Chosen("unipc_beta", True)),
        ("LCM", None, Chosen("lcm", True)),
        ("Euler a", "karras", Chosen("euler_a", False)),
        ("Euler", "sgm_uniform", Chosen("euler", False)),
        (None, "karras", Chosen(None, False)),
    ],
)
def test_samplers_and_schedulers_become_schedules(sampler: str | None, scheduler: str | None, chosen: Chosen) -> None:
    assert choose(sampler, scheduler) == chosen


@pytest.mark.parametrize("sampler", ["DPM2", "DPM++ 2M Normal", "Karras", "x"])
def test_an_unknown_sampler_is_told_in_the_words_that_clients_compare(sampler: str) -> None:
    with pytest.raises(HttpError) as refused:
        choose(sampler, None)
    assert (refused.value.status, refused.value.message) == (404, "Sampler not found")


def test_every_schedule_has_a_name_here_which_means_it() -> None:
    for schedule in SCHEDULE_NAMES:
        assert choose(sampler_name(schedule), None) == Chosen(schedule, True), schedule
        assert choose(schedule, "automatic") == Chosen(schedule, True), schedule


def test_every_sampler_listed_can_be_asked_for() -> None:
    for listed in a1111_samplers.samplers():
        for name in (listed["name"], *listed["aliases"]):
            assert choose(name, None).schedule in SCHEDULE_NAMES
    assert next(listed["name"] for listed in a1111_samplers.schedulers()) == "automatic"
