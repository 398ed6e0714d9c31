"""The class of a stage, found by the name it has in the configuration."""

import importlib
import os

from stages import telemetry
from stages.core.config import StageSpec
from stages.core.errors import ConfigError
from stages.stage import Stage


def implementation(spec: StageSpec) -> type[Stage]:
    """The class that `module:Class` names. Raises ConfigError."""
    key = f"stage.{spec.kind}.implementation"
    module, _, attribute = spec.implementation.partition(":")
    if not all(word.isidentifier() for word in (*module.split("."), attribute)):
        raise ConfigError(f"{key}: {spec.implementation!r} is no name of a class; write it like package.module:Class")
    # At import, transformers advises to install PyTorch, which nothing here needs; stderr is for what matters.
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    telemetry.switch_off()  # this is where OpenVINO gets into a process of ours, be it with a stage that is not ours
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # it is there, but not what it imports in its turn
            raise
        raise ConfigError(f"{key}: {spec.implementation!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise ConfigError(f"{key}: {spec.implementation!r} is no stages.stage.Stage")
    return found
