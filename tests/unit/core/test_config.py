import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.arena import PoolSpec
from stages.core.config import Config, StageConfig, StageSpec, load, parse_size
from stages.core.errors import ConfigError
from stages.core.schedule_names import SCHEDULE_NAMES
from stages.core.wire import KINDS

Load = Callable[..., Config]

TABLES = [
    (field.name, field.type)
    for field in msgspec.structs.fields(Config)
    if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Load a file of this text; the environment of the test run does not count."""

    def load_it(text: str, *overrides: str, environ: Mapping[str, str] | None = None) -> Config:
        path = tmp_path / "triptych.toml"
        path.write_text(text)
        return load(path, overrides, environ or {})

    return load_it


def choices() -> Iterator[Any]:
    """The keys of few values, and the values."""
    for table, struct in [*TABLES, ("stage.unet", StageConfig)]:
        for field in msgspec.structs.fields(struct):
            if get_origin(field.type) is Literal and field.name != "kind":
                yield pytest.param(f"{table}.{field.name}", get_args(field.type), id=f"{table}.{field.name}")


def test_without_a_file_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None, (), {})
    assert config == Config(folder=str(tmp_path))
    assert config.model.path == "demo"
    assert config.listen.socket == "tcp://127.0.0.1:7801"
    assert config.stages() == tuple(StageConfig(kind=kind) for kind in KINDS)


def test_a_file_is_read_and_names_the_folder_where_paths_start(load_text: Load, tmp_path: Path) -> None:
    config = load_text("""
        [model]
        path = "sd15-ov"
        sizes = ["512x512", "512x768"]
        [deadlines]
        load_s = 3
        [[stage]]
        kind = "unet"
        cores = "2-15"
        max_rows = 4
    """)
    assert config.folder == str(tmp_path)
    assert (config.model.path, config.model.sizes) == ("sd15-ov", ("512x512", "512x768"))
    assert config.deadlines.load_s == 3.0
    text, unet, vae = config.stages()
    assert (text, vae) == (StageConfig(kind="text"), StageConfig(kind="vae"))
    assert unet == StageConfig(kind="unet", cores="2-15", max_rows=4)


@pytest.mark.parametrize(
    ("text", "overrides", "environ", "key"),
    [
        *((f"[{table}]\nnosuch = 1", (), {}, table) for table, _ in TABLES),
        *(("", (f"{table}.nosuch=1",), {}, table) for table, _ in TABLES),
        *(("", (), {f"TRIPTYCH_{table.upper()}_NOSUCH": "1"}, table) for table, _ in TABLES),
        ("nosuch = 1", (), {}, ""),
        ("[nosuch]\nkey = 1", (), {}, ""),
        ("", ("nosuch=1",), {}, ""),
        ("", ("nosuch.key=1",), {}, ""),
        ('[[stage]]\nkind = "unet"\n[[stage]]\nkind = "vae"\nnosuch = 1', (), {}, "stage[1]"),
        ("", ("stage.unet.nosuch=1",), {}, "stage[0]"),
        ("", (), {"TRIPTYCH_STAGE_UNET_NOSUCH": "1"}, "stage[0]"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(
    text: str, overrides: tuple[str, ...], environ: dict[str, str], key: str, load_text: Load
) -> None:
    with pytest.raises(ConfigError, match="unknown field `nosuch`") as refused:
        load_text(text, *overrides, environ=environ)
    path = f"{key}: " if key else ""
    assert refused.value.message.endswith(f"triptych.toml: {path}Object contains unknown field `nosuch`")


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "triptych.toml"
    path.write_text("[pipeline]\nqueue_limit = 5\n", encoding="utf-8-sig")
    assert load(path, (), {}).pipeline.queue_limit == 5


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(load_text: Load) -> None:
    file, environ = "[pipeline]\nqueue_limit = 5", {"TRIPTYCH_PIPELINE_QUEUE_LIMIT": "6"}
    sources = [
        load_text(""),
        load_text(file),
        load_text(file, environ=environ),
        load_text(file, "pipeline.queue_limit=7", environ=environ),
        load_text(file, "pipeline.queue_limit=7", "pipeline.queue_limit = 8", environ=environ),
    ]
    assert [config.pipeline.queue_limit for config in sources] == [64, 5, 6, 7, 8]


@pytest.mark.parametrize("file", ["", '[[stage]]\nkind = "vae"\n[[stage]]\nkind = "unet"\nthreads = 1\ncores = "0-1"'])
def test_a_stage_is_set_by_its_kind(file: str, load_text: Load) -> None:
    config = load_text(file, "stage.unet.threads=3", "stage.unet.cores=0-3,8", 'stage.text.implementation="mine:Text"')
    text, unet, _vae = config.stages()
    assert (unet.threads, unet.cores, text.implementation) == (3, "0-3,8", "mine:Text")


def test_a_stage_is_set_by_its_kind_from_the_environment(load_text: Load) -> None:
    environ = {
        "TRIPTYCH_STAGE_UNET_MAX_ROWS": "4",
        "TRIPTYCH_STAGE_UNET_CORES": "3",
        "TRIPTYCH_STAGE_VAE_REPLICAS": "2",
    }
    _text, unet, vae = load_text("", environ=environ).stages()
    assert (unet.max_rows, unet.cores, vae.replicas) == (4, "3", 2)
    with pytest.raises(ConfigError, match="kind"):
        load_text("", environ={"TRIPTYCH_STAGE_NOSUCH_CORES": "0"})
    with pytest.raises(ConfigError):
        load_text("", environ={"TRIPTYCH_STAGE_UNET": "0"})


def test_what_stands_in_no_table_is_set_too(load_text: Load) -> None:
    environ = {"TRIPTYCH_LOAD_ATTEMPTS": "5"}
    assert load_text("", environ=environ).load_attempts == 5
    assert load_text("", "load_attempts=6", environ=environ).load_attempts == 6


def test_variables_of_the_command_line_are_no_keys(load_text: Load) -> None:
    names = ("TRIPTYCH_CONFIG", "TRIPTYCH_CONNECT", "TRIPTYCH_OUT", "TRIPTYCH", "MODEL_PATH", "X_MODEL_PATH")
    assert load_text("", environ=dict.fromkeys(names, "x")) == load_text("")


@pytest.mark.parametrize("stage", ["stage = 3", '[stage]\nkind = "unet"', "stage = [1]"])
@pytest.mark.parametrize("overrides", [(), ("stage.unet.threads=1",)])
def test_stages_are_a_list_of_tables(stage: str, overrides: tuple[str, ...], load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"stage.* (Expected|write )"):
        load_text(stage, *overrides)


@pytest.mark.parametrize("file", ['folder = "/x"', "[folder]\nx = 1"])
def test_the_folder_is_where_the_file_is(file: str, load_text: Load) -> None:
    for text, overrides in [(file, ()), ("", ("folder=/x",)), ("", ("folder.x=1",))]:
        with pytest.raises(ConfigError, match="`folder` is no key"):
            load_text(text, *overrides)


@pytest.mark.parametrize("value", ["2024", "1e3", "true", "[1]", "2024-12-31", "9" * 5000, "[" * 100_000])
def test_text_may_look_like_something_else(value: str, load_text: Load) -> None:
    assert load_text("", f"model.path={value}").model.path == value
    assert load_text("", environ={"TRIPTYCH_MODEL_PATH": value}).model.path == value


def test_one_core_is_a_cpu_list(load_text: Load) -> None:
    assert load_text("", "stage.unet.cores=0").stages()[1].cores == "0"


@pytest.mark.parametrize("value", ["demo", '"demo"', "my models/sd 15", "https://x/y", "", "[half"])
def test_text_from_outside_needs_no_quotes(value: str, load_text: Load) -> None:
    expected = value.strip('"')
    assert load_text("", f"model.path={value}").model.path == expected
    assert load_text("", environ={"TRIPTYCH_MODEL_PATH": value}).model.path == expected


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("pipeline.queue_limit", "--set pipeline.queue_limit: write it like"),
        ("a.b.c.d=1", "--set a.b.c.d"),
        ("model=3", "model: Expected `object`"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(override: str, named: str, load_text: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text("", override)
    assert named in refused.value.message


def test_a_value_is_no_table(load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"--set model\.path: `model` is no table"):
        load_text("model = 3", "model.path=x")


@pytest.mark.parametrize(("key", "values"), list(choices()))
def test_a_key_of_few_values_lists_them(key: str, values: tuple[object, ...], load_text: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text("", f"{key}=" + ('"nosuch"' if isinstance(values[0], str) else "77"))
    assert key.rpartition(".")[2] in refused.value.message
    assert refused.value.message.endswith("takes " + " | ".join(map(json.dumps, values)))
    for value in values:
        load_text("", f"{key}={json.dumps(value)}")


@pytest.mark.parametrize("stage", ['kind = "nosuch"', 'cores = "1"'])
def test_a_stage_is_of_a_known_kind(stage: str, load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"stage\[0\].*kind"):
        load_text(f"[[stage]]\n{stage}")


@pytest.mark.parametrize("name", ["", *SCHEDULE_NAMES])
def test_the_schedule_of_requests_that_name_none_is_one_that_is_served(name: str, load_text: Load) -> None:
    assert load_text(f'[model]\nschedule = "{name}"').model.schedule == name


@pytest.mark.parametrize("name", ["DDIM", "DEISMultistepScheduler", "x" * 10_000])
def test_another_schedule_is_refused_with_those_that_are_served(name: str, load_text: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text("", f"model.schedule={name}")
    served = ", ".join(SCHEDULE_NAMES)
    said = f'model.schedule: {name[:40]!r} is not served; there are the model\'s own (""), {served}'
    assert refused.value.message.endswith(said)


def test_a_kind_stands_once(load_text: Load) -> None:
    with pytest.raises(ConfigError, match="stage: a kind stands twice; use `replicas`"):
        load_text('[[stage]]\nkind = "vae"\n[[stage]]\nkind = "vae"')


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pipeline.queue_limit", "-1"),
        ("pipeline.queue_limit", "1.5"),
        ("pipeline.queue_limit", "true"),
        ("model.prompt_chunks", "0"),
        ("model.prompt_chunks", "17"),
        ("deadlines.load_s", "0"),
        ("deadlines.load_s", "nan"),
        ("deadlines.load_s", "inf"),
        ("deadlines.stop_s", "86401"),
        ("deadlines.stop_s", '"2"'),
        ("stage.unet.replicas", "0"),
        ("stage.unet.threads", "-1"),
        ("stage.unet.max_rows", "1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(key: str, value: str, load_text: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text("", f"{key}={value}")
    assert f"{key.replace('stage.unet', 'stage[0]')}: Expected " in refused.value.message


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ("513x512", "512x512"),
        ("512x763", "512x760"),
        ("0x512", "8x512"),
        ("100000x100000", "4096x4096"),
        ("99999999999x512", "4096x512"),
    ],
)
def test_an_impossible_size_names_the_nearest(size: str, nearest: str, load_text: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(f'[model]\nsizes = ["512x512", "{size}"]')
    assert refused.value.message.endswith(f"model.sizes: {size} is not possible; the nearest size is {nearest}")


@pytest.mark.parametrize(
    "size",
    [
        "9" * 400 + "x512",
        "512x" + "9" * 5000,
        "512x512\n",
        "",
        "512",
        "x",
        "512x",
        "x512",
        "512xabc",
        "512x512x512",
        "-8x8",
        "5e2x512",
        "\u0665\u0661\u0662x512",
    ],
)
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="is no size; write it like 512x512"):
        parse_size(size, "here")


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_size_is_possible_or_its_nearest_is(width: int, height: int) -> None:
    try:
        assert parse_size(f"{width}x{height}", "here") == (width, height)
    except ConfigError as error:
        named = parse_size(error.message.rpartition(" ")[2], "here")
        for side, nearest in zip((width, height), named, strict=True):
            assert abs(side - nearest) == min(abs(side - each) for each in range(8, 4097, 8))
    else:
        assert {width % 8, height % 8} == {0}
        assert 8 <= min(width, height) <= max(width, height) <= 4096


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "tcp://127.0.0.1:*", "tcp://localhost:65535", "ipc:///run/t.sock", "ipc://@name"]
)
def test_a_private_address_is_taken(address: str, load_text: Load) -> None:
    assert load_text("", f"listen.socket={address}").listen.socket == address


@pytest.mark.parametrize(
    ("address", "why"),
    [
        *((f"tcp://{host}:7801", "off loopback") for host in ("*", "0.0.0.0", "192.168.1.1", "[::]", "example.org")),
        *((f"tcp://{host}:80", "off loopback") for host in ("127.example.org", "127.0.0.1.example.org", "localhosts")),
        ("tcp://127.0.0.1", "no port"),
        ("tcp://127.0.0.1:", "no port"),
        ("tcp://127.0.0.1:0", "no port"),
        ("tcp://127.0.0.1:65536", "no port"),
        ("tcp://127.0.0.1:http", "no port"),
        ("tcp://127.0.0.1:" + "9" * 5000, "no port"),
        ("tcp://[::1]", "no port"),
        ("127.0.0.1:7801", "no address"),
        ("inproc://x", "no address"),
        ("ipc://", "no address"),
        ('""', "no address"),
    ],
)
def test_any_other_address_is_refused(address: str, why: str, load_text: Load) -> None:
    with pytest.raises(ConfigError, match=f"listen.socket: .*{why}"):
        load_text("", f"listen.socket={address}")


@pytest.mark.parametrize("path", ["../sd15", "models/../../sd15", "/models/..", ".."])
def test_a_model_path_does_not_climb(path: str, load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"model\.path: `\.\.` is not followed"):
        load_text("", f"model.path={path}")


def test_a_bad_cpu_list_is_refused_by_its_stage(load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"triptych.toml: stage\[1\].cores: '7-3' in the CPU list '0,7-3'"):
        load_text('[[stage]]\nkind = "text"\n[[stage]]\nkind = "unet"\ncores = "0,7-3"')


NOT_TOML = [
    b"[model\npath = 1",
    b"a = 1\na = 2",
    b"\xff\xfe",
    b"a = \n\n\nb",
    b"x = " + b"[" * 100_000,
    b"x = " + b"9" * 5000,
]


@pytest.mark.parametrize("content", NOT_TOML, ids=lambda content: repr(content)[:20])
def test_what_is_not_toml_is_refused_in_one_line_with_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load(path, (), {})
    assert str(refused.value).startswith(f"{path}: not TOML: ")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "why"), [("absent.toml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        load(tmp_path / name, (), {})
    assert str(tmp_path / name) in refused.value.message


def test_a_stage_spec_crosses_the_command_line() -> None:
    spec = StageSpec(
        name="unet-0",
        number=1,
        kind="unet",
        replica=0,
        implementation="stages.unet.stage:Unet",
        cores="0-1",
        threads=2,
        takes_turns=True,
        bind_threads=False,
        streams=2,
        max_rows=2,
        depth=3,
        shapes_bytes=0,
        order="shortest",
        precision="bf16",
        model="/models/a b",
        sizes=((512, 768),),
        prompt_chunks=3,
        pools=(PoolSpec("latents", 3, 100),),
    )
    assert msgspec.json.decode(msgspec.json.encode(spec), type=StageSpec) == spec
