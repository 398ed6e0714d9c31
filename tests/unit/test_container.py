"""What the container and the systemd unit start is what there is to start."""

import json
import re
import shlex

import pytest

from orchestrator.__main__ import COMMANDS
from stages.core import config
from stages.core.errors import ConfigError
from tests.conftest import ROOT

TEXT = (ROOT / "Containerfile").read_text()


def test_the_container_serves_with_a_key_and_not_without() -> None:
    [line] = re.findall(r"^CMD (\[.*\])$", TEXT, re.MULTILINE)
    command, *options = json.loads(line)
    assert command in COMMANDS
    overrides = [option for option in options if option != "--set"]
    loaded = config.load(None, overrides, environ={"TRIPTYCH_LISTEN_KEY": "a-secret"})
    assert (loaded.listen.http, loaded.listen.key) == ("0.0.0.0:7800", "a-secret")
    with pytest.raises(ConfigError, match=r"off loopback.*listen\.key"):
        config.load(None, overrides, environ={})


def test_the_health_check_asks_the_port_that_is_listened_at() -> None:
    assert "http://127.0.0.1:7800/health" in TEXT
    assert re.search(r"^USER triptych$", TEXT, re.MULTILINE), "it runs as nobody in particular"


def test_the_unit_starts_a_command() -> None:
    unit = (ROOT / "configs" / "triptych.service").read_text()
    [line] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, command, path = shlex.split(line)
    assert program.endswith("/bin/triptych")
    assert command in COMMANDS
    assert path.endswith(".toml")
    [watchdog] = re.findall(r"^WatchdogSec=(\d+)$", unit, re.MULTILINE)
    assert int(watchdog) >= 10, "a look at a large machine's processes may take a while"
