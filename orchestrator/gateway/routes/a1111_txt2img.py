"""A `txt2img` of AUTOMATIC1111's API: what it asks the hub for, and the answer that its clients parse."""

import base64
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.gateway import png_text, sizes
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.jobs import Job, new_id
from orchestrator.gateway.routes import a1111_samplers
from orchestrator.gateway.routes.a1111_work import timestamp
from orchestrator.gateway.server import Gateway
from stages.core import wire

MAX_PICTURES = 10
MAX_CLIP_SKIP = 12
"""Counted from 1, which is the last layer, as the web UI does."""

_PREVIEWS = 4
"""Previews of a picture, spread evenly over its steps: `progress` shows the newest."""

_SECOND_PASS = ("hr_", "denoising_strength", "firstphase_")
"""What fields begin with that mean something with `enable_hr` alone."""

_MEANT = {
    "do_not_save_grid",
    "do_not_save_samples",
    "eta",
    "override_settings_restore_afterwards",
    "s_noise",
    "save_images",
    "script_args",
    "seed_resize_from_h",
    "seed_resize_from_w",
    "send_images",
    "subseed",
}
"""Fields that clients send whatever is asked of them, and that change nothing here."""


_Finite = Annotated[float, Field(allow_inf_nan=False)]


class TextToImage(BaseModel):
    """The body of a `txt2img`. Unknown fields pass: clients send all that the web UI knows."""

    model_config = ConfigDict(extra="allow")

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    """A name, too, and older; it counts where there is no `sampler_name`."""
    scheduler: str | None = None
    batch_size: int | None = None
    n_iter: int | None = None
    steps: int | None = None
    cfg_scale: _Finite | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    override_settings: dict[str, Any] | None = None
    alwayson_scripts: dict[str, Any] | None = None


def submission(gateway: Gateway, body: TextToImage) -> tuple[wire.Submit, dict[str, str]]:
    """The request for the hub, and headers that say what was made of it. Raises HttpError."""
    settings = body.override_settings or {}
    _check_model(gateway, settings.get("sd_model_checkpoint"))
    chosen = a1111_samplers.choose(body.sampler_name or body.sampler_index, body.scheduler)
    headers = _ignored(body, [] if chosen.spaced else ["scheduler"])
    default_width, default_height = gateway.known.sizes[0]
    asked = sizes.check(
        default_width if body.width is None else body.width, default_height if body.height is None else body.height
    )
    width, height = gateway.size(asked)
    if asked != (width, height):
        headers["X-Triptych-Size"] = f"{width}x{height}"
    steps = gateway.known.default_steps if body.steps is None else body.steps
    submit = wire.Submit(
        id=new_id(),
        prompt=body.prompt or "",
        negative_prompt=body.negative_prompt or "",
        steps=body.steps,
        guidance_scale=body.cfg_scale,
        seed=None if body.seed == -1 else body.seed,
        width=width,
        height=height,
        schedule=chosen.schedule,
        syntax="a1111",
        clip_skip=_clip_skip(settings.get("CLIP_stop_at_last_layers"), body.clip_skip),
        n=_pictures(body),
        preview_every=max(1, steps // _PREVIEWS),
    )
    return submit, headers


def answer(body: TextToImage, job: Job) -> dict[str, Any]:
    """The pictures of a job, the request as it was read, and `info`: what made the pictures, as JSON in a string."""
    images = [job.images[index] for index in sorted(job.images)]
    echoed = set(TextToImage.model_fields) - {"override_settings", "alwayson_scripts"}
    return {
        "images": [base64.b64encode(payload).decode() for _, payload in images],
        "parameters": body.model_dump(include=echoed),
        "info": json.dumps(_info(body, job, images)),
    }


def _info(body: TextToImage, job: Job, images: list[tuple[wire.Image, bytes]]) -> dict[str, Any]:
    """What made the pictures. It is read out of their files: where the request left something out, they tell."""
    texts = [png_text.read(payload) for _, payload in images]
    facts = json.loads(texts[0].get("triptych", "{}"))
    first, prompt, negative = images[0][0], body.prompt or "", body.negative_prompt or ""
    seeds = [image.seed for image, _ in images]
    return {
        "prompt": prompt,
        "all_prompts": [prompt] * len(images),
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(images),
        "seed": seeds[0],
        "all_seeds": seeds,
        "width": first.width,
        "height": first.height,
        "sampler_name": a1111_samplers.sampler_name(str(facts.get("schedule") or "")),
        "cfg_scale": facts.get("guidance_scale"),
        "steps": facts.get("steps"),
        "batch_size": len(images),
        "index_of_first_image": 0,
        "infotexts": [text.get("parameters", "") for text in texts],
        "styles": [],
        "extra_generation_params": {},
        "sd_model_name": facts.get("model"),
        "clip_skip": facts.get("clip_skip", 0) + 1,
        "job_timestamp": timestamp(job),
    }


def _check_model(gateway: Gateway, name: Any) -> None:
    if name is not None and not isinstance(name, str):
        raise HttpError(400, "`sd_model_checkpoint` must be a string", "bad_request", "sd_model_checkpoint")
    gateway.check_model(name)


def _pictures(body: TextToImage) -> int:
    size = 1 if body.batch_size is None else body.batch_size
    count = 1 if body.n_iter is None else body.n_iter
    if size < 1 or count < 1 or size * count > MAX_PICTURES:
        raise HttpError(
            400,
            f"`batch_size` x `n_iter` must be from 1 to {MAX_PICTURES} pictures, not {size} x {count}",
            "bad_request",
            "batch_size",
        )
    return size * count


def _clip_skip(setting: Any, field: int | None) -> int:
    """Layers left out, of either of two fields that count them from 1; of 0 as well, which some send for none."""
    layers = field if setting is None else setting
    if layers is None:
        return 0
    if isinstance(layers, bool) or not isinstance(layers, int) or not 0 <= layers <= MAX_CLIP_SKIP:
        raise HttpError(
            400,
            f"`CLIP_stop_at_last_layers` and `clip_skip` must be from 1 to {MAX_CLIP_SKIP}",
            "bad_request",
            "clip_skip",
        )
    return max(0, layers - 1)


def _ignored(body: TextToImage, fields: list[str]) -> dict[str, str]:
    """The header that names what was asked for and not done: what is neither empty nor meant for others alone."""
    extra = body.model_extra or {}
    second_pass = bool(extra.get("enable_hr"))
    names = [
        *fields,
        *(
            name
            for name, value in extra.items()
            if value and name not in _MEANT and (second_pass or not name.startswith(_SECOND_PASS))
        ),
        *(
            f"override_settings.{name}"
            for name, value in (body.override_settings or {}).items()
            if value and name not in ("sd_model_checkpoint", "CLIP_stop_at_last_layers")
        ),
        *(f"alwayson_scripts.{name}" for name in body.alwayson_scripts or {}),
    ]
    if not names:
        return {}
    shown = (name[:60].encode("ascii", "replace").decode() for name in sorted(names)[:20])
    return {"X-Triptych-Ignored": ", ".join("".join(c if c.isprintable() else "?" for c in name) for name in shown)}
