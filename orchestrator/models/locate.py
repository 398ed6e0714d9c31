"""The model folder of a configuration: the embedded one, a folder, or one in the hub's cache."""

import os
from pathlib import Path

import msgspec

from orchestrator.models import cache as hf_cache
from orchestrator.models.cache import HUB_ID
from orchestrator.models.download import download, refuse_missing, refuse_others
from stages.core.config import Config
from stages.core.errors import ModelError
from stages.core.model import EMBEDDED, ModelCard, read_card


def card(config: Config) -> ModelCard:
    """The card of the model that `model.path` names, downloaded if need be.

    Its name is its hub id if it has one, and requests that name no schedule get that of `model.schedule`.
    """
    return msgspec.structs.replace(card_of(locate(config)), schedule=config.model.schedule or None)


def card_of(folder: Path) -> ModelCard:
    """The card of the model in `folder`, which may be a snapshot of the cache. Raises ModelError."""
    name = hf_cache.name_of(folder)
    try:
        found = read_card(folder)
    except ModelError:
        refuse_others(str(folder), folder)
        if name != folder.name:
            refuse_missing(name, folder)
        raise
    return found if folder in EMBEDDED.values() else msgspec.structs.replace(found, name=name)


def locate(config: Config) -> Path:
    """The folder `model.path` names: an embedded model's, a folder relative to the configuration, or a hub id.

    A hub id is downloaded when it is first used. From then on the cache is what counts, and starts need no network;
    only `triptych models pull` looks for a newer version. Raises ModelError.
    """
    path = config.model.path
    folder = _folder(path, Path(config.folder))
    if folder is not None:
        return folder
    cached = hf_cache.snapshot(hf_cache.root(), path)
    if cached is not None and _complete(cached):
        return cached
    try:
        return download(path)
    except ModelError as error:
        raise ModelError(f"model.path: there is no folder {path} here, and as a hub id: {error.message}") from error


def find(path: str, base: Path) -> Path | None:
    """The folder of `path` without a network, whole or not; None for a hub id of which nothing is here."""
    return _folder(path, base) or hf_cache.snapshot(hf_cache.root(), path)


def _folder(path: str, base: Path) -> Path | None:
    """The folder that `path` names, relative to `base`; None if it can only be a hub id."""
    if path in EMBEDDED:
        return EMBEDDED[path]
    folder = base / os.path.expanduser(path)
    return folder if os.path.exists(folder) or not HUB_ID.fullmatch(path) else None


def _complete(folder: Path) -> bool:
    try:
        card_of(folder)
    except ModelError:
        return False
    return True
