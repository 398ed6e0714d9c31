from pathlib import Path

import msgspec
import pytest

from orchestrator.output import CannotWrite
from orchestrator.tuning import plot, report
from orchestrator.tuning.calibrate import calibrate
from orchestrator.tuning.predictor import Predictor
from orchestrator.tuning.score import steady
from orchestrator.tuning.simulate import UNMEASURED, Conditions, Simulated
from orchestrator.tuning.trial import Trial
from orchestrator.tuning.what_if import LargerMachine, compare
from stages.core.config import Config
from stages.core.errors import ConfigError
from tests.unit.cards import CARD
from tests.unit.outcomes import CONDITIONS, PREDICTOR, PROFILE, outcome


def test_the_report_names_what_was_chosen_what_limits_it_and_what_cores_would_buy() -> None:
    found = outcome()
    text = report.text(found, PROFILE)
    assert found.best is not None
    assert found.best.name in text.splitlines()[0]
    assert "What limits it: cores 0-1; 97% of cores 0-1 are in use" in text
    assert "3 cores +38%" in text
    assert all(len(line) <= 118 for line in text.splitlines())
    assert "* chosen, ! over the cap" in text


def test_every_configuration_that_was_run_stands_in_the_report_once() -> None:
    found = outcome()
    text = report.text(found, PROFILE)
    ran = {trial.candidate for trial in found.trials}
    assert sum(" GiB " in line for line in text.splitlines()) == len(ran)
    assert all(candidate.layout in text for candidate in ran)


def test_a_cap_that_nothing_keeps_is_said() -> None:
    found = outcome(cap_s=0.001)
    assert found.best is None
    assert report.headline(found).startswith("nothing that was run keeps p99 within 0.001 s; the lowest p99 was")
    assert "What limits it" not in report.text(found, PROFILE)


def test_a_search_that_its_budget_ended_says_so() -> None:
    assert "ended by its budget" in report.text(outcome(complete=False), PROFILE)


def predict(ran: Trial, conditions: Conditions) -> Simulated:
    simulated = Predictor(Config(), CARD, PREDICTOR.topology, PREDICTOR.curves, conditions, steps=10)
    return simulated.play(ran.candidate, ran.jobs, ran.in_flight)


def ran_under(hidden: Conditions, share: str) -> Trial:
    """A run that went exactly as the simulator says under some conditions."""
    some = next(ran for ran in outcome().trials if ran.candidate.share == share)
    simulated = predict(some, hidden)
    span_s, messages = simulated.played.span_s, 200
    return msgspec.structs.replace(
        some,
        score=steady(simulated.played.records, some.in_flight),
        seconds=span_s,
        messages=messages,
        cores_used=simulated.cores_used | {"hub": messages * hidden.message_s / span_s, "load": 0.0},
    )


def test_what_was_simulated_is_found_again_by_calibrating() -> None:
    hidden = Conditions(0.0008, 0.0001, 0.2)
    real = ran_under(hidden, "timeslice")
    found = calibrate([real], predict, UNMEASURED)
    assert found.message_s == pytest.approx(hidden.message_s)
    assert found.interference == pytest.approx(0.2, abs=0.05)
    again = steady(predict(real, found).played.records, real.in_flight)
    assert again.images_per_s == pytest.approx(real.score.images_per_s, rel=0.03)


def test_runs_in_turns_tell_what_handing_over_costs_and_nothing_about_competing() -> None:
    hidden = msgspec.structs.replace(UNMEASURED, handover_s=0.004)
    found = calibrate([ran_under(hidden, "turns")], predict, UNMEASURED)
    assert found.handover_s == pytest.approx(hidden.handover_s, rel=0.2)
    assert found.interference == UNMEASURED.interference


def test_without_runs_nothing_is_learned() -> None:
    assert calibrate([], predict, CONDITIONS) == CONDITIONS


def test_the_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw_tuning(tmp_path / "tuned.png", outcome(), PROFILE)
    rows = compare(LargerMachine(2, 1, 1.0), PROFILE, 3, 10.0)
    plot.draw_layouts(tmp_path / "paper.svg", "SIMULATED", rows)
    assert (tmp_path / "tuned.png").read_bytes().startswith(b"\x89PNG")
    assert b"SIMULATED" in (tmp_path / "paper.svg").read_bytes() or (tmp_path / "paper.svg").stat().st_size > 1000
    with pytest.raises(CannotWrite, match="cannot write the plot"):
        plot.draw_layouts(tmp_path / "none" / "paper.png", "SIMULATED", rows)


def test_layouts_on_paper_are_compared() -> None:
    rows = compare(LargerMachine(4, 2, 1.0), PROFILE, 2, 10.0)
    assert {row.layout for row in rows} == {
        "one wide pipeline, cores shared",
        "one pipeline, disjoint stages",
        "2 cells of 2 cores",
        "4 cells of 1 core",
    }
    assert [row.score.images_per_s for row in rows] == sorted((row.score.images_per_s for row in rows), reverse=True)
    cells = {row.layout: row for row in rows}
    assert cells["4 cells of 1 core"].cells == 4
    assert cells["4 cells of 1 core"].memory_bytes > cells["one wide pipeline, cores shared"].memory_bytes


def test_layouts_over_the_cap_come_last_and_are_marked() -> None:
    rows = compare(LargerMachine(2, 1, 1.0), PROFILE, 1, 0.0001)
    assert rows
    assert not any(row.keeps_cap for row in rows)


def test_nodes_must_be_equal() -> None:
    with pytest.raises(ConfigError, match="5 cores cannot be divided into 2 equal nodes"):
        compare(LargerMachine(5, 2, 1.0), PROFILE, 5, 1.0)


def test_the_bound_is_never_below_what_is_simulated() -> None:
    for ran in outcome().trials:
        # The bound is of mean times; those of a short simulated load scatter around them.
        assert PREDICTOR.score(ran.candidate).images_per_s <= PREDICTOR.bound(ran.candidate) * 1.05


def test_memory_counts_every_compilation_and_every_process() -> None:
    few, many = (
        next(ran.candidate for ran in outcome().trials if ran.candidate.unet.max_rows == rows) for rows in (2, 32)
    )
    assert PREDICTOR.memory_bytes(many) > PREDICTOR.memory_bytes(few)
