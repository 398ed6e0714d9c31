from pathlib import Path

import msgspec
import pytest

from orchestrator.tuning import profile
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.profile import Facts, Profile, ProfileStore, StageSetting, missing, stage_settings
from orchestrator.tuning.simulate import Conditions
from stages.core import config
from stages.core.errors import ConfigError
from stages.core.figures import FigureStore
from stages.core.model import demo_folder, read_card
from tests.unit.cards import CARD, DISTILLED
from tests.unit.points import points

FACTS = Facts("cpu", "2026", "paper", (("/models/paper", 1, 2),), "auto", (64, 64), 3, 2)


def test_one_thread_and_all_threads_are_measured_and_streams_where_all_threads_are() -> None:
    wanted = stage_settings(Topology.what_if(8, 2), CARD)
    unets = {(setting.threads, setting.streams) for setting in wanted if setting.kind == "unet"}
    assert unets == {(8, 1), (8, 2), (8, 4), (8, 8), (4, 1), (2, 1), (1, 1)}
    assert {setting.threads for setting in wanted if setting.kind == "vae"} == {1, 2, 4, 8}


def test_a_model_of_one_row_an_image_is_measured_with_one_row() -> None:
    assert all(setting.rows[0] == 1 for setting in stage_settings(Topology.what_if(2, 1), DISTILLED))
    assert all(
        setting.rows[0] == 2 for setting in stage_settings(Topology.what_if(2, 1), CARD) if setting.kind == "unet"
    )


def test_what_was_measured_is_not_measured_again() -> None:
    wanted = stage_settings(Topology.what_if(2, 1), CARD)
    known = points()
    assert missing(wanted, known) == []
    without = [each for each in known if (each.kind, each.threads, each.rows) != ("unet", 1, 8)]
    assert missing(wanted, without) == [StageSetting("unet", 1, 1, (8,))]
    assert missing(wanted, ()) == wanted


def test_points_are_remembered_by_what_they_hold_for(tmp_path: Path) -> None:
    first, second, *_ = points()
    ProfileStore(FACTS, FigureStore("profile", tmp_path)).add(first)
    memory = ProfileStore(FACTS, FigureStore("profile", tmp_path))
    memory.add(second)
    memory.add(msgspec.structs.replace(first, seconds=9.0))
    assert memory.points() == (first, second)
    quicker = msgspec.structs.replace(second, seconds=second.seconds / 2)
    memory.add(quicker)
    assert memory.points() == (first, quicker)
    other = msgspec.structs.replace(FACTS, openvino="2027")
    assert ProfileStore(other, FigureStore("profile", tmp_path)).points() == ()


def test_the_facts_change_with_what_is_served() -> None:
    card = read_card(demo_folder())
    facts = profile.facts(config.load(None, environ={}), card)
    assert facts.size == card.native
    assert facts != profile.facts(config.load(None, ["model.precision=f32"], environ={}), card)
    assert profile.facts(config.load(None, ['model.sizes=["64x128"]'], environ={}), card).size == (64, 128)


def test_a_profile_is_a_file_and_back(tmp_path: Path) -> None:
    whole = Profile(FACTS, CARD, "0-1", points(), Conditions(0.1, 0.2, 0.3))
    path = tmp_path / "profile.json"
    path.write_bytes(whole.encode())
    assert Profile.read(path) == whole
    path.write_bytes(b"\xef\xbb\xbf" + whole.encode())
    assert Profile.read(path) == whole


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"facts": 3}'])
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no profile that `triptych tune` wrote"):
        Profile.read(path)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*`triptych tune` writes such a file"):
        Profile.read(tmp_path / "none.json")
