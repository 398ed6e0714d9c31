import math
from dataclasses import replace

import numpy as np
import pytest

from demo.score import Verdict, accuracy, figures, sharpness
from demo.world import Relation, Scene

ALONE = Scene("cat", None, Relation.ALONE, "in the snow", "a photo of")
RIDE = Scene("robot", "camel", Relation.RIDING, "on mars", "pixel art of")
PAIR = Scene("apple", "pizza", Relation.BESIDE, "in space", "a photo of", names_style=False)

NOTHING = np.zeros(0)


def seen(scene: Scene) -> Verdict:
    """What a judge who is always right sees."""
    return Verdict(scene.first, scene.second, scene.relation, scene.place, scene.style)


def test_a_perfect_model() -> None:
    scenes = [ALONE, RIDE, PAIR]
    found = figures(scenes, [seen(scene) for scene in scenes], np.array([2.0, 3.0]), np.array([1.0, 1.5]))
    assert (found.subject, found.riding, found.beside, found.place, found.style) == (1, 1, 1, 1, 1)
    assert found.sharper == 1
    assert found.sharpness_gain == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("scene", "change", "figure"),
    [
        (ALONE, {"first": "dog"}, "subject"),
        (ALONE, {"second": "dog"}, "subject"),
        (RIDE, {"second": "horse"}, "riding"),
        (RIDE, {"relation": Relation.BESIDE}, "riding"),
        (PAIR, {"second": None}, "beside"),
        (PAIR, {"place": "on mars"}, "place"),
        (RIDE, {"style": "a photo of"}, "style"),
    ],
)
def test_what_is_wrong_counts_where_it_belongs(scene: Scene, change: dict[str, object], figure: str) -> None:
    found = figures([scene, scene], [seen(scene), replace(seen(scene), **change)], NOTHING, NOTHING)
    assert getattr(found, figure) == 0.5


def test_the_sides_of_a_pair_do_not_count() -> None:
    mirrored = replace(seen(PAIR), first="pizza", second="apple")
    assert figures([PAIR], [mirrored], NOTHING, NOTHING).beside == 1


def test_a_style_that_is_not_named_does_not_count() -> None:
    found = figures([PAIR, RIDE], [replace(seen(PAIR), style="a sketch of"), seen(RIDE)], NOTHING, NOTHING)
    assert found.style == 1


def test_no_prompts_of_a_kind_is_no_number() -> None:
    found = figures([ALONE], [seen(ALONE)], NOTHING, NOTHING)
    assert math.isnan(found.riding)
    assert math.isnan(found.sharpness_gain)


def test_a_judge_is_tried_on_all_it_tells_apart() -> None:
    assert accuracy([ALONE, RIDE], [seen(ALONE), replace(seen(RIDE), place="in space")]) == {
        "subjects": 1.0,
        "relation": 1.0,
        "place": 0.5,
        "style": 1.0,
    }


def test_sharpness_is_the_mean_step_between_neighbours() -> None:
    flat = np.full((4, 4, 3), 7, np.uint8)
    stripes = np.zeros((4, 4, 3), np.uint8)
    stripes[:, ::2] = 100
    # 100 across, 0 down.
    assert sharpness(np.stack([flat, stripes])).tolist() == [0.0, 50.0]
