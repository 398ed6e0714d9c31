import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.errors import ModelError
from stages.core.model import EMBEDDED, demo_folder, ir, read_card
from stages.core.pipelines import family as family_of

PARTS = ("text_encoder", "unet", "vae_decoder")
DEMO = demo_folder()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The embedded model again: its JSON to be changed at will, its large files linked."""

    def copy_or_link(source: str, target: str) -> None:
        if source.endswith(".json"):
            shutil.copyfile(source, target)
        else:
            Path(target).symlink_to(source)

    return Path(shutil.copytree(DEMO, tmp_path / "fake", copy_function=copy_or_link))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(read(path) | values))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        read_card(folder)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_the_embedded_model_says_what_its_parts_say() -> None:
    card = read_card(DEMO)
    assert (card.path, card.name, card.family) == (DEMO, "demo", "SD")
    text, unet, vae = (read(DEMO / part / "config.json") for part in PARTS)
    assert card.embed_dim == text["hidden_size"]
    assert card.latent_channels == vae["latent_channels"] == unet["out_channels"]
    assert card.native == (vae["sample_size"], vae["sample_size"])
    assert card.latent_shape(*card.native) == (vae["latent_channels"], unet["sample_size"], unet["sample_size"])
    assert card.scaling_factor == vae["scaling_factor"] != 0.18215
    assert card.scheduler == read(DEMO / "scheduler" / "scheduler_config.json")
    assert {"num_inference_steps": card.steps, "guidance_scale": card.guidance_scale} == read(
        DEMO / "generation_config.json"
    )


def test_the_four_step_variant_is_told_the_guidance() -> None:
    card = read_card(EMBEDDED["demo-lcm"])
    assert (card.name, card.family, card.steps, card.guidance_embed_dim) == ("demo-lcm", "LCM", 4, 256)
    assert card.rows(card.guidance_scale) == 1


def test_the_embedded_models_are_small() -> None:
    sizes = {
        name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for name, folder in EMBEDDED.items()
    }
    assert sizes["demo"] <= 40e6
    assert sum(sizes.values()) <= 70e6


def test_a_picture_under_guidance_takes_two_rows() -> None:
    card = read_card(DEMO)
    assert [card.rows(scale) for scale in (0.0, 1.0, 1.01, 7.5)] == [1, 1, 2, 2]


def test_a_distilled_unet_takes_one_row_and_few_steps(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    change(folder / "model_index.json", _class_name="LatentConsistencyModelPipeline")
    change(folder / "unet" / "config.json", time_cond_proj_dim=256)
    card = read_card(folder)
    assert (card.name, card.family, card.guidance_embed_dim, card.rows(8.5)) == ("fake", "LCM", 256, 1)
    assert (card.steps, card.guidance_scale) == (4, 8.5)


def test_a_folder_need_not_say_everything(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    change(folder / "vae_decoder" / "config.json", scaling_factor=None)
    change(folder / "unet" / "config.json", sample_size=[64, 96])
    card = read_card(folder)
    assert (card.steps, card.guidance_scale) == (25, 7.5)
    assert card.scaling_factor == 0.18215
    assert card.native == (96 * card.downscale, 64 * card.downscale)
    assert card.latent_shape(*card.native)[1:] == (64, 96)


@pytest.mark.parametrize(
    ("said", "blocks"),
    [
        ({"block_out_channels": [32, 64, 64, 64]}, 4),
        ({"block_out_channels": [32, 64], "down_block_types": ["DownBlock2D"] * 4}, 2),
        ({"down_block_types": ["DownBlock2D"] * 4, "block_out_channels": []}, 4),
        ({"down_block_types": [], "block_out_channels": []}, 1),
    ],
)
def test_sizes_are_multiples_of_what_the_blocks_of_the_unet_leave(
    said: dict[str, object], blocks: int, folder: Path
) -> None:
    change(folder / "unet" / "config.json", **said)
    card = read_card(folder)
    assert card.size_step == card.downscale * 2 ** (blocks - 1)


KNOWN = "those that can be run are StableDiffusionPipeline, LatentConsistencyModelPipeline, StableDiffusionXLPipeline"


@pytest.mark.parametrize(
    "pipeline",
    [
        *("FluxPipeline", "StableDiffusion3Pipeline", "OVFluxPipeline", "StableDiffusionXLControlNetPipeline"),
        *(
            "StableDiffusionInstructPix2PixPipeline",
            "StableDiffusion",
            "OV",
            "NotOVStableDiffusionPipeline",
            "StableDiffusionPipelineSafe",
        ),
    ],
)
def test_another_kind_of_model_is_refused_by_name(pipeline: str, folder: Path) -> None:
    change(folder / "model_index.json", _class_name=pipeline)
    assert refusal(folder) == f"{folder}: this is a {pipeline} model; {KNOWN}"


def test_an_index_that_names_no_pipeline_is_refused_by_its_key(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({key: value for key, value in read(path).items() if key != "_class_name"}))
    assert refusal(folder) == f"{folder}: model_index.json says no _class_name; {KNOWN}"
    change(path, _class_name=["x"])
    assert refusal(folder) == f'{folder}: model_index.json: _class_name ["x"] is no name; {KNOWN}'


@pytest.mark.parametrize("beginning", ["", "OV", "Flax"])
@pytest.mark.parametrize("use", ["", "Img2Img", "Inpaint"])
@pytest.mark.parametrize(
    ("stem", "family"), [("StableDiffusion", "SD"), ("LatentConsistencyModel", "LCM"), ("StableDiffusionXL", "SDXL")]
)
def test_the_same_parts_are_one_family_under_every_name(beginning: str, stem: str, use: str, family: str) -> None:
    assert family_of(f"{beginning}{stem}{use}Pipeline", "here") == family


def test_a_folder_of_optimum_intel_s_class_is_run(folder: Path) -> None:
    plain = read_card(folder)
    change(folder / "model_index.json", _class_name="OVStableDiffusionPipeline")
    assert read_card(folder) == plain


def test_a_unet_that_takes_a_picture_besides_is_refused(folder: Path) -> None:
    change(folder / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    assert read_card(folder).family == "SD"
    change(folder / "unet" / "config.json", in_channels=9)
    assert refusal(folder).startswith(f"{folder / 'unet' / 'config.json'}: in_channels 9 is not served; 4 is, as ")


def test_a_refiner_is_refused(folder: Path) -> None:
    path = folder / "model_index.json"
    change(path, _class_name="StableDiffusionXLImg2ImgPipeline", requires_aesthetics_score=True)
    assert refusal(folder).startswith(f"{path}: requires_aesthetics_score true is not served; false is (a refiner ")


@pytest.mark.parametrize(
    ("file", "class_name", "served"),
    [
        *(("vae_decoder", name, "AutoencoderKL") for name in ("AutoencoderTiny", "AsymmetricAutoencoderKL")),
        ("unet", "UNetMotionModel", "UNet2DConditionModel"),
    ],
)
def test_a_part_of_another_class_is_refused_whatever_it_lacks(
    file: str, class_name: str, served: str, folder: Path
) -> None:
    path = folder / file / "config.json"
    path.write_text(json.dumps({"_class_name": class_name}))
    assert refusal(folder) == f"{path}: _class_name {class_name} is not served; {served} is"


def test_a_part_need_not_say_its_class(folder: Path) -> None:
    plain = read_card(folder)
    for unet, vae in ((None, "FlaxAutoencoderKL"), ("OVModelUnet", "OVModelVaeDecoder")):
        change(folder / "unet" / "config.json", _class_name=unet)
        change(folder / "vae_decoder" / "config.json", _class_name=vae)
        assert read_card(folder) == plain


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "sigma_data 0.5"),
        ({"_class_name": "EulerDiscreteScheduler", "beta_start": 0.1, "sigma_data": 1.0}, "sigma_data 1.0"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "_class_name EDMDPMSolverMultistepScheduler"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "_class_name FlowMatchEulerDiscreteScheduler"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type continuous"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas true"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "flow_prediction"}, "prediction_type flow_prediction"),
    ],
)
def test_a_model_of_other_noise_is_refused_and_no_name_is_asked_for(
    fields: dict[str, object], said: str, folder: Path
) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(fields))
    assert refusal(folder) == (
        f"{path}: {said} is not served, nor by another schedule: the model was trained with another kind of noise"
    )


@pytest.mark.parametrize("class_name", ["DEISMultistepScheduler", "DDPMScheduler", "DDIMScheduler", None])
def test_a_model_whose_own_schedule_is_not_served_is_read(class_name: object, folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    change(path, _class_name=class_name)
    assert read_card(folder).scheduler["_class_name"] == class_name
    if class_name in ("DDIMScheduler", None):  # of which it is known how noise rises if they do not say
        path.write_text(json.dumps({"_class_name": class_name}))
        assert read_card(folder).scheduler == {"_class_name": class_name}


# What a request gets that says nothing.


@pytest.fixture
def sdxl(folder: Path) -> Path:
    """A folder of SDXL's parts, as far as files are looked into, that says nothing of its own."""
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2", symlinks=True)
    change(folder / "model_index.json", _class_name="StableDiffusionXLPipeline")
    (folder / "generation_config.json").unlink()
    return folder


