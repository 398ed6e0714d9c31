import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.core.errors import BadRequest, ModelError
from stages.core.schedule_names import OF_DIFFUSERS
from stages.unet.noise import TorchGenerator
from stages.unet.schedules import SCHEDULES, Schedule, build, check, names, of_request
from stages.unet.schedules.beta_quantile import beta_quantile

SHAPE = (2, 3, 5)
Config = dict[str, Any]
Latents = NDArray[np.float32]

STABLE_DIFFUSION: Config = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
COSINE: Config = {
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "leading",
}
GOLDEN_CONFIGS = {
    "plain": STABLE_DIFFUSION,
    "trailing": STABLE_DIFFUSION | {"timestep_spacing": "trailing"},
    "cosine": COSINE,
}
GOLDEN_STEPS = 5
# Made by tests/parity/test_schedules_diffusers.py, which also compares much more with diffusers itself.
GOLDEN = np.load(Path(__file__).with_name("diffusers_trajectories.npz"))

DISTILLED = ("lcm", "tcd")
DETERMINISTIC = ("ddim", "euler", "heun", "dpmpp_2m", "unipc", "lms")

CONFIGS = st.fixed_dictionaries(
    {"clip_sample": st.booleans(), "thresholding": st.just(False)},
    optional={
        "beta_schedule": st.sampled_from(["linear", "scaled_linear"]),
        "prediction_type": st.sampled_from(["epsilon", "v_prediction"]),
        "timestep_spacing": st.sampled_from(["leading", "linspace", "trailing"]),
        "steps_offset": st.sampled_from([0, 1]),
        "solver_order": st.sampled_from([1, 2]),
        "final_sigmas_type": st.just("zero"),
    },
)
STEPS = st.integers(1, 30)
SEEDS = st.integers(0, 2**32)


def unet(latents: Latents, timestep: float) -> Latents:
    output: Latents = np.tanh(np.float32(0.7) * latents + np.float32(timestep / 1000 - 0.5))
    return output


class Job:
    """What the engine keeps of a job: index, latents, state, and where its noise stream is."""

    def __init__(self, schedule: Schedule, seed: int) -> None:
        self.schedule = schedule
        self.noise = TorchGenerator(seed)
        self.draws = 0
        self.index = 0
        self.latents = self.noise.randn(SHAPE) * np.float32(schedule.init_noise_sigma)
        self.state = np.zeros((schedule.state_rows, *SHAPE), np.float32)

    def draw(self) -> Latents:
        self.draws += 1
        return self.noise.randn(SHAPE)

    def run_to(self, index: int) -> Latents:
        while self.index < index:
            timestep = float(self.schedule.timesteps[self.index])
            output = unet(self.schedule.scale_input(self.index, self.latents), timestep)
            self.latents = self.schedule.advance(self.index, output, self.latents, self.state, self.draw)
            self.index += 1
        return self.latents

    def resumed_by(self, schedule: Schedule, seed: int) -> "Job":
        """Another process that has only the arrays, the index and the seed."""
        other = Job(schedule, seed)
        other.index, other.latents, other.state = self.index, self.latents.copy(), self.state.copy()
        other.noise.skip(SHAPE, schedule.draws_before(self.index))
        return other


def test_the_names() -> None:
    assert tuple(SCHEDULES) == (
        *("ddim", "pndm", "euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lms", "lcm", "tcd"),
    )
    respaced = ("euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lms")
    suffixed = {f"{name}{suffix}" for name in respaced for suffix in ("_karras", "_exponential", "_beta")}
    assert set(names()) == set(SCHEDULES) | suffixed
    assert len(set(names())) == len(names())


@pytest.mark.parametrize("steps", [1, 2, 20, 50])
@pytest.mark.parametrize("name", names())
def test_every_name_builds_from_the_config_of_another_class(name: str, steps: int) -> None:
    schedule = build(STABLE_DIFFUSION, steps, name)
    evaluations = {"heun": 2 * steps - 1, "pndm": steps + (steps > 1)}.get(name.partition("_")[0], steps)
    assert name.startswith(schedule.name)
    assert len(schedule.timesteps) == evaluations
    assert schedule.timesteps.dtype in (np.int64, np.float32)
    assert (np.diff(schedule.timesteps) <= 0).all()
    assert schedule.timesteps.min() >= 0
    assert schedule.timesteps.max() <= 999
    assert schedule.state_rows <= 6
    job = Job(schedule, 0)
    assert np.isfinite(job.run_to(evaluations)).all()
    assert job.draws == schedule.draws_before(evaluations)


