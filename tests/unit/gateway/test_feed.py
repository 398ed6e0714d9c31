"""What pages are sent: the newest only, and nothing where nothing has changed."""

import asyncio
import time
from typing import Any

import msgspec

from demo import world
from orchestrator.gateway.demo_world import WORLD
from orchestrator.gateway.feed import Feed, Page
from orchestrator.gateway.jobs import Job, group_of, new_id
from orchestrator.gateway.settings import GatewaySettings
from stages.core import wire
from tests.unit.statuses import status

SETTINGS = GatewaySettings(hub="", owner="0" * 32, socket_fd=-1, lifeline_fd=-1, hosts=())


class FakeGateway:
    """What the feed looks at."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.jobs: list[Job] = []
        self.status: wire.Status | None = status()


def feed_of(gateway: FakeGateway, *pages: Page) -> Feed:
    feed = Feed(gateway)  # type: ignore[arg-type]
    feed._pages.update(pages)
    return feed


def pending(page: Page) -> list[tuple[str, Any]]:
    events = b"".join(page._pending.values()).decode().split("\n\n")[:-1]
    page._pending.clear()
    return [(kind[7:], msgspec.json.decode(data[6:])) for kind, data in (event.split("\n") for event in events)]


def job(owner: str, prompt: str = "a cat", n: int = 1) -> Job:
    id = new_id(owner)
    return Job(id, wire.Submit(id=id, prompt=prompt, n=n), time.time(), group_of(owner))


def tell(feed: Feed, about: Job, message: wire.PromptAnswer, payload: bytes | None = None) -> None:
    about.take_in(message, payload)
    feed.told(about, message, payload)


def test_what_has_not_changed_is_not_sent() -> None:
    gateway, page = FakeGateway(), Page(None)
    feed = feed_of(gateway, page)
    feed._look()
    assert [kind for kind, _ in pending(page)] == ["pipeline", "cards"]
    feed._look()
    assert pending(page) == []
    gateway.jobs.append(job("me"))
    feed._look()
    assert [kind for kind, _ in pending(page)] == ["cards"]
    gateway.status = None
    feed._look()
    assert pending(page) == [("pipeline", {"state": "unreachable", "stages": []})]


def test_all_pages_are_sent_the_same_bytes() -> None:
    pages = [Page(None), Page(group_of("me"))]
    feed_of(FakeGateway(), *pages)._look()
    first, second = (list(page._pending.values()) for page in pages)
    assert all(one is other for one, other in zip(first, second, strict=True))


def test_of_news_a_slow_page_gets_the_newest_of_each_image() -> None:
    page, mine = Page(group_of("me")), job("me", n=2)
    feed = feed_of(FakeGateway(), page)
    for step in range(200):
        for index in range(2):
            tell(feed, mine, wire.Progress(id=mine.id, stage="unet", step=step, steps=200, index=index))
            tell(feed, mine, wire.Preview(id=mine.id, index=index, step=step), b"jpeg")
    told = pending(page)
    assert [(kind, data["index"], data["step"]) for kind, data in told] == [
        *(("progress", 0, 199), ("preview", 0, 199), ("progress", 1, 199), ("preview", 1, 199)),
    ]
    assert told[1][1]["src"] == "data:image/jpeg;base64,anBlZw=="


def test_jobs_are_told_to_pages_of_their_owner_alone() -> None:
    mine, theirs, nobodys = Page(group_of("me")), Page(group_of("them")), Page(None)
    feed, about = feed_of(FakeGateway(), mine, theirs, nobodys), job("me")
    tell(feed, about, wire.Accepted(id=about.id, position=3, eta_s=1.5))
    [(kind, data)] = pending(mine)
    assert (kind, data["state"], data["position"], data["request"]["prompt"]) == ("job", "queued", 3, "a cat")
    assert pending(theirs) == pending(nobodys) == []


def test_cards_tell_where_everybody_is_and_not_who() -> None:
    gateway, page = FakeGateway(), Page(None)
    waits, drawn = job("me", "a secret"), job("them", "another secret", n=2)
    drawn.take_in(wire.Progress(id=drawn.id, stage="unet", step=4, steps=9, index=1), None)
    gateway.jobs += [waits, drawn]
    feed_of(gateway, page)._look()
    cards = dict(pending(page))["cards"]
    assert [(card["lane"], card.get("step")) for card in cards if card["key"]][:3] == [
        *(("unet", 4), ("queue", None), ("queue", None)),
    ]
    assert len({card["key"] for card in cards}) == len(cards)
    assert not any(word in str(cards) for word in ("secret", waits.id, drawn.id))


def test_idle_pages_are_worth_fewer_questions_to_the_hub() -> None:
    gateway, page, about = FakeGateway(), Page(group_of("me")), job("me")
    feed = feed_of(gateway, page, Page(None))
    gateway.jobs += [job("them"), Job(new_id(), None, time.time())]
    assert not feed._lively()
    gateway.jobs.append(about)
    assert feed._lively()
    about.take_in(wire.Done(id=about.id), None)
    assert not feed._lively()
    feed.watch_closely()
    assert feed._lively()


def test_a_closed_page_ends() -> None:
    page = Page(None)

    async def ended() -> bytes:
        waiting = asyncio.create_task(page.take())
        page.close()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(ended()) == b""


def test_the_suggestions_are_what_the_model_was_trained_with() -> None:
    assert WORLD["styles"] == world.STYLES
    assert (WORLD["riders"], WORLD["mounts"], WORLD["things"]) == (world.RIDERS, world.MOUNTS, world.THINGS)
    assert (WORLD["places"], WORLD["negative"]) == (world.PLACES, (world.NEGATIVE_PROMPT,))
