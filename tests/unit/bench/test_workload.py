"""Loads: what a mix file says, and what arrives when."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.bench.workload import DEFAULT, ArrivalProcess, Closed, Poisson, arrivals, parse, read_mix
from stages.core.errors import ConfigError

TWO = """
[[prompt]]
kind = "short"
weight = 4
prompt = "a fox"
steps = 4
[[prompt]]
prompt = "a castle"
steps = 50
seed = 7
guidance_scale = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mix.toml"


def test_a_mix_has_kinds_weights_and_what_is_submitted(file: Path) -> None:
    file.write_text(TWO)
    short, other = read_mix(file)
    assert (short.kind, short.weight, short.submit.prompt, short.submit.steps) == ("short", 4.0, "a fox", 4)
    assert (other.kind, other.weight, other.submit.guidance_scale) == ("prompt 1", 1.0, 3.0)


def test_json_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text('{"prompt": [{"kind": "short", "weight": 4, "prompt": "a fox", "steps": 4}]}')
    (tmp_path / "mix.toml").write_text(TWO)
    assert read_mix(tmp_path / "mix.json") == read_mix(tmp_path / "mix.toml")[:1]


@pytest.mark.parametrize("name", ["mix.toml", "mix.json"])
def test_a_byte_order_mark_is_no_part_of_a_mix(name: str, tmp_path: Path) -> None:
    content = TWO if name.endswith("toml") else '{"prompt": [{"prompt": "a fox"}, {"prompt": "a castle"}]}'
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert [entry.submit.prompt for entry in read_mix(tmp_path / name)] == ["a fox", "a castle"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "there is no prompt in it"),
        ("prompt = 3", "there is no prompt in it"),
        ("prompt = [3]", r"prompt\[0\]: write a table"),
        ("[[prompt]]\nsteps = 4", r"prompt\[0\]: Object missing required field `prompt`"),
        ('[[prompt]]\nprompt = "a"\nstepz = 4', r"prompt\[0\]: Object contains unknown field `stepz`"),
        ('[[prompt]]\nprompt = "a"\nsteps = "4"', r"prompt\[0\].steps: Expected `int \| null`"),
        ('[[prompt]]\nprompt = "a"\nweight = 0', r"prompt\[0\].weight: Expected `float` > 0"),
        ('[[prompt]]\nprompt = "a"\nid = "x"', r"prompt\[0\].id: filled in"),
        ('[[prompt]]\nprompt = "a"\n[other]', "`other` is no key"),
        ("[[prompt]", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(file: Path, content: str, line: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError, match=line):
        read_mix(file)


def test_a_mix_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_mix(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("closed", (Closed(),)),
        ("closed:4", (Closed(4),)),
        ("closed:1,2,8", (Closed(1), Closed(2), Closed(8))),
        ("poisson:0.5", (Poisson(0.5),)),
        ("poisson:0.5,2", (Poisson(0.5), Poisson(2.0))),
    ],
)
def test_arrivals_are_read_as_they_are_written(text: str, how: tuple[ArrivalProcess, ...]) -> None:
    assert parse(text) == how
    assert tuple(parse(str(one))[0] for one in how) == how


@pytest.mark.parametrize("text", ["", "open", "closed:", "closed:0", "closed:1.5", "closed:1,", "poisson", "poisson:"])
@pytest.mark.parametrize("more", ["", "0", "-1", "nan", "inf", "x"])
def test_what_is_no_arrival_is_refused_with_what_would_be(text: str, more: str) -> None:
    if (text, more) != ("closed", ""):
        with pytest.raises(ConfigError, match="arrivals"):
            parse(text + more)


@given(st.integers(0, 200), st.integers(0, 1 << 40), st.one_of(st.just(Closed(3)), st.just(Poisson(2.0))))
def test_the_same_seed_is_the_same_load(jobs: int, seed: int, how: ArrivalProcess) -> None:
    load = arrivals(DEFAULT, how, jobs, seed)
    assert load == arrivals(DEFAULT, how, jobs, seed)
    assert [arrival.submit.id for arrival in load] == [str(number) for number in range(jobs)]
    times = [arrival.at_s for arrival in load]
    if isinstance(how, Closed):
        assert times == [None] * jobs
    else:
        assert times == sorted(time for time in times if time is not None)


def test_weights_and_rates_come_out_on_average(file: Path) -> None:
    file.write_text(TWO)
    load = arrivals(read_mix(file), Poisson(5.0), 4000, seed=1)
    short = sum(arrival.kind == "short" for arrival in load)
    assert 0.77 < short / len(load) < 0.83
    assert load[-1].at_s == pytest.approx(4000 / 5.0, rel=0.1)


def test_a_seed_of_its_own_is_kept(file: Path) -> None:
    file.write_text(TWO)
    load = arrivals(read_mix(file), Closed(), 50, seed=1)
    assert {arrival.submit.seed for arrival in load if arrival.kind == "prompt 1"} == {7}
    assert all(arrival.submit.seed == int(arrival.submit.id) for arrival in load if arrival.kind == "short")
