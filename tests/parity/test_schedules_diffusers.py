"""Whole trajectories of every schedule beside diffusers' own, from the same seed, through the same fake U-Net."""

import inspect
import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.unet import schedules
from stages.unet.noise import TorchGenerator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries among themselves
    import diffusers

SHAPE = (4, 8, 8)
STEPS = (1, 2, 4, 20, 50)
TOLERANCE = 1e-4
# Where sigma begins in the thousands, a step takes the difference of float32 numbers ten thousand times its result.
STEEP_TOLERANCE = 1e-3

THEIRS = {
    "ddim": diffusers.DDIMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_2m_sde": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "lcm": diffusers.LCMScheduler,
    "tcd": diffusers.TCDScheduler,
}
IMPLIED: dict[str, dict[str, Any]] = {
    "pndm": {"skip_prk_steps": True},
    "dpmpp_2m": {"algorithm_type": "dpmsolver++", "solver_order": 2},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
}
SPACINGS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}

Config = Mapping[str, Any]


class Trajectory(NamedTuple):
    timesteps: NDArray[np.generic]
    latents: list[NDArray[np.float32]]


def unet(latents: NDArray[np.float32], timestep: float) -> NDArray[np.float32]:
    """Bounded, smooth, and different at every value and timestep."""
    bias = np.float32(timestep / 1000 - 0.5)
    return np.tanh(np.float32(0.7) * latents + np.float32(0.3) * np.roll(latents, 1, axis=-1) + bias)


def split(name: str) -> tuple[str, str]:
    """A name without the suffix of its spacing, and the suffix."""
    stem, _, suffix = name.rpartition("_")
    return (stem, suffix) if suffix in SPACINGS else (name, "")


def their_trajectory(name: str, config: Config, steps: int, seed: int) -> Trajectory:
    stem, suffix = split(name)
    spacing = {field: key == suffix for key, field in SPACINGS.items()} if suffix else {}
    scheduler = THEIRS[stem].from_config(dict(config), **IMPLIED.get(stem, {}), **spacing)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):  # else it begins at the second of two equal timesteps, and fails at the end
        scheduler.set_begin_index(0)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((1, *SHAPE), generator=generator) * scheduler.init_noise_sigma
    found = [latents.numpy()[0]]
    options = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep).numpy()[0]
        output = torch.from_numpy(unet(model_input, float(timestep)))[None]
        (latents, *_) = scheduler.step(output, timestep, latents, return_dict=False, **options)
        found.append(latents.numpy()[0])
    return Trajectory(scheduler.timesteps.numpy(), found)


def our_trajectory(name: str | None, config: Config, steps: int, seed: int) -> Trajectory:
    schedule = schedules.build(config, steps, name)
    generator = TorchGenerator(seed)
    latents = generator.randn(SHAPE) * np.float32(schedule.init_noise_sigma)
    state = np.zeros((schedule.state_rows, *SHAPE), np.float32)
    found = [latents]
    for index, timestep in enumerate(schedule.timesteps):
        output = unet(schedule.scale_input(index, latents), float(timestep))
        latents = schedule.advance(index, output, latents, state, lambda: generator.randn(SHAPE))
        found.append(latents)
    return Trajectory(schedule.timesteps, found)


def assert_same(name: str, config: Config, steps: int, seed: int = 0, *, own: bool = False) -> None:
    """`own`: as the schedule of the config's own class, not by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = their_trajectory(name, config, steps, seed)
    ours = our_trajectory(None if own else name, config, steps, seed)
    assert ours.timesteps.dtype == theirs.timesteps.dtype
    if ours.timesteps.dtype == np.int64:
        np.testing.assert_array_equal(ours.timesteps, theirs.timesteps)
    else:  # fractional ones, from a table of sigmas in which torch's square roots err by one unit in the last place
        np.testing.assert_allclose(ours.timesteps, theirs.timesteps, rtol=1e-6, atol=1e-6)
    steep = config.get("beta_schedule") == "squaredcos_cap_v2" or config.get("rescale_betas_zero_snr", False)
    scale = 0.0
    for index, (mine, other) in enumerate(zip(ours.latents, theirs.latents, strict=True)):
        scale = max(np.abs(other).max(), scale if steep else 0.0)
        assert np.isfinite(scale), f"diffusers fails at {index}"
        difference = np.abs(mine - other).max() / scale
        assert difference <= (STEEP_TOLERANCE if steep else TOLERANCE), f"after evaluation {index}: {difference:.2e}"


@st.composite
def configs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A config of the class that `name` stands for; any field may be missing."""
    fields = {
        "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
        "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample"]),
        "timestep_spacing": st.sampled_from(["leading", "linspace", "trailing"]),
        "steps_offset": st.sampled_from([0, 1]),
        "num_train_timesteps": st.sampled_from([1000, 600]),
        "trained_betas": st.none(),
    }
    betas = st.sampled_from([{}, {"beta_start": 0.00085, "beta_end": 0.012}])
    class_fields: dict[str, dict[str, st.SearchStrategy[Any]]] = {
        "ddim": {"clip_sample": st.booleans(), "set_alpha_to_one": st.booleans()},
        "pndm": {
            "set_alpha_to_one": st.booleans(),
            "prediction_type": st.sampled_from(["epsilon", "v_prediction"]),
        },
        "euler": {"final_sigmas_type": st.sampled_from(["zero", "sigma_min"]), "rescale_betas_zero_snr": st.booleans()},
        "euler_a": {
            "prediction_type": st.sampled_from(["epsilon", "v_prediction"]),
            "rescale_betas_zero_snr": st.booleans(),
        },
        "heun": {"clip_sample": st.booleans()},
        "dpmpp_2m": {
            "solver_type": st.sampled_from(["midpoint", "heun", "bh2"]),
            "lower_order_final": st.booleans(),
            "euler_at_final": st.booleans(),
            "final_sigmas_type": st.sampled_from(["zero", "sigma_min"]),
            "rescale_betas_zero_snr": st.booleans(),
        },
        "unipc": {
            "solver_order": st.sampled_from([1, 2, 3]),
            "solver_type": st.sampled_from(["bh2", "midpoint"]),
            "disable_corrector": st.sampled_from([[], [0], [0, 2]]),
            "rescale_betas_zero_snr": st.booleans(),
        },
        "lcm": {"clip_sample": st.booleans(), "original_inference_steps": st.sampled_from([50, 100])},
        "tcd": {"original_inference_steps": st.sampled_from([50, 100])},
    }
    stem, suffix = split(name)
    fields |= class_fields.get(stem.removesuffix("_sde"), {})
    if suffix:
        # The last bit of the highest sigma decides which whole timestep it is cut to, and torch's may be wrong.
        fields["num_train_timesteps"] = st.just(1000)
        if stem.startswith("dpmpp"):  # where the last two sigmas may be equal, and diffusers divides by their distance
            fields["solver_type"] = st.just("midpoint")
    config = draw(st.fixed_dictionaries({}, optional=fields)) | draw(betas)
    return config


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", schedules.names())
@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_trajectories(name: str, steps: int, data: st.DataObject) -> None:
    assert_same(name, data.draw(configs(name)), steps, data.draw(st.integers(0, 2**32)))