def test_sdxl_stands_for_an_empty_negative_prompt_by_zeros_unless_it_says_otherwise(sdxl: Path) -> None:
    assert read_card(sdxl).zero_negative is True
    for said in (False, True):
        change(sdxl / "model_index.json", force_zeros_for_empty_prompt=said)
        assert read_card(sdxl).zero_negative is said


def test_other_families_encode_an_empty_negative_prompt(folder: Path) -> None:
    assert read_card(folder).zero_negative is False
    change(folder / "model_index.json", force_zeros_for_empty_prompt=True)
    assert read_card(folder).zero_negative is False


def test_sdxl_s_guidance_is_that_of_diffusers_unless_the_folder_says_otherwise(sdxl: Path) -> None:
    assert (read_card(sdxl).steps, read_card(sdxl).guidance_scale) == (25, 5.0)
    (sdxl / "generation_config.json").write_text('{"guidance_scale": 6.5}')
    assert (read_card(sdxl).steps, read_card(sdxl).guidance_scale) == (25, 6.5)
    (sdxl / "generation_config.json").unlink()
    change(sdxl / "unet" / "config.json", time_cond_proj_dim=256)
    assert (read_card(sdxl).steps, read_card(sdxl).guidance_scale) == (4, 8.5)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        *((origin, (4, 0.0)) for origin in ("stabilityai/sdxl-turbo", "models/SD-Turbo")),
        ("/cache/models--stabilityai--sdxl-turbo/snapshots/71153311d3dbb46851df1931d3ca6e939de83304", (4, 0.0)),
        *((origin, (25, 5.0)) for origin in ("stabilityai/stable-diffusion-xl-base-1.0", "x/sdxl-turbonium", "", None)),
    ],
)
def test_turbo_models_are_asked_for_few_steps_without_guidance(
    origin: object, expected: tuple[int, float], sdxl: Path
) -> None:
    change(sdxl / "model_index.json", _name_or_path=origin)
    card = read_card(sdxl)
    assert (card.steps, card.guidance_scale) == expected
    (sdxl / "generation_config.json").write_text('{"num_inference_steps": 2, "guidance_scale": 1.5}')
    assert (read_card(sdxl).steps, read_card(sdxl).guidance_scale) == (2, 1.5)


