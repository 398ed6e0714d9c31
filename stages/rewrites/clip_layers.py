"""CLIP's text encoder with what each of its layers leaves, not only the last one."""

import openvino as ov
from openvino import opset13 as ops

from stages.core.errors import ModelError

_OUTPUT = "last_hidden_state"


def stack_layers(model: ov.Model) -> None:
    """Let `last_hidden_state`, now the only output, be [layers, 77, dim]: the last layer first, for one prompt.

    Each layer's state goes through the final layer norm, as the last one's does, which is what `clip_skip` means to
    diffusers. A layer norms its input before attention and once more before its MLP, so there are two norms a layer and
    the final one, each after the other; what a layer leaves is what the next one's first norm, or the final one, takes.
    Raises ModelError if that is not what is found.
    """
    norms = [node for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]
    if len(norms) < 3 or len(norms) % 2 == 0:
        raise ModelError("its layers cannot be told apart in this export")
    final = norms[-1].input(0)
    states = [norm.input_value(0) for norm in norms[:1:-2]]
    final.replace_source_output(ops.concat(states, axis=0).output(0))
    kept = model.output(_OUTPUT).get_node().get_friendly_name()
    for result in model.get_results():
        if result.get_friendly_name() != kept:
            model.remove_result(result)
    model.output(0).get_tensor().set_names({_OUTPUT})  # the same tensor may have been another output, of another name
