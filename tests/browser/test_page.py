"""The page as people use it: a real browser, the embedded model, and no request to anywhere else.

Needs the extra `browser` and a Chromium of the machine; not among the default tests.
"""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.http import gateway_of, serving_http
from tests.server import Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install 'triptych[browser]'")
expect = sync_api.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")

FLAGS = [
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
EMBEDDED = tuple(f"stage.{kind}.implementation=" for kind in ("text", "unet", "vae"))
PHONE = {"width": 360, "height": 740}
MOST_STEPS = "200"
DEADLINE_MS = 60_000

PROMPTS = (
    "a photo of an astronaut riding a horse on mars",
    "a watercolor of a cat in the snow",
    "pixel art of a castle at sunset",
)


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Server, str]]:
    with serving_http(*EMBEDDED) as site:
        yield site


@pytest.fixture
def url(site: tuple[Server, str]) -> str:
    return site[1]


@pytest.fixture
def complaints() -> list[str]:
    """Errors and warnings of the console, and exceptions of the page."""
    return []


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "sync_api.Browser", url: str, complaints: list[str]) -> Iterator["sync_api.Page"]:
    """The page, opened by somebody new; whatever it complains of, and whatever it asks of others, is a failure."""
    asked: set[str] = set()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(DEADLINE_MS)
    expect.set_options(timeout=DEADLINE_MS)
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    page.goto(url)
    expect(page.locator("#health")).to_have_attribute("data-state", "serving")
    yield page
    heard = list(complaints)  # what is given up below may be done by then, which is refused
    page.evaluate("document.querySelectorAll('[data-act=cancel]').forEach((button) => button.click())")
    expect(page.locator("[data-act=cancel]")).to_have_count(0)
    context.close()
    assert heard == []
    assert {urlsplit(each).netloc for each in asked if not each.startswith(("data:", "blob:"))} == {
        urlsplit(url).netloc
    }


def draw(page: "sync_api.Page", prompt: str, steps: str = MOST_STEPS) -> None:
    """Ask for a picture, by keyboard."""
    page.locator("[name=steps]").fill(steps)
    page.locator("#prompt").fill(prompt)
    page.locator("#prompt").press("Control+Enter")


def cards(page: "sync_api.Page", state: str) -> "sync_api.Locator":
    return page.locator(f".card[data-state={state}]")


def test_three_prompts_pass_through_the_lanes_side_by_side(page: "sync_api.Page") -> None:
    for number, prompt in enumerate(PROMPTS, 1):
        draw(page, prompt)
        expect(page.locator(".card")).to_have_count(number)
    expect(page).to_have_title(re.compile(r"^\d+ % · [1-3] in work · Triptych$"))
    page.locator(
        ".lanes:has([data-lane=unet] .lane-card.own):has(:is([data-lane=text], [data-lane=vae]) .lane-card.own)"
    ).wait_for()
    preview = page.locator(".card", has_text=PROMPTS[0]).locator("img[src^='data:image/jpeg']")
    early = preview.get_attribute("src")
    assert early
    expect(preview).not_to_have_attribute("src", early)
    expect(cards(page, "done")).to_have_count(3)
    assert page.locator(".card .caption").all_text_contents() == list(reversed(PROMPTS))
    drawn = page.locator(".card img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert drawn == [128, 128, 128]
    expect(page).to_have_title("Triptych")
    expect(page.locator(".lane-card")).to_have_count(0)


def test_a_picture_is_given_up_and_asked_for_again(page: "sync_api.Page") -> None:
    draw(page, PROMPTS[0])
    draw(page, PROMPTS[1])
    second = page.locator(".card", has_text=PROMPTS[1])
    second.locator("[data-act=cancel]").click()
    expect(second).to_have_attribute("data-state", "cancelled")
    second.locator("[data-act=retry]").click()
    expect(page.locator(".card")).to_have_count(3)
    expect(page.locator(".card", has_text=PROMPTS[1]).first).to_have_attribute(
        "data-state", re.compile("queued|running")
    )
    expect(page.locator(".card", has_text=PROMPTS[0])).to_have_attribute("data-state", re.compile("running|done"))


def test_a_stage_is_killed_and_the_same_card_is_finished(page: "sync_api.Page") -> None:
    draw(page, PROMPTS[0])
    card = page.locator(".card")
    card.locator("img[src^='data:image/jpeg']").wait_for()
    page.get_by_role("button", name="Kill unet-0").click()
    expect(page.locator("#live")).to_have_text(re.compile("unet-0 was killed"))
    expect(card.locator(".note")).to_have_text(re.compile(r"unet-0 died at step \d+"))
    expect(card).to_have_attribute("data-state", "done")
    expect(card).to_have_count(1)
    expect(page.locator("#health")).to_have_text("serving")


def test_a_gateway_is_killed_and_the_page_goes_on(
    page: "sync_api.Page", site: tuple[Server, str], complaints: list[str]
) -> None:
    draw(page, PROMPTS[0])
    card = page.locator(".card")
    card.locator("img[src^='data:image/jpeg']").wait_for()
    os.kill(gateway_of(site[0]), signal.SIGKILL)
    expect(page.locator("#health")).to_have_attribute("data-state", "unreachable")
    expect(card).to_have_attribute("data-state", "done")
    expect(page.locator("#health")).to_have_attribute("data-state", "serving")
    page.reload()
    expect(page.locator(".card .caption")).to_have_text(PROMPTS[0])
    complaints.clear()  # of the connection that was lost


def test_a_reload_loses_nothing(page: "sync_api.Page") -> None:
    draw(page, PROMPTS[2], steps="2")
    expect(cards(page, "done")).to_have_count(1)
    draw(page, PROMPTS[0])
    cards(page, "running").wait_for()
    address = page.url
    assert "#owner=" in address
    page.reload()
    assert page.url == address
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator(".card .caption").first).to_have_text(PROMPTS[0])
    expect(cards(page, "done").locator("img")).to_have_js_property("naturalWidth", 128)
    expect(page.locator(".card").first).to_have_attribute("data-state", re.compile("running|done"))


