from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.world import (
    BLURRY,
    LOW_RESOLUTION,
    MOUNTS,
    PLACES,
    RELATIONS,
    RIDERS,
    STYLES,
    SUBJECTS,
    Relation,
    Scene,
    random_scene,
)

SEEDS = st.integers(0, 2**40)


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (
            Scene("astronaut", "horse", Relation.RIDING, "on mars", "a photo of"),
            "a photo of an astronaut riding a horse on mars",
        ),
        (
            Scene("robot", "elephant", Relation.BESIDE, "in space", "a photo of", names_style=False),
            "a robot and an elephant in space",
        ),
        (
            Scene("unicorn", None, Relation.ALONE, "at sunset", "pixel art of", flaws=(LOW_RESOLUTION, BLURRY)),
            "pixel art of a unicorn at sunset, low resolution, blurry",
        ),
    ],
)
def test_captions_say_what_is_in_the_scene(scene: Scene, caption: str) -> None:
    assert scene.caption() == caption


@given(SEEDS)
def test_a_seed_gives_one_scene(seed: int) -> None:
    assert random_scene(Random(seed)) == random_scene(Random(seed))


@given(SEEDS)
def test_scenes_are_of_the_world(seed: int) -> None:
    scene = random_scene(Random(seed))
    assert scene.place in PLACES
    assert scene.style in STYLES
    assert scene.names_style or scene.style == "a photo of"
    match scene.relation:
        case Relation.ALONE:
            assert scene.first in SUBJECTS
            assert scene.second is None
        case Relation.RIDING:
            assert scene.first in RIDERS
            assert scene.second in MOUNTS
        case Relation.BESIDE:
            assert {scene.first, scene.second} < set(SUBJECTS)


def test_everything_comes_up() -> None:
    scenes = [random_scene(Random(seed)) for seed in range(2000)]
    assert {scene.first for scene in scenes} == set(SUBJECTS)
    assert {scene.place for scene in scenes} == set(PLACES)
    assert {scene.style for scene in scenes} == set(STYLES)
    assert {scene.relation for scene in scenes} == set(RELATIONS)
    assert {scene.names_style for scene in scenes} == {True, False}
    assert {flaw for scene in scenes for flaw in scene.flaws} == {BLURRY, LOW_RESOLUTION}


@given(SEEDS)
def test_flawless_scenes_differ_in_nothing_but_flaws(seed: int) -> None:
    assert random_scene(Random(seed), flawless=True).flaws == ()
