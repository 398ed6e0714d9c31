"""docs/http.md against the routes for clients of AUTOMATIC1111's web UI."""

import re
from typing import cast

from fastapi.routing import APIRoute

from orchestrator.gateway.routes import a1111, a1111_samplers
from orchestrator.gateway.server import Gateway
from tests.conftest import ROOT
from tests.unit.docs.markdown import sections

SECTION = sections(ROOT / "docs" / "http.md")["A1111 clients"]


def test_every_route_is_described_and_no_other() -> None:
    routes = [route for route in a1111.routes(cast("Gateway", None)).routes if isinstance(route, APIRoute)]
    names = {route.path.removeprefix("/sdapi/v1/").removeprefix("/controlnet/") for route in routes}
    table = SECTION.partition("| route | answer |")[2].partition("\n\n")[0]
    first = " ".join(line.split("|")[1] for line in table.splitlines()[2:])
    words = {word.removeprefix("/controlnet/") for word in re.findall(r"[\w/-]+", first)}
    assert words - {"GET", "POST"} == names


def test_every_sampler_and_scheduler_is_named() -> None:
    for name in [*(sampler.name for sampler in a1111_samplers.SAMPLERS), *a1111_samplers.SCHEDULERS]:
        assert f"`{name}`" in SECTION, name
