"""The configurations that come with Triptych: `configs/` of the repository, a folder of this package in a wheel."""

from pathlib import Path

NAMES = ("demo", "lcm", "sd15")
"""Those that stand for a kind of model, to begin with one's own."""

_HERE = Path(__file__).parent


def text(name: str, package: Path = _HERE) -> bytes:
    """The TOML of the configuration `name`, comments and all."""
    installed = package / "configs"
    folder = installed if installed.is_dir() else package.parent / "configs"  # of a checkout
    return (folder / f"{name}.toml").read_bytes()
