"""Metrics as Prometheus reads them, and the dashboard that draws them."""

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT
from tests.server import STUBS, eventually, serving


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serving(*STUBS, http=None) as server:
        yield server.http


def samples(base: str) -> dict[str, float]:
    """The sum of each metric's samples, by the sample's name."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def draw(base: str, steps: int = 3) -> None:
    body = json.dumps({"prompt": "a fox", "steps": steps}).encode()
    request = urllib.request.Request(f"{base}/v1/images/generations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_what_has_been_drawn_is_counted(base: str) -> None:
    before = samples(base).get("triptych_request_success_total", 0.0)
    for _ in range(3):
        draw(base)
    after = samples(base)
    assert after["triptych_request_success_total"] == before + 3
    assert after["triptych_e2e_request_latency_seconds_count"] == before + 3
    assert after["triptych_num_requests_running"] == after["triptych_num_requests_waiting"] == 0
    eventually(lambda: samples(base)["triptych_stage_up"] == 3, "all stages serve")


def test_the_dashboard_asks_for_what_there_is(base: str) -> None:
    draw(base)
    dashboard = json.loads((ROOT / "configs" / "grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"triptych_\w+", target["expr"])
    }
    assert len(asked) > 10
    eventually(lambda: asked <= samples(base).keys(), f"{asked - samples(base).keys()} is exported")
