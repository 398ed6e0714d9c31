import argparse
import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import __main__ as program
from orchestrator.__main__ import COMMANDS, main
from orchestrator.cli import options
from orchestrator.cli.options import Private, Remote
from orchestrator.cli.parser import Parser
from stages.core import config
from stages.core.errors import ConfigError, ModelError, NoAnswer, StageLost, StartFailed, TriptychError

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIPTYCH_CONFIG", "TRIPTYCH_CONNECT", "TRIPTYCH_OUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("words", "says", "see"),
    [
        ([], "required: command", "triptych --help"),
        (["draw"], "'draw'", "triptych --help"),
        (["--verbose", "generate", "a"], "--verbose", "triptych --help"),
        (["generate"], "PROMPT", "triptych generate --help"),
        (["generate", "a", "--stepz", "3"], "--stepz", "triptych generate --help"),
        (["generate", "a", "--step", "3"], "--step", "triptych generate --help"),
        (["generate", "a", "--steps", "x"], "--steps: 'x' is no whole number", "triptych generate --help"),
        (["generate", "a", "--steps", "0"], "at least 1", "triptych generate --help"),
        (["generate", "a", "--steps", "1_0"], "no whole number", "triptych generate --help"),
        (["generate", "a", "--steps", "9" * 5000], "no whole number", "triptych generate --help"),
        (["generate", "a", "--seed", "-1"], "-1 is no seed", "triptych generate --help"),
        (["generate", "a", "--seed", str(2**64)], "is no seed", "triptych generate --help"),
        (["generate", "a", "--guidance", "nan"], "'nan' is no number", "triptych generate --help"),
        (["generate", "a", "--guidance", "1e999"], "is no number", "triptych generate --help"),
        (["generate", "a", "--guidance-rescale", "1.5"], "1.5 is not from 0 to 1", "triptych generate --help"),
        (["generate", "a", "--size", "512"], "write it like 512x512", "triptych generate --help"),
        (["generate", "a", "--size", "511x512"], "nearest size is 512x512", "triptych generate --help"),
        (["generate", "a", "--format", "gif"], "'gif'", "triptych generate --help"),
        (["generate", "a\udcff"], "PROMPT: not valid UTF-8", "triptych generate --help"),
        (["generate", "a", "--negative", "\udcff"], "--negative: not valid UTF-8", "triptych generate --help"),
        (["stream", "a", "b"], "unrecognized arguments: b", "triptych stream --help"),
        (["status", "--watch=3"], "--watch", "triptych status --help"),
        (["serve", "--lifeline-fd", "x"], "--lifeline-fd", "triptych serve --help"),
    ],
)
def test_an_error_of_usage_is_one_line_and_status_2(words: list[str], says: str, see: str, capsys: Captured) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("triptych: error: ")
    assert err.endswith(f"(see {see})\n")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_keeps_to_itself_what_is_not_for_users(name: str, capsys: Captured) -> None:
    assert main([name, "--help"]) == 0
    out, _ = capsys.readouterr()
    assert COMMANDS[name] in out
    assert "lifeline" not in out


def test_the_commands_are_listed_and_the_version_told(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    out, _ = capsys.readouterr()
    assert all(f"  {name:10}{does}\n" in out for name, does in COMMANDS.items())
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("triptych ")


def test_help_waits_for_no_heavy_import(python: Callable[..., str]) -> None:
    code = """
import sys
from orchestrator.__main__ import main
main(["--help"])
main(["generate"])
print(*sys.modules)
"""
    loaded = set(python(code).splitlines()[-1].split())
    assert "orchestrator.cli.parser" in loaded
    assert not loaded & {"openvino", "transformers", "torch", "rich", "PIL"}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_what_only_stages_need(name: str, python: Callable[..., str]) -> None:
    module = f"orchestrator.cli.commands.{name}"
    code = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)"
    loaded = set(python(code, module).split())
    assert module in loaded
    assert not loaded & {"openvino", "transformers", "torch", "PIL"}