@pytest.mark.parametrize("key", sorted({key.rpartition(":")[0] for key in GOLDEN.files}))
def test_the_end_is_that_of_diffusers(key: str) -> None:
    name, config = key.split(":")
    schedule = build(GOLDEN_CONFIGS[config], GOLDEN_STEPS, name)
    np.testing.assert_allclose(schedule.timesteps, GOLDEN[f"{key}:timesteps"], atol=1e-3)
    latents = Job(schedule, 0).run_to(len(schedule.timesteps))
    np.testing.assert_allclose(latents, GOLDEN[f"{key}:latents"], rtol=0, atol=1e-4)


def test_every_name_has_a_golden_trajectory() -> None:
    assert {key.partition(":")[0] for key in GOLDEN.files} == set(names())


@given(st.sampled_from(names()), CONFIGS, STEPS, SEEDS, st.data())
def test_a_job_resumed_elsewhere_ends_in_the_same_bits(
    name: str, config: Config, steps: int, seed: int, data: st.DataObject
) -> None:
    schedule = build(config, steps, name)
    evaluations = len(schedule.timesteps)
    stop = data.draw(st.integers(0, evaluations))
    job = Job(schedule, seed)
    job.run_to(stop)
    assert job.draws == schedule.draws_before(stop)
    other = job.resumed_by(build(config, steps, name), seed)
    np.testing.assert_array_equal(other.run_to(evaluations), job.run_to(evaluations))
    np.testing.assert_array_equal(other.state, job.state)


@given(st.sampled_from(names()), CONFIGS, STEPS, st.data())
def test_advance_changes_only_the_state(name: str, config: Config, steps: int, data: st.DataObject) -> None:
    schedule = build(config, steps, name)
    index = data.draw(st.integers(0, len(schedule.timesteps) - 1))
    noise = TorchGenerator(1)
    given_arrays = latents, output, drawn = [noise.randn(SHAPE) for _ in range(3)]
    for array in given_arrays:
        array.flags.writeable = False
    before = noise.randn((schedule.state_rows, *SHAPE))
    results = []
    for state in (before.copy(), before.copy()):
        result = schedule.advance(index, output, latents, state, lambda: drawn)
        assert result.dtype == np.float32
        assert result.shape == SHAPE
        assert result.flags.c_contiguous
        assert not any(np.shares_memory(result, array) for array in (*given_arrays, state))
        assert schedule.scale_input(index, latents).dtype == np.float32
        results.append((result, state))
    (first, first_state), (second, second_state) = results
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first_state, second_state)


def true_alpha_sigma(timestep: float) -> tuple[float, float]:
    """Of Stable Diffusion's training, in float64, independent of the code under test."""
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    signal = float(np.cumprod(1 - betas)[round(timestep)])
    return math.sqrt(signal), math.sqrt(1 - signal)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pndm", "epsilon"),  # and no other: it adds outputs of different timesteps, which is exact for noise alone
        *((name, kind) for name in DETERMINISTIC for kind in ("epsilon", "v_prediction", "sample")),
    ],
)
def test_a_unet_that_knows_the_answer_is_followed_to_it(name: str, kind: str, steps: int) -> None:
    """On the way every model input is the true mixture of the picture and the noise; no mixture is left at the end."""
    config = STABLE_DIFFUSION | {"prediction_type": kind, "timestep_spacing": "leading", "set_alpha_to_one": True}
    schedule = build(config, steps, name)
    generator = TorchGenerator(3)
    picture, noise = generator.randn(SHAPE), generator.randn(SHAPE)
    state = np.zeros((schedule.state_rows, *SHAPE), np.float32)
    alpha, sigma = true_alpha_sigma(schedule.timesteps[0])
    start = (alpha * picture + sigma * noise) / schedule.scale_input(0, np.ones(SHAPE, np.float32))
    latents: Latents = start.astype(np.float32)
    for index, timestep in enumerate(schedule.timesteps):
        alpha, sigma = true_alpha_sigma(timestep)
        model_input = schedule.scale_input(index, latents)
        np.testing.assert_allclose(model_input, alpha * picture + sigma * noise, atol=2e-4)
        answers = {"epsilon": noise, "sample": picture, "v_prediction": alpha * noise - sigma * picture}
        latents = schedule.advance(index, answers[kind].astype(np.float32), latents, state, lambda: noise)
    np.testing.assert_allclose(latents, picture, atol=2e-3)