def test_text_that_is_no_unicode_is_refused(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_bytes(b'{"_class_name": "\xff"}')
    assert refusal(folder).startswith(f"{path}: not JSON: ")


NEEDED = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "vae_decoder/config.json",
    *(f"{part}/openvino_model.{kind}" for part in PARTS for kind in ("xml", "bin")),
]


@pytest.mark.parametrize("file", NEEDED)
def test_a_missing_file_is_named(file: str, folder: Path) -> None:
    (folder / file).unlink()
    assert refusal(folder).startswith(f"{folder / file}: No such file or directory")


BROKEN = {
    b"": "not JSON: ",
    b"{": "not JSON: ",
    b"not JSON": "not JSON: ",
    b'{"a": NaN}': "not JSON: ",
    b'{"a": ' + b"[" * 100_000: "not JSON: ",
    b"[]": "Expected `object`, got `array`",
    b"null": "Expected `object`, got `null`",
}


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content)[:20])
@pytest.mark.parametrize("file", [*(file for file in NEEDED if file.endswith("json")), "generation_config.json"])
def test_broken_json_is_named(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / file}: {BROKEN[content]}")


@pytest.mark.parametrize(
    ("part", "key"), [("unet", "sample_size"), ("unet", "cross_attention_dim"), ("vae_decoder", "block_out_channels")]
)
def test_a_missing_key_is_named(part: str, key: str, folder: Path) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps({name: value for name, value in read(path).items() if name != key}))
    assert refusal(folder) == f"{path}: Object missing required field `{key}`"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        *(
            ("unet/config.json", "sample_size", value)
            for value in ("64", None, 0, -64, [64], [64, 64, 64], [64, 0], 1e9)
        ),
        *(("unet/config.json", "cross_attention_dim", value) for value in ([1, 2], 1 << 70, None)),
        ("unet/config.json", "in_channels", None),
        *(("unet/config.json", "block_out_channels", value) for value in (4, [1] * 1000)),
        ("unet/config.json", "time_cond_proj_dim", "256"),
        *(("vae_decoder/config.json", "block_out_channels", value) for value in (4, [], [1] * 1000)),
        ("vae_decoder/config.json", "scaling_factor", "0.2"),
        ("vae_decoder/config.json", "latents_mean", 0.1),
        *(("generation_config.json", "num_inference_steps", value) for value in (None, "25", 0)),
        ("generation_config.json", "guidance_scale", None),
        ("model_index.json", "force_zeros_for_empty_prompt", "yes"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(file: str, key: str, value: object, folder: Path) -> None:
    change(folder / file, **{key: value})
    said = refusal(folder)
    shown = value if isinstance(value, str) else json.dumps(value)
    assert said.startswith(f"{folder / file}: {key} {shown:.10}")
    assert " is not served: expected `" in said


@pytest.mark.parametrize("part", PARTS)
def test_cut_weights_are_refused_with_their_bytes(part: str, folder: Path) -> None:
    weights = ir(folder, part).with_suffix(".bin")
    whole = weights.stat().st_size
    weights.unlink()
    with weights.open("wb") as cut:
        cut.truncate(whole - 1)
    assert refusal(folder).startswith(f"{weights}: cut short: {whole - 1:,} bytes, {whole:,} needed")
    with weights.open("wb") as mended:
        mended.truncate(whole)
    assert read_card(folder).name == "fake"


@pytest.mark.parametrize("kept", [0, 1000, -len("</net>\n")])
@pytest.mark.parametrize("part", PARTS)
def test_a_cut_graph_is_refused(part: str, kept: int, folder: Path) -> None:
    xml = ir(folder, part)
    graph = xml.read_bytes()
    xml.unlink()
    xml.write_bytes(graph[:kept])
    assert refusal(folder).startswith(f"{xml}: cut short")


def test_what_is_no_folder_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model"
    assert refusal(path) == f"{path}: no such model folder"
    assert refusal(tmp_path / ("x" * 300)) == f"{tmp_path / ('x' * 300)}: no such model folder"
    path.touch()
    assert refusal(path) == f"{path}: a file; a model is a folder, as `optimum-cli export openvino` writes it"


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["sd.safetensors", "SD.CKPT", "sd.pt", "sd.pth"])
def test_a_single_file_checkpoint_is_told_how_to_be_converted(name: str, inside: bool, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    said = refusal(tmp_path if inside else tmp_path / name)
    assert said.startswith(f"{tmp_path / name}: a single-file checkpoint, which is not served; ")
    assert f"P.from_single_file('{tmp_path / name}').save_pretrained('unpacked')" in said
    assert "`optimum-cli export openvino --model unpacked --task text-to-image FOLDER`" in said


def test_lora_weights_are_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_lora_weights.safetensors"
    file.touch()
    assert refusal(tmp_path) == f"{file}: LoRA weights, which are not served, and no model"


@pytest.mark.parametrize("inside", [False, True])
def test_a_gguf_file_is_told_what_to_take_instead(inside: bool, tmp_path: Path) -> None:
    (tmp_path / "sd.gguf").touch()
    said = refusal(tmp_path if inside else tmp_path / "sd.gguf")
    assert said.startswith(f"{tmp_path / 'sd.gguf'}: a GGUF file, which is not served and cannot be converted; ")


@pytest.mark.parametrize("file", ["config.json", "model_index.json"])
def test_a_checkpoint_beside_a_model_is_no_matter(file: str, folder: Path, tmp_path: Path) -> None:
    (folder / "sd.safetensors").touch()
    assert read_card(folder).name == "fake"
    part = tmp_path / "part"
    part.mkdir()
    (part / "diffusion_pytorch_model.safetensors").touch()
    (part / file).touch()
    assert refusal(part).startswith(f"{part / 'model_index.json'}: ")


def test_the_lowest_number_of_diffusers_is_read(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    change(path, lambda_min_clipped=-math.inf)
    assert b"-Infinity" in path.read_bytes()
    assert read_card(folder).scheduler["lambda_min_clipped"] == -math.inf
    for other in ("NaN", "Infinity"):
        path.write_text(f'{{"a": {other}, "lambda_min_clipped": -Infinity}}')
        assert refusal(folder) == f"{path}: not JSON: {other} is no number"


@pytest.mark.parametrize(
    "file",
    [
        *("model_index.json", "generation_config.json", "scheduler/scheduler_config.json"),
        *("unet/config.json", "vae_decoder/config.json"),
    ],
)
def test_a_byte_order_mark_is_no_part_of_a_file(file: str, folder: Path) -> None:
    plain = read_card(folder)
    (folder / file).write_bytes(b"\xef\xbb\xbf" + (folder / file).read_bytes())
    assert read_card(folder) == plain


def test_textual_inversion_embeddings_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "learned_embeds.safetensors").touch()
    assert refusal(tmp_path) == f"{tmp_path}: textual-inversion embeddings, which are not served, and no model"


def test_latents_of_known_mean_and_deviation_are_put_back_by_channel(folder: Path) -> None:
    mean, std = [0.0, 1.0, -1.0, 2.0], [1.0, 2.0, 4.0, 8.0]
    change(folder / "vae_decoder" / "config.json", scaling_factor=0.5, latents_mean=mean, latents_std=std)
    card = read_card(folder)
    latents = np.full((4, 2, 2), 3.0, np.float32)
    decoded = card.to_decoder(latents)
    assert decoded[:, 0, 0].tolist() == [3 * s / 0.5 + m for m, s in zip(mean, std, strict=True)]
    assert card.from_decoder(decoded).tolist() == latents.tolist()


def test_latents_of_most_models_are_only_scaled() -> None:
    card = read_card(DEMO)
    latents = np.ones((4, 2, 2), np.float32)
    assert card.to_decoder(latents) == pytest.approx(1 / card.scaling_factor)
    assert card.from_decoder(card.to_decoder(latents)) == pytest.approx(latents)
