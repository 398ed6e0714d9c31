import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.routing.request import Request, resolve
from stages.core.errors import BadRequest
from stages.core.schedule_names import SCHEDULE_NAMES
from stages.core.tasks import Denoise, EncodeText
from stages.core.wire import Submit, decode_client_message
from tests.unit.cards import CARD, DISTILLED

SIZES = ((64, 64), (64, 96), (512, 512))
DRAW = 1234
ABSENT = object()


def ask(**fields: Any) -> list[Request]:
    return resolve(Submit(**{"id": "a", "prompt": "a cat"} | fields), CARD, SIZES, DRAW)


def ask_in_json(**fields: Any) -> list[Request]:
    """As a client of the socket does: nothing else can bring fields of a wrong type here."""
    written = {"type": "submit", "id": "a", "prompt": "a cat"} | fields
    frame = json.dumps({key: value for key, value in written.items() if value is not ABSENT})
    submit = decode_client_message(frame.encode())
    assert isinstance(submit, Submit)
    return resolve(submit, CARD, SIZES, DRAW)


# What is refused.


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        *(({"prompt": blank}, "`prompt` is blank") for blank in ("", " ", "\t\r\n", "\u3000\u00a0\u2028")),
        ({"prompt": "a\0cat"}, "`prompt` holds a NUL"),
        ({"negative_prompt": "\0"}, "`negative_prompt` holds a NUL"),
        ({"prompt": "x" * 32_001}, "`prompt` has 32,001 characters; at most 32,000"),
        ({"prompt": "\N{GRINNING FACE}" * 32_001}, "`prompt` has 32,001 characters; at most 32,000"),
        ({"negative_prompt": "x" * 32_001}, "`negative_prompt` has 32,001 characters; at most 32,000"),
        *(({"n": n}, "`n` must be from 1 to 10") for n in (-1, 0, 11, 10**9, 10**300)),
        *(({"steps": steps}, "`steps` must be from 1 to 200") for steps in (-1, 0, 201, 10**300)),
        *(({"guidance_scale": wrong}, "`guidance_scale` must be from 0 to 100") for wrong in (-1.0, 100.5, 1e308)),
        *(({"guidance_scale": wrong}, "`guidance_scale` is not a finite number") for wrong in (math.nan, math.inf)),
        ({"guidance_scale": -math.inf}, "`guidance_scale` is not a finite number"),
        *(({"guidance_rescale": wrong}, "`guidance_rescale` must be from 0 to 1") for wrong in (-0.1, 1.1, 1e308)),
        *(({"guidance_rescale": wrong}, "`guidance_rescale` must be from 0 to 1") for wrong in (math.nan, math.inf)),
        *(({"clip_skip": wrong}, "`clip_skip` must be from 0 to 11") for wrong in (-1, 12, 10**300)),
        *(({"seed": seed}, "`seed` must be from 0 to 2^64 - 1") for seed in (-1, 2**64, 10**300)),
        ({"schedule": ""}, "`schedule` '' is unknown"),
        ({"schedule": "DDIM"}, "`schedule` 'DDIM' is unknown"),
        ({"width": 0, "height": 512}, "0x512 is not served; the nearest is 64x96"),
        ({"width": -64, "height": -64}, "-64x-64 is not served; the nearest is 64x64"),
        ({"width": 513, "height": 511}, "513x511 is not served; the nearest is 512x512"),
        ({"width": 96, "height": 64}, "96x64 is not served; the nearest is 64x64"),
        ({"width": 10**5, "height": 10**5}, "100000x100000 is not served; the nearest is 512x512"),
        ({"width": 512}, "512x64 is not served"),
        ({"height": 512}, "64x512 is not served"),
        *(({"id": id}, "`id` must be 1 to 128 printable characters") for id in ("", "x" * 129, "a\n", "a\u200bb")),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ask(**fields)
    assert said in refused.value.message
    assert len(refused.value.message) < 1000  # what was sent is not sent back at any length


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": ABSENT}, "prompt"),
        *(({"prompt": wrong}, "$.prompt") for wrong in (None, 1, ["a cat"], {})),
        ({"prompt": "\ud800"}, ""),
        *(({"seed": wrong}, "$.seed") for wrong in ("x", "1", 1.5, True)),
        *(({"n": wrong}, "$.n") for wrong in (None, "1", 1.5, 2.0)),
        *(({"steps": wrong}, "$.steps") for wrong in ("20", 0.5)),
        *(({"guidance_scale": wrong}, "") for wrong in ("7", math.nan, math.inf, -math.inf)),
        *(({"width": wrong}, "$.width") for wrong in ("512", "512xabc", 64.5)),
        *(({"clip_skip": wrong}, "$.clip_skip") for wrong in ("1", 1.5, None)),
        *(({"syntax": wrong}, "$.syntax") for wrong in ("A1111", "compel", None)),
        *(({"output_format": wrong}, "$.output_format") for wrong in ("gif", "PNG", "", None)),
        *(({key: "x"}, key) for key in ("size", "path", "fd", "implementation", "image", "response_format")),
    ],
)
def test_a_field_of_a_wrong_type_or_name_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ask_in_json(**fields)
    assert said in refused.value.message