def test_prompts_may_stand_anywhere_and_begin_with_a_dash() -> None:
    _, args = program.parse(["generate", "a", "--steps", "3", "b", "--set", "x.y=1", "--set", "z=2"])
    assert (args.prompt, args.steps, args.set) == (["a", "b"], 3, ["x.y=1", "z=2"])
    _, args = program.parse(["generate", "--json", "--", "-minus", "--debug"])
    assert (args.prompt, args.json, args.debug) == (["-minus", "--debug"], True, False)


@pytest.mark.parametrize("words", [["--debug", "status"], ["status", "--debug"]])
def test_debug_stands_before_or_behind_the_command(words: list[str]) -> None:
    assert program.parse(words)[1].debug


def command(monkeypatch: pytest.MonkeyPatch, run: Callable[[argparse.Namespace], int]) -> None:
    """Have `triptych status` do this."""
    found = SimpleNamespace(arguments=lambda parser: None, run=run)
    monkeypatch.setattr("importlib.import_module", lambda name: found)


def failing(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("the key\nis wrong"), 2),
        (ModelError("no model"), 2),
        (StartFailed("no start"), 3),
        (NoAnswer("nobody"), 3),
        (StageLost("lost"), 1),
        (TriptychError("other"), 1),
    ],
)
def test_an_error_is_one_line_and_its_exit_status(
    error: TriptychError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    command(monkeypatch, failing(error))
    assert main(["status"]) == status
    assert capsys.readouterr().err == f"triptych: error: {error.message}\n"


def test_a_defect_is_one_line_too_and_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    command(monkeypatch, failing(ZeroDivisionError("division\nby zero")))
    assert main(["status"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("triptych: error: internal: ZeroDivisionError: division by zero")
    assert err.count("\n") == 1


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    command(monkeypatch, failing(ConfigError("wrong")))
    assert main(["--debug", "status"]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("triptych: error: wrong\n")


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    command(monkeypatch, failing(KeyboardInterrupt()))
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_ends_us_quietly(python: Callable[..., str]) -> None:
    code = """
import os, subprocess, sys
ours, theirs = os.pipe()
os.close(ours)
command = [sys.executable, "-m", "orchestrator", "check", "--no-start", "--json"]
ended = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE)
print(ended.returncode, ended.stderr)
"""
    assert python(code) == "1 b''\n"


def test_names_of_pictures_can_be_printed_in_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii", write_through=True))
    command(monkeypatch, lambda _: int(print("straße") is not None))
    assert main(["status"]) == 0
    assert printed.getvalue() == b"stra\\xdfe\n"


def parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser("triptych generate", "")
    options.add_target(parser)
    options.add_pictures(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        ([], {}, Private(None, ())),
        ([], {"TRIPTYCH_CONFIG": "", "TRIPTYCH_CONNECT": ""}, Private(None, ())),
        ([], {"TRIPTYCH_CONFIG": "e.toml"}, Private(Path("e.toml"), ())),
        (["-c", "f.toml"], {"TRIPTYCH_CONFIG": "e.toml"}, Private(Path("f.toml"), ())),
        (["--set", "a.b=1"], {"TRIPTYCH_CONFIG": "e.toml"}, Private(Path("e.toml"), ("a.b=1",))),
        ([], {"TRIPTYCH_CONNECT": "tcp://e:1"}, Remote("tcp://e:1")),
        ([], {"TRIPTYCH_CONNECT": "tcp://e:1", "TRIPTYCH_CONFIG": "e.toml"}, Remote("tcp://e:1")),
        (["--connect", "tcp://f:1"], {"TRIPTYCH_CONNECT": "tcp://e:1", "TRIPTYCH_CONFIG": "x"}, Remote("tcp://f:1")),
        (["-c", "f.toml"], {"TRIPTYCH_CONNECT": "tcp://e:1"}, Private(Path("f.toml"), ())),
        (["--set", "a.b=1"], {"TRIPTYCH_CONNECT": "tcp://e:1"}, Private(None, ("a.b=1",))),
    ],
)
def test_the_command_line_beats_the_environment(
    words: list[str], environ: dict[str, str], expected: Private | Remote
) -> None:
    assert options.target(parsed(words), environ) == expected


@pytest.mark.parametrize("words", [["--connect", "x", "-c", "y"], ["--connect", "x", "--set", "a.b=1"]])
def test_prompts_go_to_one_place(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="name one of them"):
        options.target(parsed(words), {})


def test_pictures_go_where_is_said() -> None:
    assert options.out(parsed(["-o", "x"]), {"TRIPTYCH_OUT": "e"}) == Path("x")
    assert options.out(parsed([]), {"TRIPTYCH_OUT": "e"}) == Path("e")
    assert options.out(parsed([]), {}) == Path("triptych-out")


PATHS = [
    ("generate", ["x", "-o", "{}"], "out"),
    ("generate", ["x", "--trace", "{}"], "trace"),
    ("generate", ["x", "-c", "{}"], "config"),
    ("stream", ["-o", "{}"], "out"),
    ("serve", ["{}"], "config"),
    ("check", ["{}"], "config"),
    ("bench", ["--mix", "{}"], "mix"),
    ("bench", ["--plot", "{}"], "plot"),
    ("trace", ["-o", "{}"], "out"),
    ("tune", ["{}", "--latency-cap", "1"], "config"),
    ("tune", ["--latency-cap", "1", "-o", "{}"], "out"),
    ("tune", ["--latency-cap", "1", "--plot", "{}"], "plot"),
    ("plan", ["--cores", "1", "--profile", "{}"], "profile"),
    ("plan", ["--cores", "1", "--profile", "x", "--plot", "{}"], "plot"),
]


@pytest.mark.parametrize(("name", "words", "option"), PATHS)
def test_the_home_folder_is_meant_where_no_shell_has_seen_it(
    name: str, words: list[str], option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    _, args = program.parse([name, *(word.format("~/x y") for word in words)])
    assert getattr(args, option) == Path("/home/me/x y")
    _, args = program.parse([name, *(word.format("~no-such-user/x") for word in words)])
    assert getattr(args, option) == Path("~no-such-user/x")


@pytest.mark.parametrize(
    "words", [words for name, words, option in PATHS if option == "plot"], ids=lambda words: " ".join(words)
)
def test_a_plot_that_cannot_be_written_is_told_before_the_work(
    words: list[str], tmp_path: Path, capsys: Captured
) -> None:
    name = next(name for name, known, _ in PATHS if known is words)
    assert main([name, *(word.format(tmp_path / "none" / "x.png") for word in words)]) == 2
    assert "cannot write the plot to" in capsys.readouterr().err


def test_no_path_option_is_forgotten() -> None:
    for name in COMMANDS:
        parser = Parser("", "")
        importlib.import_module(f"orchestrator.cli.commands.{name}").arguments(parser)
        assert not [action.dest for action in parser._actions if action.type is Path]


def test_the_home_folder_is_meant_in_variables_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert options.out(parsed([]), {"TRIPTYCH_OUT": "~/x"}) == Path("/home/me/x")
    assert options.config_path(parsed([]), {"TRIPTYCH_CONFIG": "~/x"}) == Path("/home/me/x")
    assert options.target(parsed(["--connect", "ipc://~/s"]), {}) == Remote("ipc:///home/me/s")
    assert options.target(parsed([]), {"TRIPTYCH_CONNECT": "ipc://~/s"}) == Remote("ipc:///home/me/s")
    assert options.address(parsed(["--connect", "ipc://~/s"]), {}) == "ipc:///home/me/s"
    assert options.address(parsed(["--connect", "tcp://~:1"]), {}) == "tcp://~:1"
    assert config.load(None, ["listen.socket=ipc://~/s"], environ={}).listen.socket == "ipc:///home/me/s"


def test_a_command_asks_the_default_address_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, args = program.parse(["status"])
    assert options.address(args, {}) == "tcp://127.0.0.1:7801"
    assert options.address(args, {"TRIPTYCH_CONNECT": "tcp://e:1"}) == "tcp://e:1"
    _, args = program.parse(["status", "--connect", "tcp://f:1"])
    assert options.address(args, {"TRIPTYCH_CONNECT": "tcp://e:1"}) == "tcp://f:1"
