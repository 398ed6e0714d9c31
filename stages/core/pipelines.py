"""The pipelines whose folders can be run, by the names that libraries have for them."""

import re

from stages.core.errors import ModelError
from stages.core.json_file import shown

_FAMILIES = {
    "StableDiffusionPipeline": "SD",
    "LatentConsistencyModelPipeline": "LCM",
    "StableDiffusionXLPipeline": "SDXL",
}

_KIN = re.compile(r"(?:OV|Flax)?(\w+?)(?:Img2Img|Inpaint)?Pipeline")
"""Pattern of pipelines of the same parts: those of optimum-intel (OV) and for JAX (Flax), and those that begin with a
picture, where the U-Net does not take it as an input."""


def family(class_name: object, where: object) -> str:
    """The short name of the family that a `_class_name` of model_index.json means: SD, LCM or SDXL.

    Raises ModelError for one that cannot be run, naming `where` it stands and those that can.
    """
    match = _KIN.fullmatch(class_name) if isinstance(class_name, str) else None
    found = _FAMILIES.get(f"{match[1]}Pipeline") if match else None
    if found is not None:
        return found
    known = ", ".join(_FAMILIES)
    if isinstance(class_name, str):
        raise ModelError(f"{where}: this is a {shown(class_name)} model; those that can be run are {known}")
    said = " says no _class_name" if class_name is None else f": _class_name {shown(class_name)} is no name"
    raise ModelError(f"{where}: model_index.json{said}; those that can be run are {known}")
