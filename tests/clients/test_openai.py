"""OpenAI's SDK, unmodified, against a server with stub stages."""

import base64
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http import serving_http
from tests.server import DEADLINE_S

openai = pytest.importorskip("openai", reason="the extra `clients` is not installed")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving_http("pipeline.queue_limit=0") as (_, found):
        yield found


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=DEADLINE_S, max_retries=0) as made:
        yield made


def png(text: str) -> bytes:
    found = base64.b64decode(text)
    assert found.startswith(b"\x89PNG")
    return found


@pytest.mark.parametrize("prefix", ["v1", "v3"])
def test_it_draws(prefix: str, url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/{prefix}", api_key="none", timeout=DEADLINE_S) as client:
        drawn = client.images.generate(prompt="a fox", n=2, size="1024x1024", model="gpt-image-1", quality="high")
    assert len({png(image.b64_json) for image in drawn.data}) == 2
    assert (drawn.size, drawn.output_format) == ("128x128", "png")
    assert drawn.usage.total_tokens == 0
    assert drawn.created > 1_700_000_000


def test_our_own_fields_go_in_its_extra_body(client: Any) -> None:
    extra = {"seed": 7, "num_inference_steps": 3, "guidance_scale": 2.0, "negative_prompt": "blurry"}
    one, other = (client.images.generate(prompt="a fox", extra_body=extra) for _ in range(2))
    assert png(one.data[0].b64_json) == png(other.data[0].b64_json)
    file = png(one.data[0].b64_json)
    assert b"Steps: 3" in file
    assert b"Seed: 7" in file
    assert b"Negative prompt: blurry" in file


def test_partial_images_come_before_the_picture(client: Any) -> None:
    stream = client.images.generate(
        prompt="[slow] a fox", stream=True, partial_images=2, extra_body={"steps": 12, "seed": 1}
    )
    events = list(stream)
    assert [event.type for event in events][-1] == "image_generation.completed"
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert len(partial) <= 2  # stub stages draw none; tests/proc/test_a1111.py has one that does
    png(events[-1].b64_json)
    assert (events[-1].size, events[-1].output_format) == ("128x128", "png")


def test_it_finds_the_model(client: Any) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("demo", "model", "triptych")
    assert client.models.retrieve("demo") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sdxl")


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        ({"prompt": ""}, "BadRequestError", "prompt"),
        ({"prompt": "a", "n": 11}, "BadRequestError", "n"),
        ({"prompt": "a", "size": "huge"}, "BadRequestError", "size"),
        ({"prompt": "a", "response_format": "url"}, "BadRequestError", "response_format"),
        ({"prompt": "a", "model": "sdxl"}, "NotFoundError", "model"),
        ({"prompt": "a", "extra_body": {"steps": 0}}, "BadRequestError", "steps"),
    ],
)
def test_refusals_are_its_errors(asked: dict[str, Any], error: str, param: str, client: Any) -> None:
    with pytest.raises(getattr(openai, error)) as refused:
        client.images.generate(**asked)
    assert refused.value.param == param
    assert refused.value.body["message"]


def test_what_is_not_there_yet_says_so(client: Any) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.images.edit(image=("a.png", b"x"), prompt="a fox")
    assert refused.value.status_code == 501


def test_a_full_queue_is_its_rate_limit_and_it_tries_again(url: str) -> None:
    """The queue has no room beyond the slots: what is refused is sent again by the SDK, and drawn in the end."""
    drawn: list[bytes] = []

    def draw(each: int) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=DEADLINE_S, max_retries=50) as client:
            found = client.images.generate(prompt=f"[slow] {each}", extra_body={"steps": 3})
            drawn.append(png(found.data[0].b64_json))

    threads = [threading.Thread(target=draw, args=(each,)) for each in range(24)]
    for thread in threads:
        thread.start()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=DEADLINE_S, max_retries=0) as client:
        refused: list[str] = []
        while not refused and any(thread.is_alive() for thread in threads):
            try:
                client.images.generate(prompt="[slow] one more", extra_body={"steps": 1})
            except openai.RateLimitError as error:
                refused.append(error.body["message"])
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(drawn) == 24
    assert "wait already" in refused[0]


def test_a_key_is_asked_for() -> None:
    with serving_http("listen.key=a-secret") as (_, url):
        wrong = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="a-secret", max_retries=0) as client:
            assert client.models.list().data[0].id == "demo"
