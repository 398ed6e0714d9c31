"""AUTOMATIC1111's routes, against a real server of stub stages."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.http import SIZES, serving_http
from tests.proc.stubs import DrawsPreviews
from tests.server import DEADLINE_S, eventually

SLOW = "[slow] a fox"
"""A prompt whose steps take a tenth of a second each."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    previews = "stage.vae.implementation=tests.proc.stubs:DrawsPreviews"
    with serving_http(*SIZES, previews, "listen.grace_s=0.1") as (_, url):
        yield url


@pytest.fixture
def web(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{url}/sdapi/v1", timeout=DEADLINE_S) as client:
        yield client


def _txt2img(web: httpx.Client, **fields: Any) -> httpx.Response:
    return web.post("/txt2img", json={"prompt": "a fox", "steps": 2} | fields)


def _info(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    text = answer.json()["info"]
    assert isinstance(text, str), "clients parse it once more"
    info: dict[str, Any] = json.loads(text)
    return info


def _idle(web: httpx.Client) -> bool:
    told = web.get("/progress").json()
    return bool(told["progress"] == 0 and told["state"]["job_count"] == 0)


class _Asking(threading.Thread):
    """A `txt2img` in a thread of its own."""

    def __init__(self, url: str, **fields: Any) -> None:
        super().__init__(daemon=True)
        self._url, self._fields = url, fields
        self.answer: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        with httpx.Client(base_url=f"{self._url}/sdapi/v1", timeout=DEADLINE_S) as web:
            self.answer = _txt2img(web, **self._fields)

    def ended(self) -> httpx.Response:
        self.join(DEADLINE_S)
        assert self.answer is not None, "no answer in time"
        return self.answer


def _begun(web: httpx.Client) -> dict[str, Any]:
    """What progress tells once the U-Net has made a step."""

    def told() -> dict[str, Any] | None:
        progress: dict[str, Any] = web.get("/progress").json()
        return progress if progress["state"]["sampling_step"] else None

    found = eventually(told, "a step of the U-Net")
    assert found is not None
    return found


def test_info_says_in_json_text_what_was_made(web: httpx.Client) -> None:
    answer = _txt2img(web, seed=7, negative_prompt="blurry", cfg_scale=4.5, sampler_name="Euler a")
    info = _info(answer)
    assert (
        info
        | {
            "seed": 7,
            "all_seeds": [7],
            "prompt": "a fox",
            "negative_prompt": "blurry",
            "sampler_name": "Euler a",
            "cfg_scale": 4.5,
            "steps": 2,
            "width": 128,
            "height": 128,
        }
        == info
    )
    [infotext] = info["infotexts"]
    assert infotext.startswith("a fox\nNegative prompt: blurry\nSteps: 2, ")
    [image] = answer.json()["images"]
    file = Image.open(io.BytesIO(base64.b64decode(image, validate=True)))
    assert file.format == "PNG"
    assert file.info["parameters"] == infotext
    assert answer.json()["parameters"]["prompt"] == "a fox"


def test_what_the_request_leaves_out_info_tells_as_it_was_made(web: httpx.Client) -> None:
    info = _info(web.post("/txt2img", json={"prompt": "a fox"}))
    assert info["steps"] > 0
    assert info["cfg_scale"] > 0
    assert info["sampler_name"]
    assert (info["width"], info["height"]) == (128, 128)


def test_batches_are_multiplied_and_seeds_count_up(web: httpx.Client) -> None:
    answer = _txt2img(web, batch_size=2, n_iter=3, seed=41)
    info = _info(answer)
    assert len(answer.json()["images"]) == len(info["infotexts"]) == 6
    assert info["all_seeds"] == [41, 42, 43, 44, 45, 46]
    assert info["seed"] == 41
    assert all(f"Seed: {seed}," in text for seed, text in zip(info["all_seeds"], info["infotexts"], strict=True))


def test_a_seed_of_minus_one_is_a_random_one(web: httpx.Client) -> None:
    seeds = {_info(_txt2img(web, **fields))["seed"] for fields in ({"seed": -1}, {}, {"seed": None})}
    assert len(seeds) == 3
    assert all(seed >= 0 for seed in seeds)


def test_sizes_are_fitted_and_told(web: httpx.Client) -> None:
    answer = _txt2img(web, width=1216, height=832)
    info = _info(answer)
    assert (info["width"], info["height"]) == (192, 128)
    assert answer.headers["x-triptych-size"] == "192x128"
    served = _txt2img(web, width=128, height=192)
    assert "x-triptych-size" not in served.headers
    assert "Size: 128x192" in _info(served)["infotexts"][0]


@pytest.mark.parametrize(
    ("fields", "clip_skip"),
    [
        ({}, 1),
        ({"clip_skip": 1}, 1),
        ({"clip_skip": 2}, 2),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, 2),
        ({"clip_skip": 1, "override_settings": {"CLIP_stop_at_last_layers": 12}}, 12),
    ],
)
def test_clip_skip_counts_from_one(web: httpx.Client, fields: dict[str, Any], clip_skip: int) -> None:
    info = _info(_txt2img(web, **fields))
    assert info["clip_skip"] == clip_skip
    assert (f"Clip skip: {clip_skip}" in info["infotexts"][0]) == (clip_skip > 1)


@pytest.mark.parametrize(
    ("fields", "schedule"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, "dpmpp_2m_karras"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "karras"}, "dpmpp_2m_karras"),
        ({"sampler_index": "Euler"}, "euler"),
        ({"sampler_name": "LMS", "sampler_index": "Euler", "scheduler": "automatic"}, "lms"),
    ],
)
def test_samplers_are_those_asked_for(web: httpx.Client, fields: dict[str, Any], schedule: str) -> None:
    assert f"Sampler: {schedule}," in _info(_txt2img(web, **fields))["infotexts"][0]


