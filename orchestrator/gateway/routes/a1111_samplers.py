"""Samplers and schedulers by the names that AUTOMATIC1111's web UI has for them, and the schedules they mean. Pure."""

from typing import Any, NamedTuple

from orchestrator.gateway.errors import HttpError
from stages.core.schedule_names import SCHEDULE_NAMES


class Sampler(NamedTuple):
    """A sampler by its name, by the other names that clients send, and the schedule it means."""

    name: str
    aliases: tuple[str, ...]
    schedule: str


SAMPLERS = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m", "dpmpp_2m"), "dpmpp_2m"),
    Sampler("DPM++ 2M SDE", ("k_dpmpp_2m_sde", "dpmpp_2m_sde"), "dpmpp_2m_sde"),
    Sampler("Euler a", ("k_euler_a", "k_euler_ancestral", "euler_a"), "euler_a"),
    Sampler("Euler", ("k_euler",), "euler"),
    Sampler("LMS", ("k_lms",), "lms"),
    Sampler("Heun", ("k_heun",), "heun"),
    Sampler("DDIM", (), "ddim"),
    Sampler("PLMS", ("pndm",), "pndm"),
    Sampler("UniPC", (), "unipc"),
    Sampler("LCM", (), "lcm"),
    Sampler("TCD", (), "tcd"),
)

SCHEDULERS = {"automatic": "Automatic", "karras": "Karras", "exponential": "Exponential", "beta": "Beta"}
"""Labels by name. Automatic is how the model's own configuration spaces the steps."""

_AUTOMATIC = ("", "automatic")
_BY_NAME = {name.lower(): sampler for sampler in SAMPLERS for name in (sampler.name, *sampler.aliases)}


class Chosen(NamedTuple):
    """A schedule, None for the model's own, and whether the scheduler asked for has a part in it."""

    schedule: str | None
    spaced: bool


def choose(sampler: str | None, scheduler: str | None) -> Chosen:
    """The schedule of a sampler and a scheduler. Either may be missing; "DPM++ 2M Karras" names both.

    A scheduler that does not exist, or not for this sampler, is left out, as the web UI does with one it does not
    know: clients keep those of another server. Raises HttpError for an unknown sampler.
    """
    name, spacing = (sampler or "").strip().lower(), (scheduler or "").strip().lower()
    head, _, tail = name.rpartition(" ")
    if head and name not in _BY_NAME and tail in SCHEDULERS:
        name, spacing = head, tail
    if name in SCHEDULE_NAMES and name not in _BY_NAME:  # as the files of this server call it
        return Chosen(name, spacing in _AUTOMATIC or name.endswith(f"_{spacing}"))
    if name in _AUTOMATIC:
        return Chosen(None, spacing in _AUTOMATIC)
    if name not in _BY_NAME:
        raise HttpError(404, "Sampler not found", "not_found", "sampler_name")  # clients compare this sentence
    schedule = _BY_NAME[name].schedule
    if spacing in _AUTOMATIC:
        return Chosen(schedule, True)
    spaced = f"{schedule}_{spacing}"
    return Chosen(spaced, True) if spaced in SCHEDULE_NAMES else Chosen(schedule, False)


def sampler_name(schedule: str) -> str:
    """The sampler, and after it the scheduler, that a schedule is called here."""
    for sampler in SAMPLERS:
        for spacing, label in SCHEDULERS.items():
            if schedule == sampler.schedule:
                return sampler.name
            if schedule == f"{sampler.schedule}_{spacing}":
                return f"{sampler.name} {label}"
    return schedule


def samplers() -> list[dict[str, Any]]:
    """All samplers, as `GET samplers` lists them."""
    return [{"name": each.name, "aliases": list(each.aliases), "options": {}} for each in SAMPLERS]


def schedulers() -> list[dict[str, Any]]:
    """All schedulers, as `GET schedulers` lists them."""
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": -1, "need_inner_model": False}
        for name, label in SCHEDULERS.items()
    ]
