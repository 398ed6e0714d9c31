"""The models on this machine: the embedded one, folders, and what the Hugging Face cache holds."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from orchestrator.models.cache import MAIN, name_of, snapshots
from orchestrator.models.inspection import obstacle
from orchestrator.models.locate import card_of
from stages.core.errors import ConfigError, ModelError
from stages.core.model import EMBEDDED


class CatalogueEntry(msgspec.Struct, frozen=True):
    """One model folder."""

    name: str
    """A hub id, the folder's name, or that of an embedded model."""
    family: str | None
    """Short name of the model's family, such as SDXL; None for a model that cannot be run."""
    size_bytes: int
    """Bytes on disk of all its files together."""
    path: str
    reason: str | None
    """Why the model cannot be run; None where it can."""


def model_dirs(variable: str) -> list[Path]:
    """The folders in $TRIPTYCH_MODELS, separated like those in $PATH. Raises ConfigError for one that is not there."""
    found = [Path(os.path.expanduser(name)) for name in variable.split(os.pathsep) if name]
    for folder in found:
        if not folder.is_dir():
            raise ConfigError(f"TRIPTYCH_MODELS: {folder}: no such folder")
    return found


def catalogue(folders: Iterable[Path], cache: Path) -> list[CatalogueEntry]:
    """The embedded models, those in (or being) one of `folders`, and those in the Hugging Face cache; each once."""
    entries: dict[Path, CatalogueEntry] = {}
    for name, folder in _candidates(folders, cache):
        place = folder.resolve()
        if place not in entries and _is_export(folder):
            entries[place] = _entry(name, folder)
    return list(entries.values())


def _candidates(folders: Iterable[Path], cache: Path) -> Iterator[tuple[str, Path]]:
    yield from EMBEDDED.items()
    for folder in folders:
        for candidate in (folder, *_subfolders(folder)):
            yield name_of(candidate), candidate.absolute()
    for hub_id, revision, path in snapshots(cache):
        yield hub_id if revision == MAIN else f"{hub_id}@{revision[:12]}", path


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except PermissionError:  # what cannot be looked into cannot be served, either
        return []


def _is_export(folder: Path) -> bool:
    """Whether this is a diffusion model in OpenVINO's format, whether or not it can be run here."""
    try:
        return (folder / "model_index.json").is_file() and any(folder.glob("*/openvino_model.xml"))
    except PermissionError:
        return False


def _entry(name: str, folder: Path) -> CatalogueEntry:
    try:
        card = card_of(folder)
        family, reason = card.family, obstacle(card)
    except ModelError as error:
        family, reason = None, error.message
    return CatalogueEntry(name, family, _size(folder), str(folder), reason)


def _size(folder: Path) -> int:
    """Bytes of all files; one that is there under two names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.stat(os.path.join(place, name))  # of the blob, where it is a link
            except OSError:
                continue
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())