def spread(name: str, steps: int) -> tuple[float, float]:
    """Model input at timestep 501 over its true scale, less 1: for each value followed, and for all together.

    The pictures are Gaussian of deviation 1/2, for which the best U-Net and the way of every value are known exactly:
    a value keeps its place in the distribution, whose deviation is sqrt((alpha / 2)**2 + sigma**2).
    """
    schedule = build(STABLE_DIFFUSION | {"timestep_spacing": "leading"}, steps, name)
    generator, shape = TorchGenerator(0), (1, 64, 64)
    place = generator.randn(shape)
    state = np.zeros((schedule.state_rows, *shape), np.float32)
    last = int(np.flatnonzero(schedule.timesteps == 501)[-1])  # the first of two at one timestep may be half a step
    latents = place
    for index, timestep in enumerate(schedule.timesteps[: last + 1]):
        alpha, sigma = true_alpha_sigma(timestep)
        scale = math.hypot(alpha / 2, sigma)
        if index == 0:
            latents = np.float32(scale) * place / schedule.scale_input(0, np.ones(shape, np.float32))
        model_input = schedule.scale_input(index, latents)
        noise = np.float32(sigma / scale**2) * model_input
        latents = schedule.advance(index, noise, latents, state, lambda: generator.randn(shape))
    followed = np.mean(model_input / place) / scale
    return float(followed) - 1, float(model_input.std() / place.std()) / scale - 1


@pytest.mark.parametrize(
    ("name", "order", "error"),
    [
        *(("ddim", 1, 3e-3), ("euler", 1, 3e-3), ("heun", 2, 4e-4), ("dpmpp_2m", 2, 4e-4)),
        *(("unipc", 3, 4e-5), ("lms", 3, 1.4e-4), ("pndm", 1, 7e-5)),  # the start of pndm is of a lower order
    ],
)
def test_half_the_step_is_as_much_nearer_as_the_order_says(name: str, order: int, error: float) -> None:
    before_end = name in ("dpmpp_2m", "unipc")  # these divide the timesteps by one more
    coarse, fine = (abs(spread(name, steps - before_end)[0]) for steps in (20, 40))
    assert fine < error
    assert math.log2(coarse / fine) > order - 0.2


@pytest.mark.parametrize("name", ["euler_a", "dpmpp_2m_sde"])
def test_fresh_noise_keeps_the_distribution(name: str) -> None:
    assert abs(spread(name, 40 - (name == "dpmpp_2m_sde"))[1]) < 0.02


@pytest.mark.parametrize("name", names())
def test_the_last_evaluation_leaves_no_fresh_noise(name: str) -> None:
    config = STABLE_DIFFUSION | {"set_alpha_to_one": True}
    schedule = build(config, 4, name)
    ends = []
    for seed in (1, 2):
        job = Job(schedule, 0)
        job.run_to(len(schedule.timesteps) - 1)
        job.noise = TorchGenerator(seed)
        ends.append(job.run_to(len(schedule.timesteps)))
    one, other = ends
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["euler_a", "dpmpp_2m_sde", "lcm", "tcd"])
def test_the_fresh_noise_matters_before(name: str) -> None:
    schedule = build(STABLE_DIFFUSION, 4, name)
    job, other = Job(schedule, 0), Job(schedule, 0)
    other.noise = TorchGenerator(99)
    assert np.abs(job.run_to(1) - other.run_to(1)).max() > 0.1


