"""The configuration file, typed. After `load` no dict survives; unknown keys are refused with their path."""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec

from stages.core import cores
from stages.core.arena import PoolSpec
from stages.core.errors import ConfigError
from stages.core.order import ORDERS, Order
from stages.core.schedule_names import SCHEDULE_NAMES
from stages.core.text_file import read_text_file
from stages.core.wire import KINDS, Kind

Precision = Literal["auto", "bf16", "f32", "f16"]
Share = Literal["auto", "disjoint", "timeslice", "turns"]
Count = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables of the file."""


class ModelConfig(_Section, frozen=True, kw_only=True):
    """`[model]`: what is served."""

    path: str = "demo"
    """A folder as optimum-cli exports it, relative to the file; or a hub id; or an embedded model:
    `demo`, or `demo-lcm`, which draws in four steps."""
    precision: Precision = "auto"
    """Inference precision; `auto` is the CPU's own default (bf16 where it has the instructions)."""
    schedule: str = ""
    """The schedule of requests that name none; empty means the model's own, as its scheduler_config.json has it."""
    sizes: tuple[str, ...] = ()
    """Picture sizes served, as `512x768` (width x height); empty means the size the model was trained for."""
    prompt_chunks: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    """Chunks of 75 tokens that the longest prompt may fill."""
    embed_cache_mb: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 64
    """Megabytes of prompt embeds that a text stage keeps for the next time; 0 for none."""


class PipelineConfig(_Section, frozen=True, kw_only=True):
    """`[pipeline]`: how the stages work together."""

    share: Share = "auto"
    """`disjoint`: every stage has cores of its own. `timeslice`: stages of the same cores run when the kernel lets
    them. `turns`: one of them at a time, changing at step boundaries. `auto` chooses."""
    order: Order = "shortest"
    """Order of jobs: `shortest`, least work left first; `deadline`, earliest deadline first; `fair`, fewest steps
    done first, so that all advance alike; `arrival`, first come, first served."""
    queue_limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 64
    """Images accepted beyond those that already have a slot."""
    keep_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 600.0
    """Seconds for which a prompt of a named owner is kept after it has ended, for `attach`."""
    keep_mb: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 256
    """Megabytes of such prompts that are kept at most, those that ended last."""
    journal: Literal[""] = ""
    """Reserved: a file that remembers accepted prompts over a restart. This version keeps none."""


class ListenConfig(_Section, frozen=True, kw_only=True):
    """`[listen]`: where clients connect."""

    socket: str = "tcp://127.0.0.1:7801"
    """ZeroMQ address of the prompt socket: tcp on a loopback address, or ipc."""
    http: str | None = None
    """Address of the HTTP gateway, as HOST:PORT on loopback; off loopback only with a key. Empty for none; where it is
    not named at all, 127.0.0.1:7800, or a free port if that is taken."""
    key: str = ""
    """Secret that HTTP clients have to present; empty for none."""
    hosts: tuple[str, ...] = ()
    """Names, beside those of loopback, by which HTTP clients may call the server."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may use the HTTP gateway."""
    grace_s: Seconds = 5.0
    """Seconds for which a picture is still made whose HTTP client has gone."""
    playground: bool = False
    """Whether the page of the HTTP gateway may kill stages; with an embedded model it may in any case."""


class DeadlinesConfig(_Section, frozen=True, kw_only=True):
    """`[deadlines]`: how long anything may take, in seconds, before somebody acts."""

    load_s: Seconds = 300.0
    """Seconds that a stage may load."""
    drain_s: Seconds = 30.0
    """Seconds that accepted prompts may take to finish after SIGTERM."""
    stop_s: Seconds = 2.0
    """Seconds that a stage that was told to stop may take before it is killed."""
    send_s: Seconds = 2.0
    """Seconds that answers on their way to clients may take at shutdown."""


