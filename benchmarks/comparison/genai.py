"""OpenVINO GenAI as it comes: shapes are left open, so that any size and number of pictures may be asked for."""

import openvino_genai

from benchmarks.comparison.work import Draw, Pixels, Work


def load(work: Work) -> Draw:
    """The pipeline, compiled."""
    pipeline = openvino_genai.Text2ImagePipeline(work.model, "CPU", INFERENCE_PRECISION_HINT=work.precision)
    return drawer(pipeline, work)


def drawer(pipeline: openvino_genai.Text2ImagePipeline, work: Work) -> Draw:
    """One picture after another, with torch's noise."""
    options = work.options()

    def draw(prompt: str, seed: int) -> Pixels:
        picture = pipeline.generate(prompt, generator=openvino_genai.TorchGenerator(seed), **options)
        pixels: Pixels = picture.data[0].copy()
        return pixels

    return draw