@pytest.mark.parametrize("digits", [30, 300, 4300, 5000, 100_000])
@pytest.mark.parametrize("field", ["n", "steps", "seed", "width", "height", "guidance_scale", "priority"])
def test_a_number_of_any_length_is_refused(field: str, digits: int) -> None:
    frame = f'{{"type": "submit", "id": "a", "prompt": "a cat", "{field}": {"9" * digits}}}'
    with pytest.raises(BadRequest, match=field):
        resolve(decode_client_message(frame.encode()), CARD, SIZES, DRAW)  # type: ignore[arg-type]


def test_an_unknown_schedule_gets_the_list() -> None:
    with pytest.raises(BadRequest) as refused:
        ask(schedule="x" * 100_000)
    assert all(name in refused.value.message for name in SCHEDULE_NAMES)
    assert len(refused.value.message) < 1000


OWN_UNSERVED = msgspec.structs.replace(CARD, scheduler=CARD.scheduler | {"_class_name": "DEISMultistepScheduler"})


def test_a_schedule_has_to_be_named_where_the_model_s_own_is_not_served() -> None:
    with pytest.raises(BadRequest) as refused:
        resolve(Submit(id="a", prompt="a cat"), OWN_UNSERVED, SIZES, DRAW)
    assert refused.value.message == (
        "`schedule` has to be named: the model's own, DEISMultistepScheduler, is not served; there are "
        + ", ".join(SCHEDULE_NAMES)
    )


@pytest.mark.parametrize(
    ("asked", "configured", "expected"),
    [("euler", None, "euler"), ("euler", "unipc", "euler"), (None, "unipc", "unipc")],
)
def test_a_request_or_the_configuration_names_it(asked: str | None, configured: str | None, expected: str) -> None:
    card = msgspec.structs.replace(OWN_UNSERVED, schedule=configured)
    [request] = resolve(Submit(id="a", prompt="a cat", schedule=asked), card, SIZES, DRAW)
    assert request.denoise.schedule == expected
    assert f"Sampler: {expected}, " in request.metadata(card)["parameters"]
    assert json.loads(request.metadata(card)["triptych"])["schedule"] == expected


def test_a_configured_schedule_counts_its_own_evaluations() -> None:
    [request] = resolve(Submit(id="a", prompt="a cat"), msgspec.structs.replace(CARD, schedule="heun"), SIZES, DRAW)
    assert request.evaluations(CARD) == 2 * CARD.steps - 1


# What is taken.


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 32_000, "negative_prompt": "x" * 32_000},
        {"n": 10},
        {"steps": 1},
        {"steps": 200},
        {"guidance_scale": 0.0},
        {"guidance_scale": 100.0},
        {"guidance_rescale": 0.0},
        {"guidance_rescale": 1.0},
        {"clip_skip": 11},
        *({"syntax": syntax} for syntax in ("plain", "a1111")),
        {"seed": 0},
        {"seed": 2**64 - 1},
        {"width": 64, "height": 96},
        {"height": 96},
        {"id": "x" * 128},
        {"id": "Grüße \N{GRINNING FACE}"},
        *({"schedule": name} for name in SCHEDULE_NAMES),
        *({"output_format": format} for format in ("png", "jpeg", "webp")),
    ],
)
def test_the_last_value_that_is_right_is_taken(fields: dict[str, Any]) -> None:
    for requests in (ask(**fields), ask_in_json(**fields)):
        [first, *_] = requests
        found = msgspec.structs.asdict(first.text) | msgspec.structs.asdict(first.denoise)
        found["output_format"] = first.output_format
        assert len(requests) == fields.get("n", 1)
        assert {key: found[key] for key in fields if key in found} == {
            key: value for key, value in fields.items() if key in found
        }


