"""The Hugging Face cache, read without a network: which repositories lie in it, and where.

Its layout (huggingface_hub, "Understand caching")::

    models--ORG--NAME/refs/main              the commit that `main` was, when it was last asked for
    models--ORG--NAME/snapshots/COMMIT/...   the files of that commit, links into ../../blobs
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAIN = "main"

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""Pattern of a hub id; a folder's path may match it, too."""

_REPOSITORY = "models--"


class Snapshot(NamedTuple):
    """One revision of a repository."""

    hub_id: str
    revision: str
    """Branch or tag of the snapshot; the commit where it has none."""
    path: Path


def root() -> Path:
    """The cache's folder, as HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME say."""
    from huggingface_hub import constants  # reads these variables once; cheap, unlike the library's other modules

    return Path(constants.HF_HUB_CACHE)


def snapshots(cache: Path) -> Iterator[Snapshot]:
    """All revisions of all models in `cache`, `main` first within a repository."""
    for repository in sorted(cache.glob(f"{_REPOSITORY}*")):
        names = {commit: revision for revision, commit in _refs(repository)}
        found = [
            Snapshot(_hub_id(repository), names.get(folder.name, folder.name), folder)
            for folder in sorted(repository.glob("snapshots/*"))
            if folder.is_dir()
        ]
        yield from sorted(found, key=lambda snapshot: snapshot.revision != MAIN)


def snapshot(cache: Path, hub_id: str, revision: str = MAIN) -> Path | None:
    """The folder of a revision (branch, tag or commit), if it is in `cache`."""
    repository = cache / f"{_REPOSITORY}{hub_id.replace('/', '--')}"
    commit = dict(_refs(repository)).get(revision, revision)
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None


def name_of(folder: Path) -> str:
    """The name of a model folder: its hub id if it is a snapshot of the cache, else the folder's own name."""
    folder = folder.resolve() if folder.name in ("", "..") else folder
    repository = folder.parent.parent
    if folder.parent.name == "snapshots" and repository.name.startswith(_REPOSITORY):
        return _hub_id(repository)
    return folder.name


def _hub_id(repository: Path) -> str:
    return repository.name.removeprefix(_REPOSITORY).replace("--", "/")


def _refs(repository: Path) -> Iterator[tuple[str, str]]:
    """(revision, commit) of every branch and tag that was asked for, `main` last."""
    refs = repository / "refs"
    for path in sorted(refs.rglob("*"), key=lambda path: path.name == MAIN):
        if path.is_file():
            yield str(path.relative_to(refs)), path.read_text().strip()
