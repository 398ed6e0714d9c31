"""Downloads from the hub into the standard cache: the files needed of models that can be run, and no others."""

import errno
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

import msgspec

from orchestrator.models import cache as hf_cache
from stages.core.errors import ModelError
from stages.core.model import ir
from stages.core.pipelines import family
from stages.core.text_file import read_text_file
from stages.core.wire import UNREADABLE

_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder")

DESCRIPTION = ("*.json", "*.txt", *(f"{part}/openvino_model.xml" for part in _PARTS))
"""The files that say what a model is; small, and fetched first."""

WEIGHTS = tuple(f"{part}/openvino_model.bin" for part in _PARTS)
"""The large files: those of the parts a picture needs, no others."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Fetch(Protocol):
    """Brings the files of a repository that match one of `patterns` into the cache."""

    def __call__(self, hub_id: str, revision: str | None, patterns: list[str], bars: bool) -> str:
        """The snapshot's folder; `bars` says whether there is something to wait for."""


def download(hub_id: str, revision: str | None = None, fetch: Fetch | None = None) -> Path:
    """Bring a model into the standard cache, where it is not there yet, and return its folder.

    Files that had come whole before an interruption are not fetched again, and weights only of a model that can be
    run. Without a network, or under HF_HUB_OFFLINE, what the cache has is served. Raises ModelError.
    """
    fetch = fetch or _snapshot_download
    try:
        with _ctrl_c_ends_it():
            folder = Path(fetch(hub_id, revision, [*DESCRIPTION], bars=False))
            if not (folder / "model_index.json").exists():
                raise ModelError(f"{hub_id}: no diffusion pipeline (it has no model_index.json)")
            refuse_others(hub_id, folder)
            folder = Path(fetch(hub_id, folder.name, [*WEIGHTS], bars=True))  # of the same commit
    except ModelError:
        raise
    except Exception as error:  # httpx, hf_xet and the file system: each raises kinds of its own
        raise ModelError(f"{hub_id}: {_why(error, hub_id, revision)}") from error
    refuse_missing(hub_id, folder)
    return folder


def refuse_others(model: str, folder: Path) -> None:
    """Raise ModelError, naming `model`, if what it is can be told from the folder and cannot be run."""
    index = folder / "model_index.json"
    try:
        found = msgspec.json.decode(read_text_file(index), type=dict[str, object])
    except (OSError, *UNREADABLE):
        return
    family(found.get("_class_name"), model)
    if not ir(folder, "unet").exists():
        raise ModelError(
            f"{model}: not an OpenVINO export (it has no unet/openvino_model.xml); make one with "
            f"`optimum-cli export openvino --model {model} --task text-to-image FOLDER` and name the folder"
        )


def refuse_missing(hub_id: str, folder: Path) -> None:
    """Raise ModelError for a snapshot whose weights have not all come."""
    for part in _PARTS:
        xml = ir(folder, part)
        if xml.exists() and not xml.with_suffix(".bin").exists():
            raise ModelError(
                f"{hub_id}: {part}/openvino_model.bin has not come; `triptych models pull {hub_id}` with a network "
                "fetches what is missing"
            )


def _snapshot_download(hub_id: str, revision: str | None, patterns: list[str], bars: bool) -> str:
    # Imported here: only a download needs it, and it costs half a second.
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    if constants.HF_HUB_OFFLINE and (cached := hf_cache.snapshot(hf_cache.root(), hub_id, revision or hf_cache.MAIN)):
        return str(cached)  # some versions of the library want to have fetched it themselves
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        (enable_progress_bars if bars and sys.stderr.isatty() else disable_progress_bars)()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not enough free disk space")  # the error that follows says so
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=patterns)
    gc.collect()  # ends the line of a bar that nobody closes
    return folder


def _why(error: Exception, hub_id: str, revision: str | None) -> str:
    """The message for a failed download: what went wrong, and the way out."""
    from huggingface_hub import constants, errors

    host = constants.ENDPOINT
    cause: BaseException = error
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        cause = error.__cause__  # the library then looked into its cache, in vain
    match cause:
        case errors.OfflineModeIsEnabled():
            return "not in the cache, and HF_HUB_OFFLINE forbids the network"
        case errors.GatedRepoError():
            return f"gated; accept its terms at {host}/{hub_id} and log in with `hf auth login`"
        case errors.RepositoryNotFoundError():
            return f"not found at {host}, or private; check the name, or log in with `hf auth login`"
        case errors.RevisionNotFoundError():
            return f"there is no revision {revision} of it at {host}"
        case errors.HFValidationError():
            return f"no hub id, which would be like ORGANISATION/NAME ({_first_line(cause)})"
        case errors.HfHubHTTPError(response=response):
            if response.status_code in (401, 403):
                return f"{host} refuses access ({response.status_code}); log in with `hf auth login`"
            return f"{host} answers with status {response.status_code}; try again later"
        case OSError(errno=number) if number in _NO_ROOM:
            return _no_room()
        case OSError(filename=str() as name, strerror=str() as what):
            return f"{name}: {what}; HF_HUB_CACHE names another place for downloads"
    if "No space left" in str(cause):  # as hf_xet says it
        return _no_room()
    what = f"{type(cause).__name__}: {_first_line(cause)}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"not in the cache, and no network: {host} cannot be reached ({what})"
    return f"the download from {host} broke off ({what}); run it again, whole files are kept"


def _no_room() -> str:
    return f"no space left in {hf_cache.root()}; free some and run it again, whole files are kept"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _ctrl_c_ends_it() -> Iterator[None]:
    """Let Ctrl-C end this process at once: the library would first fetch to its end every file it has begun."""
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not (ours and before is signal.default_int_handler):
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> None:
    """Remove the beginnings of files, which the library would not use again, and die as Ctrl-C is meant to."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            opened = os.readlink(descriptor)
            if opened.endswith(".incomplete"):
                os.unlink(opened)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
