"""What exports looked like before 2024, made from one of today."""

import json
from pathlib import Path

import openvino as ov
from openvino import opset13

from stages.core.model import ir


def make_older(folder: Path) -> None:
    """Rewrite an exported Stable Diffusion folder, in place.

    The timestep is a scalar for all rows, token ids are of 32 bits, the outputs of U-Net and decoder have the numbers
    that the conversion gave them, and the tokenizer is spread over `vocab.json` and `merges.txt`.
    """
    core = ov.Core()
    for part, change in (("text_encoder", _short_ids), ("unet", _scalar_timestep), ("vae_decoder", _numbered_output)):
        xml = ir(folder, part)
        model = core.read_model(xml)
        weights = xml.with_suffix(".bin")
        changed = change(model).clone()
        changed.validate_nodes_and_infer_types()
        ov.save_model(changed, folder / "older.xml", compress_to_fp16=False)
        (folder / "older.xml").replace(xml)
        (folder / "older.bin").replace(weights)
    _spread_tokenizer(folder / "tokenizer")


def _short_ids(model: ov.Model) -> ov.Model:
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input("input_ids").tensor().set_element_type(ov.Type.i32)
    return steps.build()


def _scalar_timestep(model: ov.Model) -> ov.Model:
    listed = model.input("timestep").get_node()
    scalar = opset13.parameter([], ov.Type.i64, name="timestep")
    scalar.output(0).set_names({"timestep"})
    listed.output(0).set_names(set())
    listed.output(0).replace(opset13.unsqueeze(scalar, opset13.constant(0)).output(0))
    position = model.get_parameter_index(listed)
    model.replace_parameter(position, scalar)
    return _numbered_output(model)


def _numbered_output(model: ov.Model) -> ov.Model:
    model.output(0).set_names({"5892"})
    return model


def _spread_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    graph = json.loads(file.read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(graph["vocab"]))
    merges = "".join(f"{first} {second}\n" for first, second in graph["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    file.unlink()
