"""Where the model folder is: the embedded one, a folder, or the hub's cache."""

import re
from pathlib import Path

from stages.core.config import DEMO, Config
from stages.core.errors import ModelError
from stages.core.model import demo_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate(config: Config) -> Path:
    """The folder `model.path` names: `demo`, a folder relative to the configuration, or a hub id.

    A hub id is downloaded on first use, by huggingface_hub and into its cache. Raises ModelError.
    """
    path = config.model.path
    if path == DEMO:
        return demo_folder()
    folder = Path(config.folder, path).expanduser()
    if folder.is_dir() or not _HUB_ID.fullmatch(path):
        return folder
    return _download(path)


def _download(hub_id: str) -> Path:
    # Imported here: only a hub id needs it, and it costs half a second.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", "*/openvino_model.xml", "*/openvino_model.bin"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model.path: {hub_id!r} is neither a folder here nor to be had from the hub ({type(error).__name__}); "
            "export one with `optimum-cli export openvino`"
        ) from error
