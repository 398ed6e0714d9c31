"""The embedded model through the whole pipeline: pictures, determinism, cores, overlap, and stages that die."""

import hashlib
import io
import json
import os
import signal
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from orchestrator.__main__ import main
from stages.core import wire
from tests.server import Outcome, Server, run, serving

ASTRONAUT = "a photo of an astronaut riding a horse on mars"
BLURRY = "low resolution, blurry"
Event = dict[str, Any]
SUBJECTS = ("cat", "dog", "castle", "penguin", "robot", "tree", "wizard", "rocket")


def submit(id: str, prompt: str = ASTRONAUT, seed: int = 7, steps: int = 4, **more: object) -> wire.Submit:
    return wire.Submit(id=id, prompt=prompt, negative_prompt=BLURRY, seed=seed, steps=steps, **more)  # type: ignore[arg-type]


def pixels(picture: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.float64)


def psnr(one: bytes, other: bytes) -> float:
    error = ((pixels(one) - pixels(other)) ** 2).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving('model.sizes=["128x128", "192x128"]') as running:
        yield running


def one(server: Server, prompt: wire.Submit) -> Outcome:
    with server.client() as client:
        return run(client, [prompt])


def check_mars(picture: bytes) -> None:
    image = pixels(picture)
    assert image.shape == (128, 128, 3)
    ground = image[100:, :20].mean(axis=(0, 1))
    assert ground[0] > 1.3 * ground[2], f"mars is not red: {ground}"
    assert image.std() > 25, "a flat picture"


def test_the_astronaut_is_drawn_on_red_ground(server: Server) -> None:
    check_mars(one(server, submit("astronaut", steps=25)).images["astronaut", 0])


def test_the_four_step_variant_needs_four_steps() -> None:
    with serving("model.path=demo-lcm") as server:
        picture = one(server, wire.Submit(id="quick", prompt=ASTRONAUT, seed=7)).images["quick", 0]
    check_mars(picture)
    told = Image.open(io.BytesIO(picture)).text["parameters"]
    assert "Steps: 4, Sampler: lcm, CFG scale: 4, Seed: 7, Size: 128x128, Model: demo-lcm" in told


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(server: Server) -> None:
    first, again = (one(server, submit("x")).images["x", 0] for _ in range(2))
    other = one(server, submit("x", seed=8)).images["x", 0]
    assert first == again
    assert psnr(first, other) < 40


def test_a_picture_tells_how_it_was_made(server: Server) -> None:
    picture = Image.open(io.BytesIO(one(server, submit("x", prompt="ein Bär im Schnee")).images["x", 0]))
    assert picture.text["parameters"].splitlines() == [
        "ein Bär im Schnee",
        f"Negative prompt: {BLURRY}",
        "Steps: 4, Sampler: ddim, CFG scale: 4, Seed: 7, Size: 128x128, Model: demo",
    ]
    assert json.loads(picture.text["triptych"])["prompt"] == "ein Bär im Schnee"


def test_n_images_have_consecutive_seeds(server: Server) -> None:
    pair = one(server, submit("pair", n=2)).images
    single = one(server, submit("single", seed=8)).images
    assert pixels(pair["pair", 1]).tolist() == pixels(single["single", 0]).tolist()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_other_formats(server: Server, format: wire.Format) -> None:
    png = one(server, submit("x")).images["x", 0]
    lossy = one(server, submit("x", output_format=format)).images["x", 0]
    assert Image.open(io.BytesIO(lossy)).format == format.upper()
    assert psnr(png, lossy) > 30


def test_another_size_is_compiled_on_first_use(server: Server) -> None:
    assert pixels(one(server, submit("wide", width=192)).images["wide", 0]).shape == (128, 192, 3)


def test_a_long_prompt_is_not_cut(server: Server) -> None:
    long = " ".join(["a castle"] * 60)
    with_end, without = (
        one(server, submit("x", prompt=prompt)).images["x", 0] for prompt in (f"{long} on mars", f"{long} in the snow")
    )
    assert psnr(with_end, without) < 40, "the end of a long prompt makes no difference"


def test_a_prompt_beyond_all_chunks_is_refused_with_the_numbers(server: Server) -> None:
    failed = one(server, submit("x", prompt="cat " * 400)).failed()["x"]
    assert failed.code == "bad_request"
    assert "225" in failed.message


def test_without_guidance_the_negative_prompt_has_no_effect(server: Server) -> None:
    plain = one(server, submit("x", guidance_scale=1.0)).images["x", 0]
    other = one(server, wire.Submit(id="x", prompt=ASTRONAUT, seed=7, steps=4, guidance_scale=1.0)).images["x", 0]
    assert pixels(plain).tolist() == pixels(other).tolist()


@pytest.mark.parametrize("schedule", ["ddim", "euler", "lcm"])
def test_schedules_by_name(server: Server, schedule: str) -> None:
    picture = one(server, submit("x", schedule=schedule, steps=8)).images["x", 0]
    assert pixels(picture).std() > 10


