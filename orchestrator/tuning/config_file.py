"""A configuration written down as TOML: what differs from the defaults, and everything of the stages. Pure."""

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec

from orchestrator.tuning.space import Candidate
from stages.core.config import Config
from stages.core.model import EMBEDDED
from stages.core.route import STEPWISE
from stages.core.wire import KINDS

_TABLES = ("model", "pipeline", "listen", "deadlines")


def render(config: Config, candidate: Candidate, folder: Path | None, remarks: Iterable[str]) -> str:
    """The text of a file that `serve` takes. `folder` is the model's, where `model.path` names a folder: the file may
    be written anywhere, so it names the folder in full. `remarks` become its first lines.
    """
    tuned = candidate.apply(config)
    if folder is not None and config.model.path not in EMBEDDED:
        model = msgspec.structs.replace(tuned.model, path=str(folder.resolve()))
        tuned = msgspec.structs.replace(tuned, model=model)
    lines = [f"# {remark}".rstrip() for remark in remarks]
    if tuned.load_attempts != Config().load_attempts:
        lines += ["", f"load_attempts = {tuned.load_attempts}"]
    for name in _TABLES:
        section, usual = getattr(tuned, name), getattr(Config(), name)
        keys = [key for key in section.__struct_fields__ if getattr(section, key) != getattr(usual, key)]
        keys += ["path"] if name == "model" and "path" not in keys else []
        if keys:
            lines += ["", f"[{name}]", *(f"{key} = {_value(getattr(section, key))}" for key in keys)]
    for stage in tuned.stage:
        lines += ["", "[[stage]]"]
        for key in stage.__struct_fields__:
            value = getattr(stage, key)
            if key in ("streams", "max_rows") and stage.kind != STEPWISE:
                continue
            if key != "implementation" or value:
                lines.append(f"{key} = {_value(value)}")
    assert [stage.kind for stage in tuned.stage] == list(KINDS)
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    # Strings, numbers and lists are written alike in JSON and in TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
