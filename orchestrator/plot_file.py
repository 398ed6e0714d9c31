"""The file that a plot goes to. Drawing needs the extra `plot`, checking that it is installed does not."""

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import output
from stages.core.errors import ConfigError
from stages.core.wire import Kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

KIND_COLOURS: dict[Kind, str] = {"text": "#4c72b0", "unet": "#dd8452", "vae": "#55a868"}
"""The colour of each kind of stage in all plots."""


def check(path: Path | None) -> None:
    """Raise ConfigError if a plot is wanted that could not be drawn or written; to be called before measuring."""
    if path is None:
        return
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib; get it with: pip install 'triptych[plot]'")
    if _format(path) not in FORMATS:
        raise ConfigError(
            f"--plot {path}: its ending names no format that is drawn; end it with .{', .'.join(FORMATS)}"
        )
    output.check(path, "the plot")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format that the ending of `path` names. Raises CannotWrite."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=_format(path), dpi=120)
    output.write(path, drawn.getvalue(), "the plot")


def _format(path: Path) -> str:
    return path.suffix.removeprefix(".").lower()