@pytest.mark.parametrize("suffix", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("stem", ["euler", "dpmpp_2m", "lms"])
def test_a_suffix_changes_the_spacing_and_keeps_the_ends(stem: str, suffix: str) -> None:
    plain = build(STABLE_DIFFUSION | {"timestep_spacing": "linspace"}, 8, stem).timesteps
    respaced = build(STABLE_DIFFUSION | {"timestep_spacing": "linspace"}, 8, f"{stem}_{suffix}").timesteps
    assert respaced[0] == pytest.approx(999, abs=1)
    assert respaced[-1] == pytest.approx(0, abs=1)
    assert not np.allclose(plain[1:-1], respaced[1:-1], atol=5)


def test_a_suffix_replaces_the_spacing_of_the_config() -> None:
    config = STABLE_DIFFUSION | {"use_karras_sigmas": True}
    kept, same = build(config, 8, "euler"), build(STABLE_DIFFUSION, 8, "euler_karras")
    np.testing.assert_array_equal(kept.timesteps, same.timesteps)
    replaced, other = build(config, 8, "euler_beta"), build(STABLE_DIFFUSION, 8, "euler_beta")
    np.testing.assert_array_equal(replaced.timesteps, other.timesteps)


def test_a_missing_field_takes_the_default_of_the_class() -> None:
    assert build({}, 10, "euler").timesteps[0] == 999  # linspace
    assert build({}, 10, "ddim").timesteps[0] == 900  # leading
    assert build({"timestep_spacing": "trailing"}, 10, "ddim").timesteps[0] == 999


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"_class_name": "DDIMScheduler"}, "ddim"),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True}, "pndm"),
        ({"_class_name": "EulerDiscreteScheduler"}, "euler"),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "euler_a"),
        ({"_class_name": "HeunDiscreteScheduler"}, "heun"),
        ({"_class_name": "DPMSolverMultistepScheduler"}, "dpmpp_2m"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}, "dpmpp_2m_sde"),
        ({"_class_name": "UniPCMultistepScheduler"}, "unipc"),
        ({"_class_name": "LMSDiscreteScheduler"}, "lms"),
        ({"_class_name": "LCMScheduler"}, "lcm"),
        ({"_class_name": "TCDScheduler"}, "tcd"),
    ],
)
def test_a_config_names_its_schedule(config: Config, name: str) -> None:
    assert build(config, 4).name == name


def test_trailing_visits_as_many_timesteps_as_steps() -> None:
    """Where diffusers visits one more, timestep -1, because 1000 / 61 is no exact binary fraction."""
    schedule = build({"timestep_spacing": "trailing"}, 61, "ddim")
    assert len(schedule.timesteps) == 61
    assert schedule.timesteps.min() >= 0


def test_an_unknown_name_is_answered_with_the_names() -> None:
    with pytest.raises(BadRequest, match=r"'euler_carras'.*euler_karras"):
        build(STABLE_DIFFUSION, 4, "euler_carras")
    with pytest.raises(BadRequest, match="ddim_karras"):
        build(STABLE_DIFFUSION, 4, "ddim_karras")


@pytest.mark.parametrize("name", names())
def test_impossible_numbers_of_steps_are_refused(name: str) -> None:
    for steps in (-1, 0, 1001):
        with pytest.raises(BadRequest, match="steps must be in 1"):
            build(STABLE_DIFFUSION, steps, name)


@pytest.mark.parametrize("name", DISTILLED)
def test_more_steps_than_were_distilled_are_refused(name: str) -> None:
    assert len(build(STABLE_DIFFUSION, 50, name).timesteps) == 50
    with pytest.raises(BadRequest, match=r"1\.\.50"):
        build(STABLE_DIFFUSION, 51, name)


def test_an_offset_past_the_last_timestep_is_refused() -> None:
    with pytest.raises(BadRequest, match="steps_offset 1"):
        build(STABLE_DIFFUSION, 1000, "ddim")


