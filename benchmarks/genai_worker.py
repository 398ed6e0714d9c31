"""An OpenVINO GenAI process, for comparison: reads numbers of images on stdin, answers with seconds on stdout.

    python -m benchmarks.genai_worker MODEL STEPS GUIDANCE WIDTH HEIGHT [CORES]

Static shapes. With CORES, a Linux CPU list, the process is pinned before OpenVINO starts its threads.
"""

import sys
import time

from stages.core import cores

PROMPT = "a photo of an astronaut riding a horse on mars"
NEGATIVE = "low resolution, blurry"


def main() -> None:
    """Load, say so, then work as told until stdin ends."""
    model, steps, guidance, width, height, *mask = sys.argv[1:]
    if mask:
        cores.pin(cores.parse(mask[0]))
    import openvino_genai

    guided = float(guidance) > 1
    pipe = openvino_genai.Text2ImagePipeline(model)
    pipe.reshape(1, int(height), int(width), float(guidance))
    pipe.compile("CPU")
    options: dict[str, object] = {
        "num_inference_steps": int(steps),
        "guidance_scale": float(guidance),
        "width": int(width),
        "height": int(height),
    }
    if guided:
        options["negative_prompt"] = NEGATIVE

    def generate(seed: int) -> None:
        pipe.generate(PROMPT, generator=openvino_genai.TorchGenerator(seed), **options)

    generate(0)
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.monotonic()
        for seed in range(int(line)):
            generate(seed)
        print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main()