def test_the_hub_holds_no_model_library(server: Server) -> None:
    with server.client() as client:
        hub = client.status().hub_pid
    maps = Path(f"/proc/{hub}/maps").read_text()
    assert "zmq" in maps, "the maps cannot be read"
    for library in ("openvino", "tokenizers", "torch"):
        assert library not in maps


def test_two_clients_each_get_their_own(server: Server) -> None:
    with server.client() as one_client, server.client() as other_client:
        for number in range(4):
            one_client.send(submit(f"same-id-{number}", seed=number))
            other_client.send(submit(f"same-id-{number}", seed=100 + number))
        mine, theirs = (run_sent(client, 4) for client in (one_client, other_client))
    assert set(mine.images) == set(theirs.images)
    seeds = [
        json.loads(Image.open(io.BytesIO(mine.images[key])).text["triptych"])["seed"] for key in sorted(mine.images)
    ]
    assert seeds == [0, 1, 2, 3]
    assert all(mine.images[key] != theirs.images[key] for key in mine.images)


def run_sent(client: object, count: int) -> Outcome:
    outcome = Outcome()
    while len(outcome.terminal) < count:
        event = client.receive(30.0)  # type: ignore[attr-defined]
        assert event is not None
        outcome.take(event)
    return outcome


@pytest.mark.parametrize("stage", wire.KINDS)
def test_a_killed_stage_changes_no_picture(server: Server, stage: wire.Kind) -> None:
    prompts = [submit(f"job-{n}", prompt=f"a photo of a {subject}", seed=n) for n, subject in enumerate(SUBJECTS)]
    with server.client() as client:
        undisturbed = run(client, prompts).images
        pid = server.pids()[f"{stage}-0"]
        killed: list[int] = []

        def kill(message: wire.HubMessage) -> None:
            at_work = isinstance(message, wire.Progress) and message.stage == stage and message.id == "job-3"
            if at_work and not killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        outcome = run(client, prompts, kill)
    assert killed
    assert not outcome.failed()
    assert {key: hashlib.sha256(picture).hexdigest() for key, picture in outcome.images.items()} == {
        key: hashlib.sha256(picture).hexdigest() for key, picture in undisturbed.items()
    }


def test_stream_shows_two_prompts_in_two_stages_at_once(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"a photo of a {subject}\n" for subject in SUBJECTS))
    trace = tmp_path / "trace.json"
    folder = tmp_path / "out"
    arguments = ["stream", str(file), "--connect", server.address, "-o", str(folder), "--trace", str(trace)]
    assert main(arguments) == 0
    assert len(list(folder.glob("*.png"))) == 8
    events = json.loads(trace.read_text())["traceEvents"]
    work = [event for event in events if event["ph"] == "X" and event.get("cat") == "work"]
    assert len(work) == 3 * 8
    assert {event["args"]["prompt"] for event in work} == {f"a photo of a {subject}" for subject in SUBJECTS}
    overlapping = [
        (a, b)
        for a, b in combinations(work, 2)
        if a["pid"] != b["pid"] and a["args"]["prompt"] != b["args"]["prompt"] and overlap(a, b)
    ]
    assert overlapping, "no two prompts were in two stages at the same time"
    holds = [event for event in events if event["ph"] == "X" and event.get("cat") == "hold"]
    assert len(holds) == 3 * 8
    by_slot: dict[int, list[Event]] = {}
    for hold in holds:
        by_slot.setdefault(hold["args"]["slot"], []).append(hold)
    for slot, held in by_slot.items():
        assert not any(overlap(a, b) for a, b in combinations(held, 2)), f"slot {slot} held two jobs at once"


def overlap(a: Event, b: Event) -> bool:
    (a_began, a_ended), (b_began, b_ended) = (
        (round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)) for event in (a, b)
    )
    return a_began < b_ended and b_began < a_ended


def test_packed_rows_do_not_change_a_picture() -> None:
    with serving("stage.unet.max_rows=4", "model.precision=f32") as server, server.client() as client:
        alone = run(client, [submit("x", steps=6)]).images["x", 0]
        beside = run(client, [submit("y", prompt="a photo of a cat", seed=1, steps=9), submit("x", steps=6)]).images
    assert psnr(alone, beside["x", 0]) >= 45


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two core sets need two cores")
def test_cores_asked_are_cores_seen() -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    cores = {"text": second, "unet": first, "vae": second}
    asked = [f'stage.{kind}.cores="{core}"' for kind, core in cores.items()]
    with serving(*asked) as server, server.client() as client:
        run(client, [submit("x")])
        seen = {stage.kind: (stage.cores_asked, stage.cores_seen) for stage in client.status().stages}
    assert seen == {kind: (str(core), str(core)) for kind, core in cores.items()}
