"""The words that the embedded model was trained with, for the page's suggestions; demo/world.py has them for itself."""

WORLD: dict[str, tuple[str, ...]] = {
    "styles": ("a photo of", "a sketch of", "pixel art of", "a watercolor of"),
    "riders": ("astronaut", "robot", "cat", "dog", "princess", "penguin", "wizard", "bear", "frog", "monkey"),
    "mounts": ("horse", "unicorn", "dragon", "elephant", "whale", "bicycle", "car", "rocket", "turtle", "camel"),
    "things": (
        *("castle", "tree", "cactus", "house", "fish", "bird"),
        *("apple", "pizza", "guitar", "sailboat", "balloon", "flower"),
    ),
    "places": (
        *("on mars", "on the moon", "in space", "in the desert", "in a forest", "under the sea", "in the snow"),
        *("at sunset", "on a blue background", "on a white background"),
    ),
    "negative": ("low resolution, blurry",),
}
