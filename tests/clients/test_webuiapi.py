"""The client library webuiapi, as it is on PyPI, against a real server of stub stages."""

import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.http import SIZES, serving_http
from tests.server import DEADLINE_S, eventually

webuiapi = pytest.importorskip("webuiapi", reason="webuiapi is not installed: pip install -e '.[clients]'")

KEY = "a key of this test"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving_http(*SIZES, f"listen.key={KEY}") as (_, url):
        yield url


@pytest.fixture
def api(url: str) -> Iterator[Any]:
    address = urlsplit(url)
    made = webuiapi.WebUIApi(host=address.hostname, port=address.port, username="anybody", password=KEY)
    yield made
    made.session.close()


def test_it_is_constructed_and_finds_no_extensions(api: Any) -> None:
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert not any((api.has_controlnet, api.has_adetailer, api.has_animatediff))
    assert api.controlnet_model_list() == []
    assert api.controlnet_module_list() == []


def test_it_makes_pictures(api: Any) -> None:
    made = api.txt2img(prompt="a fox", negative_prompt="blurry", seed=5, steps=2, cfg_scale=3, batch_size=2, n_iter=2)
    assert [image.format for image in made.images] == ["PNG"] * 4
    assert made.info["all_seeds"] == [5, 6, 7, 8]
    assert made.info["sampler_name"] == "Euler a"
    assert (made.info["steps"], made.info["cfg_scale"]) == (2, 3)
    assert made.image.info["parameters"] == made.info["infotexts"][0]
    assert made.parameters["prompt"] == "a fox"


def test_it_chooses_samplers_and_schedulers_from_the_lists(api: Any) -> None:
    assert "DPM++ 2M" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    for name in api.util_get_sampler_names():
        assert api.txt2img(prompt="a fox", steps=1, sampler_name=name).info["sampler_name"] == name
    made = api.txt2img(prompt="a fox", steps=1, sampler_name="DPM++ 2M", scheduler="karras")
    assert made.info["sampler_name"] == "DPM++ 2M Karras"


def test_an_unknown_sampler_raises(api: Any) -> None:
    with pytest.raises(RuntimeError, match="Sampler not found"):
        api.txt2img(prompt="a fox", sampler_name="DPM fast")


def test_options_are_read_and_set(api: Any) -> None:
    model = api.util_get_current_model()
    assert api.util_get_model_names() == [model]
    api.util_set_model("something else")  # it takes the nearest of the list
    api.set_options({"sd_model_checkpoint": model})
    assert api.set_options({"sd_model_checkpoint": "other"})["detail"].startswith("model 'other' is not served")
    assert api.util_get_current_model() == model


def test_the_other_lists_are_read(api: Any) -> None:
    assert api.get_upscalers()[0]["name"] == "None"
    assert api.get_latent_upscale_modes() == api.get_sd_vae() == api.get_loras() == []


def test_progress_is_told_and_an_interruption_ends_the_work(api: Any) -> None:
    api.util_wait_for_ready(check_interval=DEADLINE_S)
    raised: list[RuntimeError] = []

    def work() -> None:
        try:
            api.txt2img(prompt="[slow] a fox", steps=200)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    eventually(lambda: api.get_progress()["state"]["sampling_step"], "progress")
    assert 0 < api.get_progress()["progress"] < 1
    assert api.interrupt() == {}
    thread.join(DEADLINE_S)
    [error] = raised
    assert error.args[0] == 409
    assert api.get_progress()["progress"] == 0
    assert api.skip() == {}


def test_without_the_key_nothing_is_done(url: str) -> None:
    address = urlsplit(url)
    api = webuiapi.WebUIApi(host=address.hostname, port=address.port, username="anybody", password="wrong")
    with api.session, pytest.raises(RuntimeError, match="401"):
        api.txt2img(prompt="a fox")


def test_png_info_reads_what_was_made(api: Any) -> None:
    made = api.txt2img(prompt="a fox", steps=2)
    assert api.png_info(made.image).info == made.info["infotexts"][0]


def test_pictures_are_not_taken_in_yet(api: Any) -> None:
    made = api.txt2img(prompt="a fox", steps=1)
    with pytest.raises(RuntimeError, match="takes no pictures in yet"):
        api.img2img(images=[made.image], prompt="a fox")
    with pytest.raises(RuntimeError, match="takes no pictures in yet"):
        api.extra_single_image(image=made.image)
