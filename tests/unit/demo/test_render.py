"""Drawing without the font: places, styles and flaws. What needs the font is skipped where it is not installed."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from demo import backdrop, emoji, style
from demo.dataset import make_dataset, open_dataset
from demo.render import render
from demo.score import sharpness
from demo.sheet import sheet
from demo.world import BLURRY, LOW_RESOLUTION, PLACES, RELATIONS, STYLES, SUBJECTS, Relation, Scene, random_scene
from stages.core.errors import ConfigError

needs_font = pytest.mark.skipif(not emoji.FONT.exists(), reason="needs Debian's fonts-noto-color-emoji")


def drawn(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))


@pytest.mark.parametrize("place", PLACES)
def test_a_place_follows_from_the_seed(place: str) -> None:
    first, horizon = backdrop.paint(place, Random(3))
    again, _ = backdrop.paint(place, Random(3))
    assert first.size == (backdrop.SIDE, backdrop.SIDE)
    assert 0 < horizon < backdrop.SIDE
    assert np.array_equal(drawn(first), drawn(again))


def test_places_can_be_told_apart() -> None:
    means = [drawn(backdrop.paint(place, Random(1))[0]).mean((0, 1)) for place in PLACES]
    for number, mean in enumerate(means):
        for other in means[number + 1 :]:
            assert np.abs(mean - other).max() > 5


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="'at home'"):
        backdrop.paint("at home", Random(0))


def test_styles() -> None:
    plain = noise()
    assert drawn(style.apply(plain, "a photo of", Random(0))) is not None
    sketch = drawn(style.apply(plain, "a sketch of", Random(0)))
    assert (sketch == sketch[..., :1]).all()
    cells = drawn(style.apply(plain, "pixel art of", Random(0)))
    assert (cells == np.repeat(np.repeat(cells[::4, ::4], 4, 0), 4, 1)).all()
    pale = drawn(style.apply(plain, "a watercolor of", Random(0)))
    assert pale.mean() > drawn(plain).mean() + 10
    with pytest.raises(ConfigError, match="'oil of'"):
        style.apply(plain, "oil of", Random(0))


@pytest.mark.parametrize("flaws", [(BLURRY,), (LOW_RESOLUTION,), (LOW_RESOLUTION, BLURRY)])
def test_flaws_cost_sharpness(flaws: tuple[str, ...]) -> None:
    plain = noise()
    spoilt = style.degrade(plain, flaws, Random(0))
    assert spoilt.size == plain.size
    sharp, soft = sharpness(np.stack([drawn(plain), drawn(spoilt)]))
    assert soft < sharp / 2


def test_a_sheet_has_room_for_all() -> None:
    shown = sheet([noise()] * 5, ["a caption"] * 5, columns=4)
    assert shown.width > 4 * 128
    assert shown.height > 2 * 128


def test_no_scenes_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"python -m demo\.dataset"):
        open_dataset(tmp_path)


@needs_font
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_one_glyph(subject: str) -> None:
    figure = emoji.picture(subject)
    assert max(figure.size) < 150, "joined sequences that fall apart are two glyphs wide"
    assert drawn(figure)[..., 3].max() == 255


@needs_font
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("look", STYLES)
def test_a_scene_and_a_seed_give_one_picture(relation: Relation, look: str) -> None:
    scene = Scene("robot", None if relation == Relation.ALONE else "camel", relation, "on mars", look)
    one, again, other = (drawn(render(scene, seed)) for seed in (1, 1, 2))
    assert one.shape == (128, 128, 3)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@needs_font
def test_a_dataset_is_rendered_once_and_known_by_its_seed(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    made = make_dataset(folder, 3, seed=5, processes=1)
    assert open_dataset(folder) == made == make_dataset(folder, 3, seed=5)
    assert made.scene(1) == random_scene(Random(6))
    assert np.array_equal(made.pictures()[1], drawn(render(made.scene(1), 6)))
    with pytest.raises(ConfigError, match="other scenes"):
        make_dataset(folder, 4, seed=5)
