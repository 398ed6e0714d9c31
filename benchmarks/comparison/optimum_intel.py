"""optimum-intel: the pipeline code of diffusers over OpenVINO's models, compiled for one size of picture."""

from optimum.intel import OVDiffusionPipeline

from benchmarks.comparison.diffusers_torch import drawer
from benchmarks.comparison.work import Draw, Work


def load(work: Work) -> Draw:
    """The pipeline, reshaped and compiled."""
    pipeline = OVDiffusionPipeline.from_pretrained(
        work.model,
        device="CPU",
        compile=False,
        ov_config={"INFERENCE_PRECISION_HINT": work.precision},
        local_files_only=True,
    )
    if work.guidance_scale > 1:  # what its static shapes are made for
        pipeline.reshape(batch_size=1, height=work.height, width=work.width, num_images_per_prompt=1)
    pipeline.compile()
    return drawer(pipeline, work)
