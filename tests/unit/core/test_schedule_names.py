"""The names that everybody uses, beside the schedules that the U-Net stage has under them."""

from collections.abc import Mapping
from typing import Any

import pytest

from stages.core.errors import ModelError
from stages.core.schedule_names import OF_DIFFUSERS, SCHEDULE_NAMES, evaluations, own_schedule
from stages.unet.schedules import SCHEDULES, build, names

Config = Mapping[str, Any]

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FAMILIES: Mapping[str, Config] = {
    "sd15": _BETAS | {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1},
    "sd21": _BETAS | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "steps_offset": 1},
    "sdxl": _BETAS | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "steps_offset": 1},
    "turbo": _BETAS | {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
    "lcm": _BETAS | {"_class_name": "LCMScheduler", "original_inference_steps": 50},
    "dpm": _BETAS | {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
    "heun": _BETAS | {"_class_name": "HeunDiscreteScheduler", "timestep_spacing": "linspace"},
}
"""scheduler_config.json as models come with it."""


def test_the_names_are_those_that_can_be_built() -> None:
    assert sorted(SCHEDULE_NAMES) == sorted(names())


def test_what_diffusers_calls_them_is_all_that_can_be_built_without_a_spacing() -> None:
    of_diffusers = {own_schedule({"_class_name": name}) for name in OF_DIFFUSERS}
    stochastic = own_schedule({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"})
    assert of_diffusers | {stochastic} == set(SCHEDULES)


@pytest.mark.parametrize("class_name", OF_DIFFUSERS)
def test_a_class_of_diffusers_builds_the_schedule_of_its_name(class_name: str) -> None:
    config = {"_class_name": class_name, "skip_prk_steps": True}
    for_jax = config | {"_class_name": f"Flax{class_name}"}
    assert build(config, 4).name == own_schedule(config) == OF_DIFFUSERS[class_name]
    assert build(for_jax, 4).name == own_schedule(for_jax) == OF_DIFFUSERS[class_name]


def test_a_class_without_a_name_cannot_be_built() -> None:
    config = {"_class_name": "DEISMultistepScheduler"}
    assert own_schedule(config) is None
    with pytest.raises(ModelError):
        build(config, 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 25, 50])
@pytest.mark.parametrize("name", names())
def test_evaluations_are_as_many_as_the_schedule_makes(name: str, steps: int, family: str) -> None:
    assert evaluations(name, steps) == len(build(FAMILIES[family], steps, name).timesteps)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_evaluations_of_the_own_schedule_are_those_of_its_name(steps: int, family: str) -> None:
    own = own_schedule(FAMILIES[family])
    assert own is not None
    assert evaluations(own, steps) == len(build(FAMILIES[family], steps).timesteps)


def test_a_name_that_is_not_served_counts_one_a_step() -> None:
    assert evaluations("heunish", 7) == evaluations("", 7) == 7