def test_what_is_not_said_is_filled_in_from_the_model() -> None:
    [request] = ask()
    assert request == Request(
        text=EncodeText("a cat", "", guided=True, syntax="plain", clip_skip=0),
        denoise=Denoise(
            width=64,
            height=64,
            steps=CARD.steps,
            guidance_scale=CARD.guidance_scale,
            guidance_rescale=0.0,
            schedule=None,
            seed=DRAW,
        ),
        output_format="png",
    )
    distilled = msgspec.structs.replace(DISTILLED, steps=4, guidance_scale=8.5)
    [request] = resolve(Submit(id="a", prompt="a cat"), distilled, ((512, 512),), DRAW)
    assert request.denoise == Denoise(width=512, height=512, steps=4, guidance_scale=8.5, seed=DRAW)
    assert not request.text.guided


def test_guidance_may_be_a_whole_number() -> None:
    [request] = ask_in_json(guidance_scale=4)
    assert request.denoise.guidance_scale == 4.0
    assert isinstance(request.denoise.guidance_scale, float)


def unseeded(request: Request) -> Request:
    return msgspec.structs.replace(request, denoise=msgspec.structs.replace(request.denoise, seed=0))


@example(2**64 - 1, 3)
@given(st.integers(0, 2**64 - 1), st.integers(1, 10))
def test_the_images_of_a_prompt_differ_by_their_seeds_alone(seed: int, n: int) -> None:
    requests = ask(seed=seed, n=n)
    assert [request.denoise.seed for request in requests] == [(seed + index) % 2**64 for index in range(n)]
    assert {unseeded(request) for request in requests} == {unseeded(ask(seed=0)[0])}


# What is written into the file.


def test_parameters_are_written_as_automatic1111_does() -> None:
    [request] = ask(
        prompt="a cat, Grüße \N{GRINNING FACE}",
        negative_prompt="a dog",
        steps=20,
        guidance_scale=7.0,
        seed=2**63,
        width=64,
        height=96,
        schedule="euler_a",
    )
    assert request.metadata(CARD)["parameters"].splitlines() == [
        "a cat, Grüße \N{GRINNING FACE}",
        "Negative prompt: a dog",
        "Steps: 20, Sampler: euler_a, CFG scale: 7, Seed: 9223372036854775808, Size: 64x96, Model: paper",
    ]


def test_parameters_have_no_line_for_what_is_empty_and_name_the_model_s_own_schedule() -> None:
    lines = ask()[0].metadata(CARD)["parameters"].splitlines()
    assert lines == ["a cat", "Steps: 3, Sampler: ddim, CFG scale: 7.5, Seed: 1234, Size: 64x64, Model: paper"]


def test_skipped_layers_are_counted_as_automatic1111_does() -> None:
    assert ask(clip_skip=1)[0].metadata(CARD)["parameters"].endswith(", Model: paper, Clip skip: 2")


PROMPTS = st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text)


@given(PROMPTS, st.floats(0, 100), st.sampled_from([None, *SCHEDULE_NAMES]))
def test_the_json_of_a_picture_asks_for_it_again(prompt: str, guidance_scale: float, schedule: str | None) -> None:
    [request] = ask(prompt=prompt, guidance_scale=guidance_scale, schedule=schedule)
    written = json.loads(request.metadata(CARD)["triptych"])
    assert written.pop("model") == "paper"
    [again] = ask_in_json(**written)
    named = msgspec.structs.replace(request.denoise, schedule=schedule or "ddim")
    assert again == msgspec.structs.replace(request, denoise=named)