def test_an_unknown_sampler_is_told_as_clients_look_for_it(web: httpx.Client) -> None:
    answer = _txt2img(web, sampler_name="DPM2 a")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Sampler not found")


def test_prompts_have_the_syntax_of_the_web_ui(web: httpx.Client, url: str) -> None:
    answer = _txt2img(web, prompt="a (red:1.3) fox", seed=1)
    chunk = Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))).info["triptych"]
    assert json.loads(chunk)["syntax"] == "a1111"


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"batch_size": 4, "n_iter": 3}, 400, "from 1 to 10 pictures, not 4 x 3"),
        ({"batch_size": 0}, 400, "from 1 to 10 pictures"),
        ({"n_iter": -1, "batch_size": -1}, 400, "from 1 to 10 pictures"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": 7}, 400, "prompt"),
        ({"prompt": "\ud800"}, 400, "Unicode"),
        ({"scheduler": "\ud800"}, 400, "Unicode"),
        ({"seed": -2}, 400, "seed"),
        ({"seed": 1.5}, 400, "seed"),
        ({"seed": 1 << 64}, 400, "seed"),
        ({"steps": 201}, 400, "steps"),
        ({"steps": -1000}, 400, "steps"),
        ({"cfg_scale": float("nan")}, 400, "no JSON"),
        ({"cfg_scale": 1e308}, 400, "guidance_scale"),
        ({"width": 0}, 400, "size"),
        ({"width": 100_000}, 400, "size"),
        ({"clip_skip": 13}, 400, "clip_skip"),
        ({"override_settings": {"CLIP_stop_at_last_layers": "2"}}, 400, "clip_skip"),
        ({"override_settings": {"sd_model_checkpoint": "other"}}, 404, "other"),
        ({"override_settings": {"sd_model_checkpoint": 7}}, 400, "sd_model_checkpoint"),
        ({"override_settings": []}, 400, "override_settings"),
        ({"prompt": "[error]"}, 500, ""),
    ],
)
def test_refusals_have_the_web_uis_shape(web: httpx.Client, fields: dict[str, Any], status: int, words: str) -> None:
    body = json.dumps({"prompt": "a fox", "steps": 2} | fields)
    answer = web.post("/txt2img", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert words in told["detail"]
    assert told.keys() == {"error", "detail", "body", "errors"}
    assert "Traceback" not in answer.text


def test_what_is_asked_for_and_not_done_is_named(web: httpx.Client) -> None:
    plain = _txt2img(web, save_images=True, eta=1.0, hr_scale=2, denoising_strength=0.7, styles=[], restore_faces=False)
    assert "x-triptych-ignored" not in plain.headers
    answer = _txt2img(
        web,
        enable_hr=True,
        hr_scale=2,
        restore_faces=True,
        sampler_name="Euler a",
        scheduler="karras",
        override_settings={"sd_vae": "other.pt", "eta_noise_seed_delta": 0},
        alwayson_scripts={"ADetailer": {"args": [True]}},
        **{"b\r\nc": 1},
    )
    assert answer.status_code == 200
    assert answer.headers["x-triptych-ignored"].split(", ") == [
        "alwayson_scripts.ADetailer",
        "b??c",
        "enable_hr",
        "hr_scale",
        "override_settings.sd_vae",
        "restore_faces",
        "scheduler",
    ]


def test_progress_grows_and_is_zero_again(web: httpx.Client, url: str) -> None:
    eventually(lambda: _idle(web), "no work")
    asking = _Asking(url, prompt=SLOW, steps=10)
    first = _begun(web)
    assert 0 < first["progress"] < 1
    assert first["eta_relative"] >= 0
    assert first["state"]["job_count"] == 1
    assert first["state"]["sampling_steps"] == 10
    eventually(lambda: web.get("/progress").json()["progress"] > first["progress"], "progress")
    assert asking.ended().status_code == 200
    assert _idle(web)


def test_the_newest_preview_is_shown_unless_it_is_not_wanted(web: httpx.Client, url: str) -> None:
    asking = _Asking(url, prompt=SLOW, steps=40)

    def shown() -> str | None:
        image: str | None = web.get("/progress").json()["current_image"]
        return image

    assert base64.b64decode(eventually(shown, "a preview") or "", validate=True) == DrawsPreviews.JPEG
    assert web.get("/progress", params={"skip_current_image": "true"}).json()["current_image"] is None
    assert asking.answer is None, "the preview came before the picture"
    web.post("/interrupt")
    assert asking.ended().status_code == 409


def test_an_interruption_stops_the_work_of_these_routes_and_no_other(web: httpx.Client, url: str) -> None:
    other = httpx.post(f"{url}/v1/jobs", json={"prompt": SLOW, "steps": 12}, timeout=DEADLINE_S).json()
    asking = [_Asking(url, prompt=SLOW, steps=200) for _ in range(2)]
    eventually(lambda: _jobs(url) == 3, "all three in work")
    assert web.post("/interrupt").json() == {}
    for each in asking:
        answer = each.ended()
        assert answer.status_code == 409
        assert "cancelled" in answer.json()["detail"]
    job = eventually(lambda: _over(url, other["id"]), "the other's picture")
    assert job["state"] == "done"


def test_pictures_that_are_done_outlive_an_interruption(web: httpx.Client, url: str) -> None:
    asking = _Asking(url, prompt=SLOW, steps=12, batch_size=10)
    eventually(lambda: web.get("/progress").json()["state"]["job_no"], "a picture")
    web.post("/interrupt")
    answer = asking.ended()
    info = _info(answer)
    assert 1 <= len(answer.json()["images"]) < 10
    assert len(info["all_seeds"]) == len(info["infotexts"]) == len(answer.json()["images"])


def test_a_skip_stops_what_progress_tells_of(web: httpx.Client, url: str) -> None:
    eventually(lambda: _idle(web), "no work")
    first = _Asking(url, prompt=SLOW, steps=200)
    _begun(web)
    second = _Asking(url, prompt="a fox", steps=150)
    eventually(lambda: _jobs(url) == 2, "both in work")
    assert web.post("/skip").json() == {}
    assert first.ended().status_code == 409
    assert second.ended().status_code == 200


def test_interrupting_nothing_is_fine(web: httpx.Client) -> None:
    assert web.post("/interrupt").json() == {}
    assert web.post("/skip", content=b"").json() == {}


def test_a_client_that_goes_takes_its_work_along(web: httpx.Client, url: str) -> None:
    eventually(lambda: _idle(web), "no work")
    cancelled = 'triptych_request_success_total{finished_reason="cancelled"}'
    before = _metric(url, cancelled)
    with httpx.Client(base_url=f"{url}/sdapi/v1", timeout=0.5) as hasty, pytest.raises(httpx.ReadTimeout):
        _txt2img(hasty, prompt=SLOW, steps=200)
    eventually(lambda: _idle(web), "the end of the work")
    assert _metric(url, cancelled) == before + 1


def test_the_model_is_the_only_option_that_is_looked_at(web: httpx.Client) -> None:
    options = web.get("/options").json()
    [model] = web.get("/sd-models").json()
    assert options["sd_model_checkpoint"] == model["title"]
    assert "forge_preset" not in options
    assert model.keys() == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert "/" not in model["filename"]
    assert web.post("/options", json=options | {"anything": {"at": "all"}}).status_code == 200
    assert web.post("/options", json={}).status_code == 200
    refused = web.post("/options", json=options | {"sd_model_checkpoint": "other"})
    assert (refused.status_code, refused.json()["error"]) == (404, "Not Found")
    assert web.post("/options", json={"sd_model_checkpoint": []}).status_code == 400
    assert web.post("/options", json=[]).status_code == 400


LISTS: dict[str, Callable[[Any], bool]] = {
    "/sdapi/v1/samplers": lambda data: {"Euler a", "DPM++ 2M"} <= {each["name"] for each in data},
    "/sdapi/v1/schedulers": lambda data: data[0] | {"name": "automatic", "label": "Automatic"} == data[0],
    "/sdapi/v1/upscalers": lambda data: data[0]["name"] == "None",
    "/sdapi/v1/latent-upscale-modes": lambda data: data == [],
    "/sdapi/v1/sd-vae": lambda data: data == [],
    "/sdapi/v1/loras": lambda data: data == [],
    "/sdapi/v1/scripts": lambda data: data == {"txt2img": [], "img2img": []},
    "/controlnet/model_list": lambda data: data == {"model_list": []},
    "/controlnet/module_list": lambda data: data["module_list"] == [],
    "/controlnet/control_types": lambda data: data == {"control_types": {}},
}


@pytest.mark.parametrize("path", LISTS)
def test_lists_have_the_form_that_clients_read(url: str, path: str) -> None:
    answer = httpx.get(f"{url}{path}", timeout=DEADLINE_S)
    assert answer.status_code == 200
    assert LISTS[path](answer.json()), answer.text


@pytest.mark.parametrize("route", ["img2img", "extra-single-image"])
def test_pictures_are_not_taken_in_yet(web: httpx.Client, route: str) -> None:
    answer = web.post(f"/{route}", json={"init_images": ["AAAA"]})
    assert answer.status_code == 501
    assert "takes no pictures in yet" in answer.json()["detail"]


def test_png_info_reads_what_was_written(web: httpx.Client) -> None:
    made = _txt2img(web, seed=3, negative_prompt="blurry").json()
    for prefix in ("", "data:image/png;base64,"):
        told = web.post("/png-info", json={"image": prefix + made["images"][0]}).json()
        assert told["info"] == json.loads(made["info"])["infotexts"][0]
        assert told["items"]["parameters"] == told["info"]
        fields = {"Prompt": "a fox", "Negative prompt": "blurry", "Steps": "2", "Seed": "3", "Size-1": "128"}
        assert told["parameters"] | fields == told["parameters"]


@pytest.mark.parametrize("image", ["", "%", "\u00e9", base64.b64encode(b"GIF89a").decode()])
def test_png_info_refuses_what_is_no_png(web: httpx.Client, image: str) -> None:
    assert web.post("/png-info", json={"image": image}).status_code == 400


def _jobs(url: str) -> int:
    """Jobs in work, of all routes."""
    return round(_metric(url, "triptych_num_requests_running") + _metric(url, "triptych_num_requests_waiting"))


def _metric(url: str, name: str) -> float:
    """A metric's value; 0 where it is not told yet."""
    lines = httpx.get(f"{url}/metrics", timeout=DEADLINE_S).text.splitlines()
    return next((float(line.removeprefix(f"{name} ")) for line in lines if line.startswith(f"{name} ")), 0.0)


def _over(url: str, id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = httpx.get(f"{url}/v1/jobs/{id}", timeout=DEADLINE_S).json()
    return None if job["state"] in ("queued", "running") else job
