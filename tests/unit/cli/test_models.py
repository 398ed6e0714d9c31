"""`triptych models`, on folders and a Hugging Face cache of the test's own, and a hub on this machine."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from huggingface_hub import errors

from orchestrator.__main__ import main
from orchestrator.cli.commands.models import lines, table
from orchestrator.models.cache import name_of, snapshot, snapshots
from orchestrator.models.catalogue import catalogue, model_dirs
from orchestrator.models.download import DESCRIPTION, WEIGHTS, download
from orchestrator.models.footprint import footprint
from orchestrator.models.inspection import Inspection, inspect, stored
from orchestrator.models.locate import card, locate
from orchestrator.plan import Machine, plan
from stages.core.config import Config, ModelConfig
from stages.core.errors import ConfigError, ModelError
from stages.core.model import demo_folder, ir
from tests.inherited import ignoring
from tests.unit.cards import machine
from tests.unit.hf_hub import COMMIT, HfHub

Captured = pytest.CaptureFixture[str]
DEMO = demo_folder()
DEADLINE_S = 60.0
FILES = [path.relative_to(DEMO) for path in DEMO.rglob("*") if path.suffix in (".json", ".xml", ".bin")]


def model(folder: Path, link: bool = False) -> Path:
    """The embedded model again: its JSON to be changed at will, or all of it as links, as a cache has it."""
    for file in FILES:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".json" and not link:
            shutil.copyfile(DEMO / file, target)
        else:
            target.symlink_to(DEMO / file)
    return folder


def cached(cache: Path, hub_id: str, commit: str = COMMIT, revision: str = "main") -> Path:
    """Put the embedded model into a cache."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    return model(repository / "snapshots" / commit, link=True)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for the processes that the test starts."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("TRIPTYCH_MODELS", "TRIPTYCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def triptych(*words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run the command as a process of its own: huggingface_hub reads the environment once. (status, out, err)"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "orchestrator", *words],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


# What is here.


def test_the_cache_is_read_by_branch_tag_and_commit(tmp_path: Path) -> None:
    newest, older = cached(tmp_path, "org/sd"), cached(tmp_path, "org/sd", "a" * 40, "v1")
    loose = model(tmp_path / "models--org--sd" / "snapshots" / ("b" * 40), link=True)
    assert snapshot(tmp_path, "org/sd") == newest
    assert snapshot(tmp_path, "org/sd", "v1") == snapshot(tmp_path, "org/sd", "a" * 40) == older
    assert snapshot(tmp_path, "org/sd", "v2") is snapshot(tmp_path, "org/other") is None
    found = [(revision, path) for _, revision, path in snapshots(tmp_path)]
    assert found[0] == ("main", newest)
    assert set(found[1:]) == {("v1", older), ("b" * 40, loose)}
    assert name_of(newest) == name_of(older) == "org/sd"
    assert name_of(tmp_path) == tmp_path.name


