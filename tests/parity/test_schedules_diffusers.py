"""Whole trajectories of every schedule beside diffusers' own, from the same seed, through the same fake U-Net.

Run as a program, it writes the unit tests' golden trajectories.
"""

import inspect
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.unet import schedules
from tests.unit.stages.test_schedules import GOLDEN_CONFIGS, GOLDEN_STEPS, SHAPE, Job, unet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries among themselves
    import diffusers

GOLDEN = Path(__file__).parents[1] / "unit" / "stages" / "diffusers_trajectories.npz"
STEPS = (1, 2, 4, 20, 50)
TOLERANCE = 1e-4
# Stretching betas to no signal at the end subtracts square roots, in which torch errs by one unit in the last place: as
# much as 1 % of the lowest sigmas.
ZERO_SNR_TOLERANCE = 1e-3

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
    timesteps: NDArray[np.int64] | NDArray[np.float32]
    latents: list[NDArray[np.float32]]


def split(name: str) -> tuple[str, str]:
    """A name without the suffix of its spacing, and the suffix."""
    stem, _, suffix = name.rpartition("_")
    return (stem, suffix) if suffix in SPACINGS else (name, "")


def their_trajectory(name: str, config: Config, steps: int, seed: int) -> Trajectory:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _their_trajectory(name, config, steps, seed)


def _their_trajectory(name: str, config: Config, steps: int, seed: int) -> Trajectory:
    stem, suffix = split(name)
    spacing = {field: key == suffix for key, field in SPACINGS.items()} if suffix else {}
    scheduler = THEIRS[stem].from_config(dict(config), **IMPLIED.get(stem, {}), **spacing)
    scheduler.set_timesteps(steps)
    if hasattr(
        scheduler, "set_begin_index"
    ):  # else it begins at the second of two equal timesteps, and fails at the end
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
    job = Job(schedule, seed)
    return Trajectory(schedule.timesteps, [job.run_to(index) for index in range(len(schedule.timesteps) + 1)])


def assert_same(name: str, config: Config, steps: int, seed: int = 0, *, own: bool = False) -> None:
    """`own`: as the schedule of the config's own class, not by name."""
    theirs = their_trajectory(name, config, steps, seed)
    ours = our_trajectory(None if own else name, config, steps, seed)
    assert ours.timesteps.dtype == theirs.timesteps.dtype
    if ours.timesteps.dtype == np.int64:
        np.testing.assert_array_equal(ours.timesteps, theirs.timesteps)
    else:  # fractional ones, from a table of sigmas in which torch's square roots err by one unit in the last place
        np.testing.assert_allclose(ours.timesteps, theirs.timesteps, rtol=0, atol=1e-4)
    zero_snr = config.get("rescale_betas_zero_snr", False)
    tolerance = ZERO_SNR_TOLERANCE if zero_snr else TOLERANCE
    # Where sigma begins in the thousands, the rounding of the first latents stays in all that follow.
    steep = zero_snr or config.get("beta_schedule") == "squaredcos_cap_v2"
    scale = 0.0
    for index, (mine, other) in enumerate(zip(ours.latents, theirs.latents, strict=True)):
        scale = max(np.abs(other).max(), scale if steep else 0.0)
        assert np.isfinite(scale), f"diffusers fails at {index}"
        difference = np.abs(mine - other).max() / scale
        assert difference <= tolerance, f"after evaluation {index}: {difference:.2e}"


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
    zero_snr = {"rescale_betas_zero_snr": st.booleans()}
    final_sigmas = {"final_sigmas_type": st.sampled_from(["zero", "sigma_min"])}
    no_sample = {"prediction_type": st.sampled_from(["epsilon", "v_prediction"])}
    distilled = {"original_inference_steps": st.sampled_from([50, 100])}
    # With cosine betas, whose sigma begins at 20000, diffusers' sigma_down is the root of a number below zero
    # (euler_a), and single steps multiply (pndm) or divide (heun) the rounding of float32 by thousands.
    no_cosine = {"beta_schedule": st.sampled_from(["linear", "scaled_linear"])}
    class_fields: dict[str, dict[str, st.SearchStrategy[Any]]] = {
        "ddim": {"clip_sample": st.booleans(), "set_alpha_to_one": st.booleans()},
        "pndm": {"set_alpha_to_one": st.booleans()} | no_sample | no_cosine,
        "euler": final_sigmas | zero_snr,
        "euler_a": no_sample | no_cosine | zero_snr,
        "heun": {"clip_sample": st.booleans()} | no_cosine,
        "dpmpp_2m": {
            "solver_type": st.sampled_from(["midpoint", "heun", "bh2"]),
            "lower_order_final": st.booleans(),
            "euler_at_final": st.booleans(),
        }
        | final_sigmas
        | zero_snr,
        "unipc": {
            "solver_order": st.sampled_from([1, 2, 3]),
            "solver_type": st.sampled_from(["bh2", "midpoint"]),
            "disable_corrector": st.sampled_from([[], [0], [0, 2]]),
        }
        | zero_snr,
        "lcm": {"clip_sample": st.booleans()} | distilled,
        "tcd": distilled,
    }
    stem, suffix = split(name)
    fields |= class_fields.get(stem.removesuffix("_sde"), {})
    if suffix:  # for which the error in the lowest sigmas moves timesteps by a tenth
        fields |= {"rescale_betas_zero_snr": st.just(False)}
    if suffix and stem.startswith(("dpmpp", "unipc")):
        # The last bit of the highest sigma decides which whole timestep it is cut to ...
        fields |= {"num_train_timesteps": st.just(1000)}
        # ... and the last two sigmas may be equal: diffusers' other types divide by their distance.
        fields |= {"solver_type": st.just("midpoint")}
    return draw(st.fixed_dictionaries({}, optional=fields)) | draw(betas)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", schedules.names())