def test_parameters_are_used_again(page: "sync_api.Page", url: str) -> None:
    page.locator("[name=seed]").fill("7")
    page.locator("[name=negative_prompt]").fill("blurry")
    draw(page, PROMPTS[2], steps="3")
    expect(cards(page, "done")).to_have_count(1)
    for name in ("seed", "steps", "negative_prompt"):
        page.locator(f"[name={name}]").fill("")
    page.locator("#prompt").fill("")
    page.locator("[data-act=use]").click()
    filled = {name: page.locator(f"[name={name}]").input_value() for name in ("prompt", "seed", "steps")}
    assert filled == {"prompt": PROMPTS[2], "seed": "7", "steps": "3"}
    page.locator("#prompt").press("Control+Enter")
    expect(cards(page, "done")).to_have_count(2)
    owner = page.url.partition("#owner=")[2]
    jobs = httpx.get(f"{url}/v1/jobs", params={"owner": owner}).json()["jobs"]
    pictures = {httpx.get(url + job["images"][0]["url"]).content for job in jobs}
    assert (len(jobs), len(pictures)) == (2, 1), "the same request makes the same file"


def test_a_dropped_picture_fills_in_its_parameters(page: "sync_api.Page", url: str) -> None:
    page.locator("[name=seed]").fill("11")
    draw(page, PROMPTS[1], steps="2")
    expect(cards(page, "done")).to_have_count(1)
    page.locator("#prompt").fill("")
    page.locator("[name=seed]").fill("")
    owner = page.url.partition("#owner=")[2]
    [job] = httpx.get(f"{url}/v1/jobs", params={"owner": owner}).json()["jobs"]
    dropped = page.evaluate_handle(
        """async (address) => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([await (await fetch(address)).blob()], "picture.png"));
            return dropped;
        }""",
        job["images"][0]["url"],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    expect(page.locator("#prompt")).to_have_value(PROMPTS[1])
    expect(page.locator("[name=seed]")).to_have_value("11")


def test_chips_write_captions_and_an_empty_press_draws_the_suggestion(page: "sync_api.Page") -> None:
    for word in ("a sketch of", "astronaut", "unicorn", "on mars"):
        page.get_by_role("button", name=word, exact=True).click()
    expect(page.locator("#prompt")).to_have_value("a sketch of an astronaut riding a unicorn on mars")
    page.locator("#prompt").fill("")
    suggested = page.locator("#prompt").get_attribute("placeholder")
    page.locator("[name=steps]").fill("1")
    page.get_by_role("button", name="Draw").click()
    expect(page.locator(".card .caption")).to_have_text(str(suggested))


def test_what_cannot_be_is_said_beside_the_form(page: "sync_api.Page") -> None:
    draw(page, PROMPTS[0], steps="500")
    expect(page.get_by_role("alert")).to_have_text("Steps: from 1 to 200.")
    expect(page.locator("[name=steps]")).to_be_focused()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()


def test_a_phone_shows_all_without_scrolling_sideways(page: "sync_api.Page") -> None:
    page.set_viewport_size(PHONE)
    page.reload()
    draw_button = page.get_by_role("button", name="Draw")
    expect(draw_button).to_be_in_viewport()
    page.locator("#prompt").fill(PROMPTS[0])
    draw_button.click()
    draw_button.click()
    expect(cards(page, "done")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    cards(page, "done").first.locator(".frame").click()
    expect(page.locator("#viewer img")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_keyboard_is_enough(page: "sync_api.Page") -> None:
    expect(page.locator("#prompt")).to_be_focused()
    keyboard = page.keyboard
    for prompt in PROMPTS[:2]:
        keyboard.press("Control+a")
        keyboard.type(prompt)
        keyboard.press("Control+Enter")
    expect(cards(page, "done")).to_have_count(2)
    for _ in range(120):  # past the form and the lanes
        keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.card .frame')"):
            break
    keyboard.press("Enter")
    viewer = page.locator("#viewer")
    expect(viewer.locator(".caption")).to_have_text(PROMPTS[1])
    keyboard.press("ArrowRight")
    expect(viewer.locator(".caption")).to_have_text(PROMPTS[0])
    keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator(".card .frame").first).to_be_focused()
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