REFUSED = [
    ("DDIMScheduler", {"thresholding": True}, "thresholding"),
    ("DDIMScheduler", {"beta_schedule": "laplace"}, "laplace"),
    ("DDIMScheduler", {"prediction_type": "flow_prediction"}, "flow_prediction"),
    ("DDIMScheduler", {"timestep_spacing": "random"}, "timestep_spacing"),
    ("DDIMScheduler", {"steps_offset": "one"}, "steps_offset"),
    ("DDIMScheduler", {"trained_betas": [0.1, 0.2]}, "2 trained_betas"),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "zero"),
    ("DDIMScheduler", {"num_train_timesteps": 0}, "num_train_timesteps"),
    ("DDIMScheduler", {"beta_schedule": "scaled_linear", "beta_end": 1.5}, "betas must be between"),
    ("LCMScheduler", {"original_inference_steps": 0}, "original_inference_steps"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 20.0, "sigma_max": 2.0}, "sigma_min 20"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_min": 0.0}, "sigma_min 0"),
    ("PNDMScheduler", {}, "skip_prk_steps"),
    ("PNDMScheduler", {"skip_prk_steps": False}, "skip_prk_steps"),
    ("PNDMScheduler", {"skip_prk_steps": True, "prediction_type": "sample"}, "sample"),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "continuous"),
    ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, "log_linear"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "only one"),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, "solver_order"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "algorithm_type"),
    ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, "use_lu_lambdas"),
    ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas"),
    ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1}, "lambda_min_clipped"),
    ("DPMSolverMultistepScheduler", {"variance_type": "learned_range"}, "variance_type"),
    ("UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0"),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas"),
    ("UniPCMultistepScheduler", {"lower_order_final": False}, "lower_order_final"),
    ("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}, "sigma_min"),
    ("LCMScheduler", {"thresholding": True}, "thresholding"),
    ("DDPMScheduler", {}, "DDPMScheduler"),
    (["DDIMScheduler"], {}, "_class_name"),
    (None, {}, "_class_name"),
]


@pytest.mark.parametrize(("class_name", "fields", "named"), REFUSED)
def test_what_is_refused(class_name: object, fields: Config, named: str) -> None:
    with pytest.raises(ModelError, match=named) as caught:
        build({"_class_name": class_name, **fields}, 4)
    assert "scheduler_config.json" in caught.value.message


NOT_SERVED = [
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, "solver_order 3 is not served; 1 or 2 are"),
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver"},
        "algorithm_type dpmsolver is not served; dpmsolver++, sde-dpmsolver++ or deis are",
    ),
    (
        "EulerDiscreteScheduler",
        {"interpolation_type": "log_linear"},
        "interpolation_type log_linear is not served; linear is",
    ),
    (
        "DDIMScheduler",
        {"beta_schedule": "laplace"},
        "beta_schedule laplace is not served; linear, scaled_linear or squaredcos_cap_v2 are",
    ),
    ("DDIMScheduler", {"steps_offset": "one"}, "steps_offset one is not served: expected `int`, got `str`"),
    ("DDIMScheduler", {"num_train_timesteps": 0}, "num_train_timesteps 0 is not served: expected `int` >= 2"),
    (
        "DDIMScheduler",
        {"thresholding": True},
        "thresholding true is not served; false is (it was made for pixels, not for latents)",
    ),
    ("PNDMScheduler", {}, "skip_prk_steps false is not served; true is (there is no Runge-Kutta start)"),
    ("UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0 false is not served; true is"),
    (
        "DPMSolverMultistepScheduler",
        {"lambda_min_clipped": -5.1},
        "lambda_min_clipped -5.1 is not served; -Infinity is",
    ),
    (
        "DPMSolverMultistepScheduler",
        {"variance_type": "learned"},
        "variance_type learned is not served; null is, or one that is fixed",
    ),
    ("DEISMultistepScheduler", {}, f"_class_name DEISMultistepScheduler is not served; {', '.join(OF_DIFFUSERS)} are"),
]


