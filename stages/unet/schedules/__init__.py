"""The schedules by name. A model folder names one by its diffusers class; a request may name another."""

import logging
from collections.abc import Mapping
from types import MappingProxyType

from stages.core.errors import BadRequest, ModelError
from stages.core.json_file import shown
from stages.core.schedule_names import OF_DIFFUSERS, own_schedule
from stages.unet.schedules.base import Draw, Latents, Schedule
from stages.unet.schedules.ddim import Ddim
from stages.unet.schedules.dpmpp_2m import Dpmpp2M
from stages.unet.schedules.dpmpp_2m_sde import Dpmpp2MSde
from stages.unet.schedules.euler import Euler
from stages.unet.schedules.euler_ancestral import EulerAncestral
from stages.unet.schedules.heun import Heun
from stages.unet.schedules.lcm import Lcm
from stages.unet.schedules.lms import Lms
from stages.unet.schedules.pndm import Pndm
from stages.unet.schedules.settings import FILE, SigmaSettings
from stages.unet.schedules.tcd import Tcd
from stages.unet.schedules.unipc import UniPC

__all__ = ["SCHEDULES", "Draw", "Latents", "Schedule", "build", "check", "names", "of_request"]

log = logging.getLogger(__name__)

SCHEDULES: Mapping[str, type[Schedule]] = MappingProxyType(
    {kind.name: kind for kind in (Ddim, Pndm, Euler, EulerAncestral, Heun, Dpmpp2M, Dpmpp2MSde, UniPC, Lms, Lcm, Tcd)}
)

_SPACINGS = {"_karras": "use_karras_sigmas", "_exponential": "use_exponential_sigmas", "_beta": "use_beta_sigmas"}
_IMPLIED: Mapping[str, Mapping[str, object]] = {
    "pndm": {"skip_prk_steps": True},
    "dpmpp_2m": {"algorithm_type": "dpmsolver++", "solver_order": 2},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
}
"""Fields that a name implies besides its class, whatever the model's config says."""
_WITHOUT_EFFECT = frozenset({"dynamic_thresholding_ratio", "sample_max_value", "flow_shift", "time_shift_type"})
"""Config fields without effect here: they belong to options that are refused anyway."""


def names() -> tuple[str, ...]:
    """All names of schedules that requests may use."""
    return tuple(
        name + suffix
        for name, kind in SCHEDULES.items()
        for suffix in (("", *_SPACINGS) if issubclass(kind.settings_type, SigmaSettings) else ("",))
    )


def build(config: Mapping[str, object], steps: int, name: str | None = None) -> Schedule:
    """The schedule `name`, or the one the model folder's scheduler_config.json (`config`) names, for `steps` steps.

    As in diffusers' `from_config`, the config's fields go to whatever schedule is named, and a field it lacks gets the
    default of that schedule's diffusers class. Raises `BadRequest` for a name or a number of steps nobody can serve,
    `ModelError` for a config that cannot be honoured.
    """
    if name is None:
        kind, fields = SCHEDULES[_own_name(config)], config
    elif name in names():
        kind, fields = _named(config, name)
    else:
        raise BadRequest(f"unknown schedule {name!r}; one of {', '.join(names())}")
    _warn_of_strangers(fields)
    return kind(fields, steps)


def check(config: Mapping[str, object], steps: int, name: str) -> None:
    """Build once, to find out at start what requests that name no schedule would be refused for.

    They get the schedule `name` or, where it is empty, that of `config`. Raises as `build`, but warns only where
    requests can name one that is served.
    """
    try:
        build(config, steps, name or None)
    except ModelError as error:
        if name or not any(_can_be_built(config, steps, other) for other in SCHEDULES):
            raise
        log.warning("%s; requests have to name a schedule, or model.schedule has to", error.message)


def _can_be_built(config: Mapping[str, object], steps: int, name: str) -> bool:
    kind, fields = _named(config, name)
    try:
        kind(fields, steps)
    except (BadRequest, ModelError):
        return False
    return True


def of_request(config: Mapping[str, object], steps: int, name: str | None) -> Schedule:
    """The schedule of a request, as `build` makes it. Raises BadRequest, also where the model's config is to blame."""
    try:
        return build(config, steps, name)
    except ModelError as error:
        why = "has to be named" if name is None else f"{name!r} does not fit this model"
        raise BadRequest(f"`schedule` {why}: {error.message}; there are {', '.join(names())}") from error


def _own_name(config: Mapping[str, object]) -> str:
    name = own_schedule(config)
    if name is None:
        class_name = shown(config.get("_class_name"))
        raise ModelError(f"{FILE}: _class_name {class_name} is not served; {', '.join(OF_DIFFUSERS)} are")
    return name


def _named(config: Mapping[str, object], name: str) -> tuple[type[Schedule], Mapping[str, object]]:
    """The class of a name, and the config with what the name says in it."""
    if name in SCHEDULES:
        return SCHEDULES[name], {**config, **_IMPLIED.get(name, {})}
    stem, suffix = name.rsplit("_", 1)
    spacing = {field: field == _SPACINGS[f"_{suffix}"] for field in _SPACINGS.values()}
    return SCHEDULES[stem], {**config, **_IMPLIED.get(stem, {}), **spacing}


def _warn_of_strangers(config: Mapping[str, object]) -> None:
    """Name the fields that say something and that no schedule here reads."""
    known = _WITHOUT_EFFECT.union(*(kind.settings_type.__struct_fields__ for kind in SCHEDULES.values()))
    strangers = [field for field, value in config.items() if not field.startswith("_") and value and field not in known]
    if strangers:
        log.warning("%s: not honoured: %s", FILE, ", ".join(sorted(strangers)))
