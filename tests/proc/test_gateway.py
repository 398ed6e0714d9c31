"""The gateway under load, and when it dies. Real processes, stub stages."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http import serving_http
from tests.server import DEADLINE_S, Server, eventually

GENERATIONS = "/v1/images/generations"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, str]]:
    with serving_http("listen.grace_s=0.3", "pipeline.queue_limit=64") as both:
        yield both


def gateway_pid(server: Server) -> int | None:
    """The gateway's process, if there is one now."""
    for pid in server.children():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"orchestrator.gateway" in command:
            return pid
    return None


def prompt(text: str, word: str = "", **more: object) -> dict[str, object]:
    return {"prompt": f"{word} {text}", "seed": 1, "steps": 12} | more


def free(server: Server) -> bool:
    with server.client() as client:
        status = client.status()
    return status.arena.free == status.arena.slots and status.queue.waiting == 0


def test_a_gateway_that_is_killed_loses_no_job_and_no_picture(served: tuple[Server, str]) -> None:
    server, url = served
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        whole = http.post("/v1/jobs", json=prompt("0", "[slow]")).json()["id"]
        eventually(lambda: http.get(f"/v1/jobs/{whole}").json()["state"] == "done", "it is drawn once undisturbed")
        expected = http.get(f"/v1/jobs/{whole}/image").content
        ids = [http.post("/v1/jobs", json=prompt("0", "[slow]")).json()["id"] for _ in range(8)]
        assert len(set(ids)) == 8
        streams = [http.stream("GET", f"/v1/jobs/{id}/events") for id in ids[:3]]
        for stream in streams:
            next(stream.__enter__().iter_lines())
        pid = gateway_pid(server)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for stream in streams:
            stream.__exit__(None, None, None)

    def back() -> bool:
        with httpx.Client(base_url=url, timeout=DEADLINE_S) as again:
            try:
                return again.get("/ready").status_code == 200
            except httpx.TransportError:
                return False

    eventually(back, "another gateway answers at the same port")
    assert gateway_pid(server) not in (None, pid)
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        for id in ids:
            eventually(lambda id=id: http.get(f"/v1/jobs/{id}").json()["state"] == "done", "jobs went on")  # type: ignore[misc]
            assert http.get(f"/v1/jobs/{id}/image").content == expected
    assert all(stage.restarts == 0 for stage in status(server).stages)


def status(server: Server):  # type: ignore[no-untyped-def]
    with server.client() as client:
        return client.status()


def test_an_id_that_a_client_chooses_stands_for_one_job(served: tuple[Server, str]) -> None:
    _, url = served
    body = prompt("chosen", id="mine")
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        assert http.post("/v1/jobs", json=body).status_code == 202
        assert http.post("/v1/jobs", json=body | {"prompt": "another"}).status_code == 422
        assert http.post("/v1/jobs", json=body | {"owner": "another"}).status_code == 422
        eventually(lambda: http.get("/v1/jobs/mine").json()["state"] == "done", "the first one is drawn")
        again = http.post("/v1/jobs", json=body)
        assert (again.status_code, again.json()["state"]) == (202, "done")
        assert http.get("/v1/jobs/mine/image").status_code == 200


def test_two_hundred_at_once_are_all_answered() -> None:
    async def storm(url: str) -> Counter[int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, limits=limits) as http:
            asked = [http.post(GENERATIONS, json={"prompt": f"{each}", "steps": 2}) for each in range(200)]
            answers = await asyncio.gather(*asked)
        for answer in answers:
            if answer.status_code == 429:
                assert "wait already" in answer.json()["error"]["message"]
                assert answer.json()["error"]["type"] == "rate_limit_error"
                assert int(answer.headers.get("Retry-After", "1")) >= 1
        return Counter(answer.status_code for answer in answers)

    with serving_http("pipeline.queue_limit=4") as (server, url):
        counts = asyncio.run(storm(url))
        assert set(counts) == {200, 429}
        assert counts[200] >= 4
        eventually(lambda: free(server), "nothing is left")


@pytest.mark.parametrize("lasting", [False, True])
def test_a_client_that_goes_takes_its_picture_with_it_unless_it_may_come_back(
    lasting: bool, served: tuple[Server, str]
) -> None:
    server, url = served
    headers = {"Idempotency-Key": "mine"} if lasting else {}
    body = prompt(f"gone {lasting}", "[slow]", steps=200)
    with (
        httpx.Client(base_url=url, timeout=httpx.Timeout(DEADLINE_S, read=1.0)) as http,
        pytest.raises(httpx.ReadTimeout),
    ):
        http.post(GENERATIONS, json=body, headers=headers)
    if not lasting:
        eventually(lambda: free(server), "it was given up", 15.0)
        return
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        running = http.get("/metrics").text
        assert "triptych_num_requests_running 1.0" in running, "it goes on"
        other = http.post(GENERATIONS, json=body | {"prompt": "another"}, headers=headers)
        assert other.status_code == 422
        again = http.post(GENERATIONS, json=body, headers=headers)
        assert again.status_code == 200
        assert http.post(GENERATIONS, json=body, headers=headers).json()["data"] == again.json()["data"]
    assert free(server)


def test_equal_requests_with_a_seed_share_a_picture_and_others_do_not(served: tuple[Server, str]) -> None:
    _, url = served

    async def twice(body: dict[str, object]) -> list[dict[str, object]]:
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
            answers = await asyncio.gather(*(http.post(GENERATIONS, json=body) for _ in range(2)))
        return [answer.json() for answer in answers]

    def drawn() -> float:
        lines = httpx.get(f"{url}/metrics", timeout=DEADLINE_S).text.splitlines()
        name = 'triptych_request_success_total{finished_reason="done"} '
        return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)

    before = drawn()
    one, other = asyncio.run(twice(prompt("shared", "[slow]", steps=6)))
    assert one["data"] == other["data"]
    assert drawn() == before + 1
    asyncio.run(twice({"prompt": "[slow] any", "steps": 6}))
    assert drawn() == before + 3


def test_neither_descriptors_nor_memory_grow_with_requests(served: tuple[Server, str]) -> None:
    server, url = served
    pid = gateway_pid(server)

    def taken() -> tuple[int, int]:
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        return len(os.listdir(f"/proc/{pid}/fd")), rss

    def some(count: int) -> None:
        for each in range(count):
            with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
                assert http.post(GENERATIONS, json={"prompt": f"{each}", "steps": 1}).status_code == 200
                assert http.post(GENERATIONS, json={"prompt": ""}).status_code == 400
                assert http.get("/nowhere").status_code == 404

    some(60)
    descriptors, rss = taken()
    some(200)
    after = taken()
    assert after[0] <= descriptors + 3
    assert after[1] <= rss + (16 << 20)


def test_a_server_that_is_told_to_stop_finishes_what_is_asked_for() -> None:
    with serving_http() as (server, url), httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        id = http.post("/v1/jobs", json=prompt("last", "[slow]", steps=20)).json()["id"]
        with http.stream("GET", f"/v1/jobs/{id}/events") as events:
            lines = events.iter_lines()
            while "unet" not in next(lines):
                pass
            server.process.send_signal(signal.SIGTERM)
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert server.end()[0] == 0
    assert [message["type"] for message in rest][-2:] == ["image", "done"]