@pytest.mark.parametrize(("class_name", "fields", "said"), NOT_SERVED)
def test_what_is_not_served_is_said_with_its_value_and_what_is(class_name: str, fields: Config, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        build({"_class_name": class_name, **fields}, 4)
    assert str(caught.value) == f"scheduler/scheduler_config.json: {said}"


RESCUED = [
    {"_class_name": "DEISMultistepScheduler", "algorithm_type": "deis", "solver_type": "logrho"},
    {"_class_name": "KDPM2AncestralDiscreteScheduler"},
    {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3},
    {"_class_name": "PNDMScheduler", "skip_prk_steps": False},
]
"""What is not served itself, of models that other schedules can draw with."""


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("fields", RESCUED)
def test_a_name_rescues_a_config_that_is_not_served(fields: Config, name: str) -> None:
    config = {key: value for key, value in STABLE_DIFFUSION.items() if key != "skip_prk_steps"} | fields
    assert of_request(config, 4, name).name == build(STABLE_DIFFUSION, 4, name).name
    check(config, 4, name)


@pytest.mark.parametrize("fields", RESCUED)
def test_a_request_that_names_none_is_told_to_name_one(fields: Config, caplog: pytest.LogCaptureFixture) -> None:
    config = STABLE_DIFFUSION | {"skip_prk_steps": False} | fields
    with pytest.raises(BadRequest) as caught:
        of_request(config, 4, None)
    assert str(caught.value).startswith("`schedule` has to be named: scheduler/scheduler_config.json: ")
    assert str(caught.value).endswith(f"; there are {', '.join(names())}")
    assert not caplog.records
    check(config, 4, "")
    [record] = caplog.records
    assert record.getMessage().endswith("; requests have to name a schedule, or model.schedule has to")


def test_a_name_that_does_not_fit_the_model_is_said_to_the_request() -> None:
    config = STABLE_DIFFUSION | {"thresholding": True}
    assert of_request(config, 4, "euler").name == "euler"
    with pytest.raises(BadRequest, match=r"`schedule` 'ddim' does not fit this model: .*thresholding true"):
        of_request(config, 4, "ddim")
    with pytest.raises(ModelError, match="thresholding true"):
        check(config, 4, "ddim")


@pytest.mark.parametrize("fields", [{"beta_start": 0.0}, {"trained_betas": [0.1]}, {"beta_schedule": "laplace"}])
def test_what_no_name_helps_against_is_refused_at_once(fields: Config, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelError) as caught:
        check(STABLE_DIFFUSION | fields, 4, "")
    assert "name a schedule" not in str(caught.value)
    assert not caplog.records


def test_what_is_served_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    check(STABLE_DIFFUSION, 4, "")
    check(STABLE_DIFFUSION, 4, "euler")
    assert not caplog.records


def test_unknown_fields_are_named_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    build(STABLE_DIFFUSION | {"warp": 0.5, "antigravity": True, "off": False, "none": None}, 4, "euler")
    assert [record.getMessage() for record in caplog.records] == [
        "scheduler/scheduler_config.json: not honoured: antigravity, warp"
    ]


def test_fields_of_other_classes_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        build(STABLE_DIFFUSION | {"dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}, 4, "euler")
    assert not caplog.records


def test_trained_betas_replace_the_schedule_of_betas() -> None:
    betas = (np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2).tolist()
    trained = Job(build(STABLE_DIFFUSION | {"trained_betas": betas, "beta_schedule": "linear"}, 4, "ddim"), 0)
    named = Job(build(STABLE_DIFFUSION, 4, "ddim"), 0)
    np.testing.assert_allclose(trained.run_to(4), named.run_to(4), atol=1e-4)


def test_clipping_bounds_the_picture() -> None:
    config = STABLE_DIFFUSION | {"clip_sample": True, "clip_sample_range": 0.25, "set_alpha_to_one": True}
    job = Job(build(config, 4, "ddim"), 0)
    assert np.abs(job.run_to(4)).max() <= 0.25 + 1e-6


def test_zero_terminal_snr_begins_at_pure_noise() -> None:
    """Where the velocity is the picture, negated, and says nothing of the noise."""
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    schedule = build(config | {"clip_sample": False}, 4, "ddim")
    state = np.zeros((0, *SHAPE), np.float32)
    nothing, something = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    alpha = -schedule.advance(0, something, nothing, state, lambda: nothing)
    sigma = schedule.advance(0, nothing, something, state, lambda: nothing)
    assert schedule.timesteps[0] == 999
    assert 0 < alpha.min() < 0.5
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)


SCIPY_BETA_PPF = {
    0.0: 0.0,
    1e-6: 1.8558824624053043e-10,
    0.01: 0.0008612388215429059,
    0.1: 0.03958440558878085,
    0.4: 0.3627009907532143,
    0.5: 0.5,
    0.9: 0.9604155944112192,
    0.999: 0.9999814412614826,
    1.0: 1.0,
}


def test_beta_quantile() -> None:
    """Beside scipy.stats.beta.ppf(share, 0.6, 0.6)."""
    found = beta_quantile(np.array(list(SCIPY_BETA_PPF)), 0.6)
    np.testing.assert_allclose(found, list(SCIPY_BETA_PPF.values()), rtol=1e-13)
