"""Pictures of every family beside those of diffusers, optimum-intel and openvino-genai, from the same weights."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from orchestrator.__main__ import main
from tests.cpu import needs_bf16
from tests.parity.ask import NEGATIVE, OWN, PROMPT, SEED, asks
from tests.parity.export import Workshop
from tests.parity.families import FAMILIES
from tests.parity.gallery import PEERS, Gallery, Program, asked
from tests.parity.ours import overrides, pixels, submit
from tests.parity.peers import psnr
from tests.server import run, serving

NEAR = 45.0
"""dB. Two programs that compute the same in float32 are this near; one wrong constant, and they are not."""

EMBEDDED = "embedded"
CASES = [(name, label) for name, family in FAMILIES.items() for label in asks(family)]
PEER_CASES = [
    (name, label, peer) for name, family in FAMILIES.items() for peer in PEERS for label in asked(peer, family)
]

# The first test of a family exports it and starts its programs.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("family", "label"), CASES)
def test_the_picture_is_diffusers_picture(gallery: Gallery, family: str, label: str) -> None:
    distance = psnr(*(gallery.pictures(family, program)[label] for program in ("triptych", "diffusers")))
    assert distance >= NEAR


@pytest.mark.parametrize(("family", "label", "peer"), PEER_CASES)
def test_the_picture_is_the_one_of_other_runtimes(gallery: Gallery, family: str, label: str, peer: Program) -> None:
    distance = psnr(*(gallery.pictures(family, program)[label] for program in ("triptych", peer)))
    assert distance >= NEAR


@pytest.mark.parametrize("family", FAMILIES)
def test_a_difference_would_show(gallery: Gallery, family: str) -> None:
    """Guards the tests above: pictures are not flat, and prompt, negative prompt and guidance count."""
    pictures = gallery.pictures(family, "diffusers")
    (first, ask), *others = [(pictures[label], ask) for label, ask in asks(FAMILIES[family]).items()]
    assert first.std() > 20
    for other, of in others:
        if of == replace(ask, prompt=of.prompt, negative_prompt=of.negative_prompt, guidance_scale=of.guidance_scale):
            distance = psnr(first, other)
            assert distance < 40, of


@pytest.mark.parametrize("family", ["sd15", "lcm", "sdxl"])
def test_rows_of_other_jobs_do_not_change_a_picture(gallery: Gallery, workshop: Workshop, family: str) -> None:
    label, ask = next(iter(asks(FAMILIES[family]).items()))
    others = [replace(ask, prompt=f"{number} cats", seed=number, steps=ask.steps + 8) for number in (1, 2, 3)]
    folder = workshop.openvino_folder(FAMILIES[family])
    with serving(*overrides(folder, "f32", [ask]), "stage.unet.max_rows=8") as server, server.client() as client:
        outcome = run(client, [submit(each, str(number)) for number, each in enumerate([ask, *others])])
    forwards = [{work.began_ns for work in slices if work.what == "step"} for slices in outcome.traced.values()]
    assert set.intersection(*forwards), "no forward held rows of all four jobs"
    alone = gallery.pictures(family, "triptych")[label]
    distance = psnr(alone, pixels(outcome.images["0", 0]))
    assert distance >= NEAR


@needs_bf16
@pytest.mark.parametrize("peer", PEERS)
def test_bf16_is_no_further_from_f32_than_the_peers_bf16(gallery: Gallery, peer: Program) -> None:
    """On trained weights; the mean, because which rounding errors cancel out is chance in a single picture."""
    truth = gallery.pictures(EMBEDDED, "diffusers")
    theirs = gallery.pictures(EMBEDDED, peer, "bf16")
    ours = gallery.pictures(EMBEDDED, "triptych", "bf16")
    distance, peers_distance = (
        fmean(psnr(truth[label], pictures[label]) for label in theirs) for pictures in (ours, theirs)
    )
    assert distance >= peers_distance - 0.5


@pytest.mark.parametrize(("precision", "near"), [("f32", 51.0), pytest.param("bf16", 50.5, marks=needs_bf16)])
def test_the_command_line_draws_diffusers_astronaut(
    gallery: Gallery, tmp_path: Path, precision: str, near: float
) -> None:
    """What openvino-genai stands at is 51.3 and 50.9 dB."""
    command = ["generate", PROMPT, "--negative", NEGATIVE, "--seed", str(SEED), "-o", str(tmp_path)]
    assert main([*command, "--set", f"model.precision={precision}"]) == 0
    (file,) = tmp_path.glob("*.png")
    astronaut = gallery.pictures(EMBEDDED, "diffusers")[OWN]
    distance = psnr(astronaut, pixels(file.read_bytes()))
    assert distance >= near
