"""OpenVINO GenAI, compiled for one size of picture and one picture at a time."""

import openvino_genai

from benchmarks.comparison.genai import drawer
from benchmarks.comparison.work import Draw, Work


def load(work: Work) -> Draw:
    """The pipeline, reshaped and compiled."""
    pipeline = openvino_genai.Text2ImagePipeline(work.model)
    pipeline.reshape(1, work.height, work.width, work.guidance_scale)
    pipeline.compile("CPU", INFERENCE_PRECISION_HINT=work.precision)
    return drawer(pipeline, work)
