"""The page at `/`, without a browser: its files, its feed, and the switch that kills a stage."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, NamedTuple

import httpx
import pytest

from orchestrator.gateway.routes.page import FILES
from stages.core.model import demo_folder
from tests.http import gateway_of, serving_http
from tests.server import DEADLINE_S, Server, eventually

SLOW = "a castle, [slow]"
"""A prompt whose steps take a tenth of a second."""

Told = tuple[str, Any]


class Page(NamedTuple):
    """A server of stub stages, and a client of its gateway."""

    server: Server
    http: httpx.Client

    @property
    def origin(self) -> dict[str, str]:
        """Headers of a request that the page itself sends."""
        return {"Origin": str(self.http.base_url).rstrip("/")}

    def submit(self, prompt: str, owner: str | None, **fields: Any) -> str:
        answer = self.http.post("/v1/jobs", json={"prompt": prompt, "owner": owner} | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    @contextmanager
    def feed(self, owner: str | None = None) -> Iterator[Iterator[Told]]:
        """What a page of this owner is told."""
        with self.http.stream("GET", "/v1/feed", params={} if owner is None else {"owner": owner}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield events(answer)


def events(answer: httpx.Response) -> Iterator[Told]:
    kind = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def until(told: Iterator[Told], wanted: Callable[[str, Any], object]) -> list[Told]:
    """All that is told, up to and with what was wanted; the client's timeout is the deadline."""
    seen = []
    for kind, data in told:
        seen.append((kind, data))
        if wanted(kind, data):
            return seen
    raise AssertionError("the feed has ended")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with serving_http() as (server, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        yield Page(server, http)


@pytest.fixture(scope="module")
def other() -> Iterator[Page]:
    """One that serves a folder and has a key."""
    with (
        serving_http(f"model.path={demo_folder()}", "listen.key=hush") as (server, url),
        httpx.Client(base_url=url, auth=("anybody", "hush"), timeout=DEADLINE_S) as http,
    ):
        yield Page(server, http)


def test_every_file_is_served_strictly_and_fetched_once(page: Page) -> None:
    for path in ("/", *(f"/page/{name}" for name in FILES)):
        answer = page.http.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' data: blob:;")
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = page.http.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert page.http.get("/page/main.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path", ["/page/..%2fserver.py", "/page/%2fetc%2fpasswd", "/page/../app.py", "/page/other.js", "/page/"]
)
def test_no_other_file_is(page: Page, path: str) -> None:
    assert page.http.get(path).status_code == 404


def test_all_files_of_the_folder_are_listed_and_name_no_other_address() -> None:
    folder = resources.files("orchestrator.gateway") / "page"
    assert {file.name for file in folder.iterdir()} == set(FILES)
    for name in FILES:
        text = (folder / name).read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"""https?:|["'(=]\s*//""", text), name
    html = (folder / "index.html").read_text()
    assert not re.search(r"\bstyle=|\bon\w+=|<script(?! type=\"module\" src=)|<style", html), "the policy forbids it"
    for module in [name for name in FILES if name.endswith(".js")]:
        for imported in re.findall(r'from "\./([^"]+)"', (folder / module).read_text()):
            assert imported in FILES


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_all_text_can_be_read_on_all_grounds(scheme: int) -> None:
    style = (resources.files("orchestrator.gateway") / "page" / "style.css").read_text()
    named = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style.split(":root {")[1 + scheme]))
    pairs = [(text, ground) for text in ("text", "dim", "accent", "bad") for ground in ("ground", "panel", "raised")]
    contrast = {}
    for text, ground in pairs:
        dark, light = sorted((luminance(named[text]), luminance(named[ground])))
        contrast[text, ground] = (light + 0.05) / (dark + 0.05)
    contrast["white", "accent-fill"] = 1.05 / (luminance(named["accent-fill"]) + 0.05)
    assert {pair: ratio for pair, ratio in contrast.items() if ratio < 4.5} == {}, "WCAG AA"


def test_the_feed_begins_with_how_things_are(page: Page) -> None:
    with page.feed() as told:
        seen = dict(until(told, lambda kind, _: kind == "current"))
    assert list(seen) == ["hello", "pipeline", "cards", "current"]
    assert seen["hello"]["playground"] is True
    assert "astronaut" in seen["hello"]["world"]["riders"]
    assert "euler" in seen["hello"]["schedules"]
    assert [stage["kind"] for stage in seen["pipeline"]["stages"]] == ["text", "unet", "vae"]
    assert seen["pipeline"]["sizes"] == [[128, 128]]
    assert seen["pipeline"]["bottleneck"]["why"]