class StageConfig(_Section, frozen=True, kw_only=True):
    """`[[stage]]`: the processes of one kind."""

    kind: Kind
    replicas: Count = 1
    """Processes of this kind."""
    cores: str = ""
    """A Linux CPU list; empty means the cores that all stages share."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """Inference threads; 0 means one a core."""
    streams: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Forwards a U-Net process has in flight at once; its threads are divided among them."""
    max_rows: Annotated[int, msgspec.Meta(ge=2, le=64)] = 2
    """Rows of one U-Net forward; two are one image under guidance."""
    shapes_mb: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0
    """Megabytes that a U-Net process may take for forwards of other sizes and more rows than the first; 0 means a
    quarter of what is free at the start, divided among the U-Net processes. Beyond, fewer rows share a forward."""
    implementation: str = ""
    """`module:Class` of a stage of your own (stages.stage.Stage); empty means the one Triptych brings."""


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration. All of it has defaults: without a file, the embedded model is served."""

    model: ModelConfig = ModelConfig()
    pipeline: PipelineConfig = PipelineConfig()
    listen: ListenConfig = ListenConfig()
    deadlines: DeadlinesConfig = DeadlinesConfig()
    load_attempts: Count = 3
    """Deaths of a stage in a row while loading after which it is given up, and the server with it."""
    stage: tuple[StageConfig, ...] = ()
    """The `[[stage]]` tables; a kind without one gets one process with the defaults."""
    folder: str = ""
    """Folder that relative paths start from; `load` sets it to that of the file."""

    def stages(self) -> tuple[StageConfig, ...]:
        """One entry for every kind, in pipeline order, the missing ones filled in."""
        named = {stage.kind: stage for stage in self.stage}
        return tuple(named.get(kind, StageConfig(kind=kind)) for kind in KINDS)


class StageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The specification of one stage process, as JSON on its command line."""

    name: str
    number: int
    """Number of the process: the owner word of its slots, and its row on the board."""
    kind: Kind
    replica: int
    implementation: str
    """Class of the stage, as `module:Class`."""
    cores: str
    threads: int
    takes_turns: bool
    """Whether it computes only while holding the lease of its cores."""
    bind_threads: bool
    """Whether each inference thread is bound to one core: only where no other stage uses these cores."""
    streams: int
    max_rows: int
    depth: int
    """Jobs that this process may hold: those it works on and one more, so that it never waits for a hop."""
    shapes_bytes: int
    """Bytes that the forwards compiled beside the first may take."""
    order: Order
    precision: Precision
    model: str
    """Model folder."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height of the pictures served; the first is compiled at load."""
    prompt_chunks: int
    pools: tuple[PoolSpec, ...]
    schedule: str = ""
    """Schedule of requests that name none; empty means the model's own."""
    embed_cache_mb: int = 0
    arena_fd: int = -1
    board_fd: int = -1
    lifeline_fd: int = -1
    parent: int = 0
    """Process id of the orchestrator."""
    address: str = ""
    """ZeroMQ address of the hub's stage socket."""


