"""The noise that a model was trained with, as its scheduler_config.json tells: every schedule here is for one kind."""

from collections.abc import Mapping

from stages.core.json_file import shown
from stages.core.schedule_names import own_schedule

_RISE = ("beta_start", "beta_end", "beta_schedule", "trained_betas")
"""Keys of the rise of noise over the timesteps of training, in the config of any schedule that mixes noise in by
variance (DDPM, arXiv 2006.11239). Configs for other noise have none of these, and other classes."""

_OTHERWISE: Mapping[str, object] = {
    "timestep_type": "continuous",
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
}
"""Values by which a class that serves several kinds of noise is told that it is another: EDM's, or flow matching's."""


def other_noise(config: Mapping[str, object]) -> str | None:
    """The key and value of a scheduler_config.json by which a model was trained with noise that no schedule here is
    for, whatever its name; None for the others, of which a schedule can be named if their own is not served.
    """
    for key, value in _OTHERWISE.items():
        if config.get(key) == value:
            return f"{key} {shown(value)}"
    if (sigma_data := config.get("sigma_data")) is not None:
        return f"sigma_data {shown(sigma_data)}"
    class_name = config.get("_class_name")
    ours = own_schedule(config) is not None or class_name is None
    return None if ours or config.keys() & set(_RISE) else f"_class_name {shown(class_name)}"