def test_an_owner_sees_a_job_in_full_and_others_see_a_card(page: Page) -> None:
    with page.feed("mine") as mine, page.feed("theirs") as theirs:
        for told in (mine, theirs):
            until(told, lambda kind, _: kind == "current")
        id = page.submit(SLOW, "mine", steps=12)
        own = until(mine, lambda kind, data: kind == "job" and data["state"] == "done")
        seen = until(theirs, lambda kind, data: kind == "cards" and any(card["lane"] == "unet" for card in data))
    [card] = seen[-1][1]
    described = [data for kind, data in own if kind == "job"]
    assert {data["id"] for data in described} == {id}
    assert described[0]["keys"] == [card["key"]]
    assert described[0]["request"]["prompt"] == SLOW
    assert {data["step"] for kind, data in own if kind == "progress" and data["stage"] == "unet"} >= {5, 6, 7}
    assert SLOW not in json.dumps(seen)
    assert id not in json.dumps(seen)
    assert page.http.get(described[-1]["images"][0]["url"]).content.startswith(b"\x89PNG")


def test_a_page_that_comes_later_is_told_what_there_is(page: Page) -> None:
    id = page.submit("a tree", "late", steps=2)
    eventually(lambda: page.http.get(f"/v1/jobs/{id}").json()["state"] == "done", "the picture is made")
    with page.feed("late") as told:
        [job] = [data for kind, data in until(told, lambda kind, _: kind == "current") if kind == "job"]
    assert (job["id"], job["state"], job["prompt"]) == (id, "done", "a tree")


def test_jobs_are_listed_to_their_owner_alone(page: Page) -> None:
    ids = [page.submit("a house", owner, steps=1) for owner in ("somebody", "somebody", "another", None)]
    listed = {
        owner: [job["id"] for job in page.http.get("/v1/jobs", params={"owner": owner}).json()["jobs"]]
        for owner in ("somebody", "another", "nobody")
    }
    assert listed == {"somebody": ids[:2], "another": [ids[2]], "nobody": []}
    assert page.http.get("/v1/jobs").json() == {"jobs": []}
    assert page.http.get(f"/v1/jobs/{ids[3]}").json()["prompt"] == "a house"


@pytest.mark.parametrize("owner", ["", "x" * 129, "a\nb", 7])
def test_owners_that_cannot_be_are_refused(page: Page, owner: object) -> None:
    assert page.http.post("/v1/jobs", json={"prompt": "a house", "owner": owner}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_no_other_page_kills_a_stage(page: Page, headers: dict[str, str]) -> None:
    before = page.server.pids()
    assert page.http.post("/v1/playground/kill/unet-0", headers=headers).status_code == 403
    assert page.server.pids() == before


def test_the_page_kills_a_stage_and_the_job_goes_on(page: Page) -> None:
    assert page.http.post("/v1/playground/kill/unet-9", headers=page.origin).status_code == 404
    before = page.server.pids()["unet-0"]
    with page.feed("witness") as told:
        page.submit(SLOW, "witness", steps=30)
        until(told, lambda kind, data: kind == "progress" and data["stage"] == "unet" and data["step"] >= 3)
        killed = page.http.post("/v1/playground/kill/unet-0", headers=page.origin)
        assert (killed.status_code, killed.json()) == (202, {"stage": "unet-0", "pid": before})
        seen = until(told, lambda kind, data: kind == "job" and data["state"] != "running")
        until(told, lambda kind, data: kind == "pipeline" and data["stages"][1]["restarts"] > 0)
    assert seen[-1][1]["state"] == "done"
    steps = [data["step"] for kind, data in seen if kind == "progress" and data["stage"] == "unet"]
    assert min(steps) >= 2, "it began anew"
    assert page.server.pids()["unet-0"] != before


def test_groups_outlive_the_gateway(page: Page) -> None:
    id = page.submit(SLOW, "patient", steps=20)
    os.kill(gateway_of(page.server), signal.SIGKILL)

    def listed() -> list[dict[str, Any]]:
        try:
            return list(page.http.get("/v1/jobs", params={"owner": "patient"}).json()["jobs"])
        except httpx.TransportError:
            return []

    eventually(lambda: [job["id"] for job in listed() if job["state"] == "done"] == [id], "it is done, and listed")


def test_with_another_model_stages_are_not_killed_and_nothing_is_suggested(other: Page) -> None:
    answer = other.http.post("/v1/playground/kill/unet-0", headers=other.origin)
    assert (answer.status_code, "listen.playground" in answer.text) == (403, True)
    with other.feed() as told:
        hello = until(told, lambda kind, _: kind == "hello")[0][1]
    assert (hello["playground"], hello["world"]) == (False, None)


def test_a_browser_is_asked_for_the_key(other: Page) -> None:
    asked = httpx.get(other.http.base_url)
    assert (asked.status_code, asked.headers["www-authenticate"]) == (401, 'Basic realm="Triptych"')
    assert httpx.get(other.http.base_url.join("/v1/feed")).headers["www-authenticate"] == "Bearer"
    assert other.http.get("/").status_code == 200


def test_feeds_end_in_order_when_the_server_stops(other: Page) -> None:
    with other.feed() as told:
        until(told, lambda kind, _: kind == "current")
        other.server.process.send_signal(signal.SIGTERM)
        assert all(kind in ("pipeline", "cards") for kind, _ in told), "cut off, it would raise"
    assert other.server.process.wait(DEADLINE_S) == 0