def load(path: Path | None, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> Config:
    """Read a TOML file, or nothing for the embedded default; then the environment, then `section.key=value`s.

    A variable `TRIPTYCH_SECTION_KEY` stands for `section.key`, `TRIPTYCH_STAGE_UNET_KEY` for `stage.unet.key`. Raises
    ConfigError naming the key.
    """
    tables: dict[str, Any] = {}
    if path is not None:
        try:
            tables = tomllib.loads(read_text_file(path).decode())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except _NOT_TOML as error:
            raise ConfigError(f"{path}: not TOML: {error}") from error
    for variable, value in environ.items():
        if (dotted := _key_of(variable)) is not None:
            _set(tables, dotted, value, where=variable)
    for override in overrides:
        dotted, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: write it like pipeline.queue_limit=8")
        _set(tables, dotted.strip(), value.strip(), where=f"--set {dotted}")
    name = str(path) if path else "configuration"
    if "folder" in tables:
        raise ConfigError(f"{name}: `folder` is no key; paths start where the file is")
    tables["folder"] = str(path.resolve().parent if path else Path.cwd())
    try:
        config = msgspec.convert(tables, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {_readable(str(error))}") from error
    _check(config, name)
    listen = msgspec.structs.replace(config.listen, socket=expand_home(config.listen.socket))
    return msgspec.structs.replace(config, listen=listen)


def expand_home(address: str) -> str:
    """An address with the home folder for the `~` of `ipc://~/...`, which no shell sees."""
    scheme, colon, place = address.partition("://")
    return f"ipc://{os.path.expanduser(place)}" if scheme == "ipc" and colon else address


_NOT_TOML = (ValueError, RecursionError)
"""Errors of reading TOML; ValueError stands for TOMLDecodeError, bytes that are no UTF-8, and endless numbers."""

_TABLES: dict[str, type[_Section]] = {
    "model": ModelConfig,
    "pipeline": PipelineConfig,
    "listen": ListenConfig,
    "deadlines": DeadlinesConfig,
    **{f"stage.{kind}": StageConfig for kind in KINDS},
}


def _key_of(variable: str) -> str | None:
    """The `section.key` that an environment variable stands for, if it stands for one."""
    ours, _, name = variable.partition("_")
    table, _, key = name.lower().partition("_")
    if ours != "TRIPTYCH":
        return None
    if table == "stage":
        return f"stage.{key.replace('_', '.', 1)}"
    if table in _TABLES:
        return f"{table}.{key}"
    return "load_attempts" if name == "LOAD_ATTEMPTS" else None


def _set(tables: dict[str, Any], dotted: str, value: str, where: str) -> None:
    """Put a value that came as text at `section.key` or `stage.KIND.key`."""
    parts = dotted.split(".")
    if len(parts) == 3 and parts[0] == "stage":
        listed = tables.setdefault("stage", [])
        if not (isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed)):
            raise ConfigError(f"{where}: `stage` is no list of tables; write [[stage]]")
        table = next((entry for entry in listed if entry.get("kind") == parts[1]), None)
        if table is None:
            table = {"kind": parts[1]}
            listed.append(table)
    elif len(parts) == 2:
        table = tables.setdefault(parts[0], {})
    elif len(parts) == 1:
        table = tables
    else:
        raise ConfigError(f"{where}: no such key")
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: `{parts[0]}` is no table")
    try:
        found = tomllib.loads(f"value = {value}")["value"]
    except _NOT_TOML:
        found = value
    wanted = get_type_hints(_TABLES.get(dotted.rpartition(".")[0], Config)).get(parts[-1])
    table[parts[-1]] = value if wanted in (str, str | None) and not isinstance(found, str) else found


_CHOICES = {
    "precision": get_args(Precision),
    "share": get_args(Share),
    "kind": KINDS,
    "order": ORDERS,
    "journal": ("",),
}
"""Values of the keys that take few of them, for the message when there is another."""


def _readable(message: str) -> str:
    """Turn a msgspec message into one that names the key as the file spells it, and what may stand there."""
    text, _, where = message.partition(" - at `")
    key = where.rstrip("`").removeprefix("$").removeprefix(".")
    choices = _CHOICES.get(key.rpartition(".")[2]) if text.startswith("Invalid enum value") else None
    if choices:
        text += "; this version takes " + " | ".join(json.dumps(choice) for choice in choices)
    return f"{key}: {text}" if key else text


def _check(config: Config, name: str) -> None:
    kinds = [stage.kind for stage in config.stage]
    if len(kinds) != len(set(kinds)):
        raise ConfigError(f"{name}: stage: a kind stands twice; use `replicas` for more processes of one kind")
    if ".." in Path(config.model.path).parts:
        raise ConfigError(f"{name}: model.path: `..` is not followed; write the folder's absolute path")
    if config.model.schedule not in ("", *SCHEDULE_NAMES):
        served = ", ".join(('the model\'s own ("")', *SCHEDULE_NAMES))
        raise ConfigError(f"{name}: model.schedule: {config.model.schedule[:40]!r} is not served; there are {served}")
    for size in config.model.sizes:
        parse_size(size, f"{name}: model.sizes")
    for number, stage in enumerate(config.stage):
        try:
            cores.parse(stage.cores)
        except ConfigError as error:
            raise ConfigError(f"{name}: stage[{number}].cores: {error}") from error
    _check_address(config.listen.socket, f"{name}: listen.socket")
    if config.listen.http:
        _check_http(config.listen, f"{name}: listen.http")


_SIZE = re.compile(r"(\d{1,18})x(\d{1,18})", re.ASCII | re.IGNORECASE)


def parse_size(text: str, where: str) -> tuple[int, int]:
    """Read `WxH` in pixels. Raises ConfigError that names the nearest valid size."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{where}: {text!r} is no size; write it like 512x512")
    size = (int(match[1]), int(match[2]))
    nearest = tuple(min(max(8, round(side / 8) * 8), 4096) for side in size)
    if size != nearest:
        raise ConfigError(f"{where}: {text} is not possible; the nearest size is {nearest[0]}x{nearest[1]}")
    return size


_LOOPBACK = re.compile(r"tcp://(127(\.\d{1,3}){3}|localhost|\[::1\])(:|$)", re.ASCII)
_PORT = re.compile(r"\*|\d{1,5}", re.ASCII)


def _check_http(listen: ListenConfig, where: str) -> None:
    host, colon, port = (listen.http or "").rpartition(":")
    if not colon or not port.isdecimal() or not port.isascii() or not 0 < int(port) < 65536:
        raise ConfigError(f"{where}: {listen.http!r} is no address; write it like 127.0.0.1:7800")
    if not _LOOPBACK.match(f"tcp://{host}:") and not listen.key:
        raise ConfigError(f"{where}: {listen.http} is off loopback, where anybody could use it; set listen.key")


def _check_address(address: str, where: str) -> None:
    if address.startswith("ipc://") and len(address) > len("ipc://"):
        return
    if not address.startswith("tcp://"):
        raise ConfigError(f"{where}: {address!r} is no address; write tcp://127.0.0.1:7801 or ipc://PATH")
    if not _LOOPBACK.match(address):
        raise ConfigError(f"{where}: {address} is off loopback, where anybody could use it; use tcp://127.0.0.1:PORT")
    port = _PORT.fullmatch(address.rpartition(":")[2])
    if port is None or (port[0] != "*" and not 0 < int(port[0]) < 65536):
        raise ConfigError(f"{where}: {address} has no port; write it like tcp://127.0.0.1:7801")