@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_config(name: str, steps: int, data: st.DataObject) -> None:
    assert_same(name, data.draw(configs(name)), steps, data.draw(st.integers(0, 2**32)))


@st.composite
def zero_snr_configs(draw: st.DrawFn) -> dict[str, Any]:
    """Of the schedules that are at no signal at all, and so cannot begin from epsilon."""
    return {
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": draw(st.sampled_from(["v_prediction", "sample"])),
        "beta_schedule": draw(st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"])),
    }


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", ["ddim", "lcm", "tcd"])
@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(config=zero_snr_configs(), seed=st.integers(0, 2**32))
def test_zero_terminal_snr(name: str, steps: int, config: Config, seed: int) -> None:
    assert_same(name, config, steps, seed)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [4, 20])
def test_unipc_bh1(order: int, steps: int) -> None:
    """Which diffusers brings only to a last sigma above zero, to zero it multiplies 0 by infinity."""
    config = {"solver_type": "bh1", "solver_order": order, "final_sigmas_type": "sigma_min"}
    assert_same("unipc", BETAS | config, steps)


def saved(kind: type, **fields: Any) -> dict[str, Any]:
    """The scheduler_config.json that diffusers writes: every field of the class, defaults as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config: dict[str, Any] = json.loads(kind(**fields).to_json_string())
    return config


@pytest.mark.parametrize("name", schedules.names())
@pytest.mark.parametrize("origin", sorted({kind.__name__ for kind in THEIRS.values()}))
def test_a_name_overrides_a_config_as_from_config_does(origin: str, name: str) -> None:
    stable_diffusion = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    assert_same(name, saved(getattr(diffusers, origin), **stable_diffusion), 4)


@pytest.mark.parametrize("name", THEIRS)
def test_a_config_names_its_own_schedule(name: str) -> None:
    assert_same(name, saved(THEIRS[name], **IMPLIED.get(name, {})), 4, own=True)


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
SHIPPED = {
    "Stable Diffusion 1.5": {
        "_class_name": "PNDMScheduler",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
    "Stable Diffusion 2.1": {
        "_class_name": "DDIMScheduler",
        "clip_sample": False,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    "SDXL": {
        "_class_name": "EulerDiscreteScheduler",
        "clip_sample": False,
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
    "SDXL Turbo": {"_class_name": "EulerAncestralDiscreteScheduler", "steps_offset": 1, "timestep_spacing": "trailing"},
    "LCM DreamShaper": {
        "_class_name": "LCMScheduler",
        "clip_sample": False,
        "original_inference_steps": 50,
        "set_alpha_to_one": True,
        "timestep_scaling": 10.0,
    },
}


@pytest.mark.parametrize("steps", [4, 25])
@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_configs(model: str, steps: int, caplog: pytest.LogCaptureFixture) -> None:
    config = BETAS | SHIPPED[model]
    name = next(name for name, kind in THEIRS.items() if kind.__name__ == config["_class_name"])
    with caplog.at_level(logging.WARNING, "stages"):
        assert_same(name, config, steps, own=True)
    assert not caplog.records


if __name__ == "__main__":
    arrays: dict[str, NDArray[Any]] = {}
    for key, config in GOLDEN_CONFIGS.items():
        for name in schedules.names():
            timesteps, latents = their_trajectory(name, config, GOLDEN_STEPS, 0)
            arrays |= {f"{name}:{key}:timesteps": timesteps, f"{name}:{key}:latents": latents[-1]}
    np.savez_compressed(GOLDEN, **arrays)  # type: ignore[arg-type]  # no array is named as the one other keyword