def test_everything_that_is_a_model_is_listed_once(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    model(here / "mine")
    model(other)
    (here / "torch").mkdir()
    shutil.copy(DEMO / "model_index.json", here / "torch")
    (here / "again").symlink_to(other)
    cached(tmp_path / "cache", "org/sd")
    entries = catalogue([here, here, other], tmp_path / "cache")
    assert [entry.name for entry in entries] == ["demo", "demo-lcm", "again", "mine", "org/sd"]
    assert [entry.family for entry in entries] == ["SD", "LCM", "SD", "SD", "SD"]
    assert all(entry.reason is None for entry in entries)
    assert entries[4].size_bytes == sum((DEMO / file).stat().st_size for file in FILES)


def test_a_model_that_cannot_be_run_is_listed_with_the_reason(tmp_path: Path) -> None:
    change(model(tmp_path / "a") / "model_index.json", _class_name="FluxPipeline")
    change(model(tmp_path / "b") / "scheduler" / "scheduler_config.json", sigma_data=0.5)
    (model(tmp_path / "c") / "tokenizer" / "tokenizer.json").unlink()
    ir(cached(tmp_path / "cache", "org/half"), "unet").with_suffix(".bin").unlink()
    _, _, a, b, c, half = catalogue([tmp_path], tmp_path / "cache")
    assert "FluxPipeline" in str(a.reason)
    assert "is not served, nor by another schedule" in str(b.reason)
    assert "neither tokenizer.json nor vocab.json" in str(c.reason)
    assert "`triptych models pull org/half` with a network" in str(half.reason)
    assert "cannot be run: " in lines(a, 4)


def test_models_is_a_list_of_folders(tmp_path: Path) -> None:
    assert model_dirs("") == []
    assert model_dirs(f"{tmp_path}::{tmp_path}") == [tmp_path, tmp_path]
    with pytest.raises(ConfigError, match="TRIPTYCH_MODELS: /no/such: no such folder"):
        model_dirs("/no/such")


def test_list_looks_in_three_places(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "here" / "mine")
    model(tmp_path / "others" / "theirs")
    path = cached(cache, "org/sd")
    monkeypatch.setenv("TRIPTYCH_MODELS", str(tmp_path / "others"))
    status, out, err = triptych("models", "list", "--json", cwd=tmp_path / "here")
    assert (status, err) == (0, "")
    entries = [json.loads(line) for line in out.splitlines()]
    assert [entry["name"] for entry in entries] == ["demo", "demo-lcm", "mine", "theirs", "org/sd"]
    assert [entry["path"] for entry in entries[2:]] == [
        str(tmp_path / "here" / "mine"),
        str(tmp_path / "others" / "theirs"),
        str(path),
    ]


def test_listing_imports_nothing_heavy(python: Callable[..., str], cache: Path) -> None:
    code = "import sys; from orchestrator.__main__ import main; main(['models', 'list']); print(*sys.modules)"
    loaded = set(python(code).splitlines()[-1].split())
    assert "huggingface_hub.constants" in loaded
    assert not loaded & {"openvino", "transformers", "torch", "httpx", "tqdm"}


# What one of them is.


def test_inspect_tells_programs_all_that_can_be_known_unloaded(capsys: Captured) -> None:
    assert main(["models", "inspect", "demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["family"], found["path"], found["can_run"]) == ("demo", "SD", str(DEMO), True)
    assert (found["native_size"], found["downscale"], found["steps"], found["guidance_scale"]) == ("128x128", 8, 25, 4)
    assert found["guidance_distilled"] is False
    assert found["text_encoders"] == [{"name": "text_encoder", "embed_width": 160, "tokenizer": "tokenizer.json"}]
    assert found["schedule"]["class_name"] == "DDIMScheduler"
    assert found["schedule"]["prediction_type"] == "v_prediction"
    assert found["schedule"]["settings"]["timestep_spacing"] == "leading"
    for part in found["parts"]:
        assert part["bytes"] == ir(DEMO, part["name"]).with_suffix(".bin").stat().st_size
        assert next(iter(part["stored"])) == "f16"


def test_memory_is_estimated_as_check_does() -> None:
    found = inspect(DEMO, machine(4))
    need = footprint(plan(Config(), card(Config()), machine(4)))
    assert (found.memory.weights_bytes, found.memory.needed_bytes) == (need.weights_bytes, need.needed_bytes)


def test_constants_are_counted_by_type_and_once(tmp_path: Path) -> None:
    xml = tmp_path / "openvino_model.xml"
    constants = [("u8", 0, 900), ("f16", 900, 90), ("u8", 0, 900), ("i64", 992, 8)]
    xml.write_text(
        "".join(f'<data element_type="{k}" shape="3, 3" offset="{o}" size="{s}" />\n' for k, o, s in constants)
        + '<data shape="?,4" element_type="f32" />'
    )
    assert stored(xml) == {"u8": 900, "f16": 90, "i64": 8}


def words(found: Inspection) -> str:
    rows = zip(*(column.cells for column in table(found).columns), strict=True)
    return "\n".join(" ".join(map(str, cells)) for cells in rows)


def test_inspect_tells_people(tmp_path: Path) -> None:
    folder = model(tmp_path / "odd")
    change(folder / "unet" / "config.json", time_cond_proj_dim=256)
    (folder / "text_encoder" / "config.json").unlink()
    (folder / "tokenizer" / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).write_text("{}")
    told = words(inspect(folder, Machine(frozenset({0}), float("inf"), 1 << 20)))
    for expected in ("odd (SD)", "distilled", "width unknown, tokenizer in vocab.json + merges.txt", "stored in f16"):
        assert expected in told
    assert "yes, but not here and now" in told


def test_a_schedule_that_is_not_served_is_told_and_keeps_nothing_from_running(tmp_path: Path) -> None:
    folder = model(tmp_path / "deis")
    change(folder / "scheduler" / "scheduler_config.json", _class_name="DEISMultistepScheduler")
    found = inspect(folder, machine(1))
    assert (found.can_run, found.reason, found.schedule.name) == (True, None, None)
    assert "DEISMultistepScheduler (not served: requests have to name another, or model.schedule does)" in words(found)
    assert [entry.reason for entry in catalogue([folder], tmp_path / "cache")] == [None, None, None]


@pytest.mark.parametrize(
    ("class_name", "configured", "told", "words"),
    [
        ("DEISMultistepScheduler", "", None, "the model's own is not served: requests have to name one"),
        ("DEISMultistepScheduler", "unipc_karras", "unipc_karras", "unipc_karras"),
        ("FlaxPNDMScheduler", "", "pndm", "pndm"),
        ("DDIMScheduler", "heun", "heun", "heun"),
    ],
)
def test_check_tells_the_schedule_of_requests_that_name_none(
    class_name: str, configured: str, told: str | None, words: str, tmp_path: Path, capsys: Captured
) -> None:
    folder = model(tmp_path / "model")
    change(folder / "scheduler" / "scheduler_config.json", _class_name=class_name)
    command = ["check", "--no-start", "--set", f"model.path={folder}", "--set", f'model.schedule="{configured}"']
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["schedule"] == told
    assert main(command) == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["schedule"]]
    assert row.split(maxsplit=1)[1].strip() == words


def test_a_byte_order_mark_is_no_part_of_a_description(tmp_path: Path) -> None:
    folder = model(tmp_path / "marked")
    plain = inspect(folder, machine(1))
    for file in folder.rglob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert inspect(folder, machine(1)) == plain
    change_marked = folder / "model_index.json"
    change_marked.write_text('{"_class_name": "FluxPipeline"}', encoding="utf-8-sig")
    with pytest.raises(ModelError, match="this is a FluxPipeline model"):
        download("org/sd", fetch=FakeFetch(folder))


def test_what_holds_next_to_nothing_is_not_told_of_the_weights() -> None:
    found = inspect(DEMO, machine(1))
    mixed = msgspec.structs.replace(found.parts[1], stored={"u8": 9000, "f16": 999, "i64": 1})
    assert "stored in u8 (90%), f16 (10%)" in words(msgspec.structs.replace(found, parts=(mixed,)))


def test_a_folder_that_cannot_be_run_is_status_2_and_one_line(tmp_path: Path, capsys: Captured) -> None:
    (model(tmp_path / "mute") / "tokenizer" / "tokenizer.json").unlink()
    assert main(["models", "inspect", str(tmp_path / "mute"), "--json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["can_run"] is False
    assert err == f"triptych: error: {found['reason']}\n"
    change(tmp_path / "mute" / "model_index.json", _class_name="FluxPipeline")
    assert main(["models", "inspect", str(tmp_path / "mute"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["reason"] in err
    assert "FluxPipeline" in err


def test_a_model_of_torch_is_told_from_a_broken_one(tmp_path: Path, capsys: Captured) -> None:
    folder = model(tmp_path / "torch")
    for part in ("text_encoder", "unet", "vae_decoder"):
        ir(folder, part).unlink()
    assert main(["models", "inspect", str(folder)]) == 2
    assert f"`optimum-cli export openvino --model {folder} --task text-to-image FOLDER`" in capsys.readouterr().err


def test_inspect_takes_a_hub_id_that_is_in_the_cache(cache: Path) -> None:
    path = cached(cache, "org/sd")
    status, out, err = triptych("models", "inspect", "org/sd", "--json")
    assert (status, err) == (0, "")
    assert (json.loads(out)["name"], json.loads(out)["path"]) == ("org/sd", str(path))
    status, out, err = triptych("models", "inspect", "org/other")
    assert (status, out) == (2, "")
    assert "`triptych models pull org/other` downloads it" in err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["models"], "required: ACTION"),
        (["models", "paint"], "invalid choice: 'paint'"),
        (["models", "list", "x"], "models list takes no MODEL"),
        (["models", "inspect"], "models inspect needs a MODEL"),
        (["models", "pull"], "models pull needs a MODEL"),
        (["models", "inspect", "demo", "--revision", "v1"], "--revision is for models pull"),
    ],
)
def test_a_wrong_use_is_status_2(command: list[str], says: str, capsys: Captured) -> None:
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


# Getting one.


class FakeFetch:
    """Answers with a folder, or fails in its n-th call; remembers what it was asked for."""

    def __init__(self, folder: Path, error: Exception | None = None, call: int = 0) -> None:
        self.folder = folder
        self.error = error
        self.call = call
        self.asked: list[tuple[str | None, tuple[str, ...]]] = []

    def __call__(self, hub_id: str, revision: str | None, patterns: list[str], bars: bool) -> str:
        self.asked.append((revision, tuple(patterns)))
        if self.error is not None and len(self.asked) > self.call:
            raise self.error
        return str(self.folder)


def test_what_a_model_is_comes_first_and_the_weights_of_the_same_commit_after(tmp_path: Path) -> None:
    folder = cached(tmp_path, "org/sd")
    fetch = FakeFetch(folder)
    assert download("org/sd", "v1", fetch) == folder
    assert fetch.asked == [("v1", DESCRIPTION), (COMMIT, WEIGHTS)]


@pytest.mark.parametrize("index", [None, {"_class_name": "FluxPipeline"}, {"_class_name": "StableDiffusionPipeline"}])
def test_no_weights_are_fetched_of_what_cannot_be_run(index: dict[str, Any] | None, tmp_path: Path) -> None:
    if index is not None:
        (tmp_path / "model_index.json").write_text(json.dumps(index))
    fetch = FakeFetch(tmp_path)
    with pytest.raises(ModelError, match=r"no diffusion pipeline|FluxPipeline|not an OpenVINO export .*optimum-cli"):
        download("org/sd", fetch=fetch)
    assert len(fetch.asked) == 1


def answered(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    return kind("many\nlines", response=httpx.Response(status, request=httpx.Request("GET", "http://hub")))


def lost(cause: Exception) -> Exception:
    """What the library raises when it cannot reach the hub and its cache does not have the files."""
    error = errors.LocalEntryNotFoundError("many\nlines")
    error.__cause__ = cause
    return error


FAILURES = [
    (lost(httpx.ConnectError("[Errno -2] Name or service not known")), "not in the cache, and no network: "),
    (lost(errors.OfflineModeIsEnabled("off")), "not in the cache, and HF_HUB_OFFLINE forbids the network"),
    (lost(answered(errors.HfHubHTTPError, 503)), "answers with status 503; try again later"),
    (lost(answered(errors.HfHubHTTPError, 403)), "refuses access (403); log in with `hf auth login`"),
    (answered(errors.GatedRepoError, 403), "gated; accept its terms at "),
    (answered(errors.RepositoryNotFoundError, 404), "or private; check the name"),
    (answered(errors.RevisionNotFoundError, 404), "there is no revision v1 of it"),
    (errors.HFValidationError("Repo id must be\nso"), "no hub id, which would be like ORGANISATION/NAME"),
    (OSError(errno.ENOSPC, "No space left on device"), "no space left in "),
    (RuntimeError("Data processing error: No space left on device (os error 28)"), "no space left in "),
    (PermissionError(errno.EACCES, "Permission denied", "/cache/x"), "/cache/x: Permission denied; HF_HUB_CACHE"),
    (httpx.ReadTimeout("timed out"), "broke off (ReadTimeout: timed out); run it again, whole files are kept"),
]


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize(("error", "says"), FAILURES, ids=[type(error).__name__ for error, _ in FAILURES])
def test_a_download_fails_in_one_line_with_the_way_out(error: Exception, says: str, call: int, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        download("org/sd", "v1", FakeFetch(cached(tmp_path, "org/sd"), error, call))
    assert caught.value.message.startswith("org/sd: ")
    assert says in caught.value.message
    assert "\n" not in str(caught.value)


def test_weights_that_did_not_come_are_named(tmp_path: Path) -> None:
    folder = cached(tmp_path, "org/sd")
    ir(folder, "unet").with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"unet/openvino_model\.bin has not come; `triptych models pull org/sd`"):
        download("org/sd", fetch=FakeFetch(folder))


def test_a_file_beats_a_hub_id_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sd.safetensors").touch()
    with pytest.raises(ModelError, match=r"models/sd\.safetensors: a single-file checkpoint, .*from_single_file"):
        card(Config(folder=str(tmp_path), model=ModelConfig(path="models/sd.safetensors")))


def test_a_folder_beats_a_hub_id_of_its_name(tmp_path: Path) -> None:
    model(tmp_path / "org" / "sd")
    config = Config(folder=str(tmp_path), model=ModelConfig(path="org/sd"))
    assert locate(config) == tmp_path / "org" / "sd"
    assert card(config).name == "sd"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HfHub]:
    with HfHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        yield hub


def test_pull_fetches_what_is_needed_once_and_says_where_it_lies(hub: HfHub, cache: Path) -> None:
    status, out, err = triptych("models", "pull", "org/sd")
    assert (status, err) == (0, "")
    folder = Path(out.rstrip("\n"))
    assert folder == snapshot(cache, "org/sd")
    large = {name for name in hub.sent if name.endswith(".bin")}
    assert large == {f"{part}/openvino_model.bin" for part in ("text_encoder", "unet", "vae_decoder")}
    assert inspect(folder, machine(1)).can_run
    hub.sent.clear()
    (folder / "unet" / "openvino_model.bin").resolve().unlink()
    (folder / "unet" / "openvino_model.bin").unlink()
    status, out, _ = triptych("models", "pull", "org/sd", "--json")
    assert (status, json.loads(out)) == (0, {"model": "org/sd", "path": str(folder)})
    assert hub.sent == ["unet/openvino_model.bin"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["org/gated"], "org/gated: gated; accept its terms at "),
        (["org/nosuch"], "org/nosuch: not found at "),
        (["org/down"], "org/down: "),
        (["org/torch"], "org/torch: not an OpenVINO export"),
        (["org/sd", "--revision", "v9"], "org/sd: there is no revision v9 of it"),
    ],
)
def test_what_the_hub_refuses_is_one_line(words: list[str], says: str, hub: HfHub) -> None:
    status, out, err = triptych("models", "pull", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"triptych: error: {says}")
    assert err.count("\n") == 1
    assert not [name for name in hub.sent if name.endswith(".bin")]


def test_a_hub_id_in_the_configuration_is_downloaded_once_and_then_served_from_the_cache(
    hub: HfHub, cache: Path
) -> None:
    command = ("check", "--no-start", "--json", "--set", "model.path=org/sd")
    for _ in range(2):
        status, out, err = triptych(*command)
        assert (status, err) == (0, "")
        assert json.loads(out)["model"]["name"] == "org/sd"
        assert json.loads(out)["model"]["path"] == str(snapshot(cache, "org/sd"))
        asked = len(hub.sent)
    assert len(set(hub.sent)) == asked


def test_no_network_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    status, out, err = triptych("models", "pull", "org/sd")
    assert (status, out) == (2, "")
    assert err.startswith(f"triptych: error: org/sd: not in the cache, and no network: http://127.0.0.1:{port} cannot")
    assert err.count("\n") == 1


def test_offline_the_cache_is_served(cache: Path) -> None:
    path = cached(cache, "org/sd")
    assert triptych("models", "pull", "org/sd") == (0, f"{path}\n", "")
    status, _, err = triptych("models", "pull", "org/other")
    assert status == 2
    assert err == "triptych: error: org/other: not in the cache, and HF_HUB_OFFLINE forbids the network\n"


@contextmanager
def downloading(begun: Path, *ignored: int) -> Iterator["subprocess.Popen[str]"]:
    """A process whose library waits in a thread as a download does, born to ignore these signals and no others."""
    code = """
import signal, sys, threading, time
from orchestrator.models.download import download

def fetch(hub_id, revision, patterns, bars):
    begun = open(sys.argv[1], "wb")
    signal.signal(signal.SIGUSR1, lambda *_: print("alive", flush=True))
    print("begun", flush=True)
    threading.Thread(target=time.sleep, args=(600,)).start()
    threading.Event().wait()

download("org/sd", fetch=fetch)
"""
    command = [sys.executable, "-c", code, str(begun)]
    with ignoring(*ignored), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_a_download_at_once_and_leaves_no_half_file(cache: Path) -> None:
    begun = cache.parent / "blob.incomplete"
    with downloading(begun) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == -signal.SIGINT
    assert not begun.exists()


def test_a_download_that_was_started_to_ignore_ctrl_c_goes_on(cache: Path) -> None:
    begun = cache.parent / "blob.incomplete"
    with downloading(begun, signal.SIGINT) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "alive\n"
    assert begun.exists()
