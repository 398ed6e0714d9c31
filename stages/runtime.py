"""OpenVINO, for all stages: read, reshape, compile, and bind tensors to memory that is already there."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from stages.core.board import BoardWriter
from stages.core.config import StageSpec
from stages.core.errors import ModelError
from stages.core.model import ir
from stages.numerics import SelfTest

log = logging.getLogger("stages")

_FLOATS = {"timestep"}
"""Inputs exported as integers that are fed as f32: some schedules have timesteps between two whole ones."""

_PRECISELY: Mapping[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""The options of f32. Where weights are compressed to 8 or 4 bits, activations would be rounded to 8 bits, too."""

Shapes = Mapping[str, Sequence[int]]
"""Input shapes by tensor name."""

Rewrite = Callable[[ov.Model], None]
"""An edit of a model's graph (stages.rewrites)."""


class Forward:
    """A compiled model of static shapes with one infer request. Tensors are bound, not copied."""

    def __init__(
        self, compiled: ov.CompiledModel, board: BoardWriter, precisely: "Callable[[], Forward] | None" = None
    ) -> None:
        """`precisely` makes the same forward in f32, for the case that this one's precision does not suffice."""
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._beacon = board
        self._precisely = precisely
        self._twin: Forward | None = None
        self._bound: dict[str, NDArray[np.generic]] = {}
        self.inputs = tuple(port.get_any_name() for port in compiled.inputs)
        self.outputs = tuple(name for port in compiled.outputs for name in port.get_names())
        self.precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    def another(self) -> "Forward":
        """One more infer request of the same compiled model, to be in flight beside this one."""
        return Forward(self._compiled, self._beacon, self._precisely)

    def bind(self, name: str, array: NDArray[np.generic]) -> None:
        """Let the input or output `name` be `array` (contiguous, of its shape and dtype) from now on.

        The array is kept alive; what lies in it when `infer` runs is read, and outputs appear in it.
        """
        if self._bound.get(name) is not array:
            self._request.set_tensor(name, ov.Tensor(array, shared_memory=True))
            self._bound[name] = array

    def allocate(self, name: str) -> NDArray[np.generic]:
        """Bind a fresh array of zeros to `name` and return it."""
        tensor = self._request.get_tensor(name)
        array = np.zeros(tuple(tensor.shape), dtype=tensor.element_type.to_dtype())
        self.bind(name, array)
        return array

    def infer(self) -> bool:
        """Run the model on what is bound: `start`, then `finish`."""
        self.start()
        return self.finish()

    def start(self) -> None:
        """Begin to run the model on what is bound, in the threads of a free stream."""
        self._beacon.forward_started()
        try:
            self._request.start_async()
        except Exception:
            self._beacon.forward_finished()
            raise

    def finish(self) -> bool:
        """Wait for what `start` began; whether the bound outputs are free of NaN and Inf.

        If they are not, the model is run once more, in f32.
        """
        try:
            self._request.wait()
        finally:
            self._beacon.forward_finished()
        if all(np.isfinite(self._bound[name]).all() for name in self.outputs if name in self._bound):
            return True
        return self._precisely is not None and self._infer_precisely(self._precisely)

    def _infer_precisely(self, precisely: "Callable[[], Forward]") -> bool:
        log.warning("NaN or Inf in %s; computed again in f32", self.precision)
        if self._twin is None:
            self._twin = precisely()
        for name, array in self._bound.items():
            self._twin.bind(name, array)
        return self._twin.infer()


class Runtime:
    """OpenVINO for one stage: its cores are already pinned, here its threads and precision are set."""

    def __init__(
        self, spec: StageSpec, board: BoardWriter, self_test: SelfTest | None = None, core: ov.Core | None = None
    ) -> None:
        self._spec = spec
        self._beacon = board
        self._core = core or ov.Core()
        self._options: dict[str, object] = {
            "INFERENCE_NUM_THREADS": spec.threads,
            "NUM_STREAMS": spec.streams,
            # Where stages share cores, binding would hold the threads of two processes to the same one.
            "ENABLE_CPU_PINNING": spec.bind_threads,
        }
        if spec.precision == "f32":
            self._options |= _PRECISELY
        elif spec.precision != "auto":
            self._options["INFERENCE_PRECISION_HINT"] = spec.precision
        self._told = spec.precision == "auto"
        """Whether the precision has been told, where it is not the one asked for."""
        self._self_test = self_test or SelfTest(ov.get_version())
        self._precise: dict[str, bool] = {}
        """Whether a part is computed in f32 because its own precision failed the self-test, by part."""

    def ranks(self, part: str) -> dict[str, int]:
        """The inputs of `part` by tensor name, with their numbers of dimensions. Raises ModelError."""
        return {port.get_any_name(): len(port.get_partial_shape()) for port in self._read(part).inputs}

    def table_rows(self, part: str, name: str) -> int | None:
        """Rows of the table that the integers in the input `name` of `part` pick from, as tokens do.

        None where the graph does not show it. Raises ModelError.
        """
        model = self._read(part)  # named, so that it outlives the look: its nodes do not keep their takers
        return _table_rows(model.input(name))

    def compile(self, part: str, shapes: Shapes, rewrite: Rewrite | None = None) -> Forward:
        """Compile `part` for exactly these input shapes. Raises ModelError.

        `rewrite` edits the graph first. Before the first forward of a part is handed out, it is tested against the
        same forward in f32; if it fails, f32 is what the part gets from then on.
        """

        def precisely() -> Forward:
            return self._compile(part, shapes, rewrite, _PRECISELY)

        if self._precise.get(part):
            return precisely()
        forward = self._compile(part, shapes, rewrite, {}, precisely)
        self._tell(forward.precision)
        if part not in self._precise:
            path = ir(Path(self._spec.model), part)
            passed = forward.precision == "f32" or self._self_test.passes(path, forward, precisely)
            self._precise[part] = not passed
            if not passed:
                log.warning("%s fails its self-test in %s on this CPU; f32 is used", part, forward.precision)
                return precisely()
        return forward

    def _tell(self, precision: str) -> None:
        """Say once, for all parts of the stage, that `precision` is what stands in for the one asked for."""
        if not self._told and precision != self._spec.precision:
            self._told = True
            log.warning(
                "model.precision is %s, which this CPU does not compute in; %s is used (name that one, or auto)",
                self._spec.precision,
                precision,
            )

    def _compile(
        self,
        part: str,
        shapes: Shapes,
        rewrite: Rewrite | None,
        options: Mapping[str, object],
        precisely: Callable[[], Forward] | None = None,
    ) -> Forward:
        model = self._read(part)
        if rewrite is not None:
            rewrite(model)
        for parameter in model.get_parameters():
            if _FLOATS & parameter.output(0).get_names():
                parameter.set_element_type(ov.Type.f32)
        try:
            model.validate_nodes_and_infer_types()
            model.reshape({name: ov.PartialShape(list(shape)) for name, shape in shapes.items()})
            compiled = self._core.compile_model(model, "CPU", self._options | dict(options))
        except RuntimeError as error:
            raise ModelError(f"{part}: cannot be compiled for {dict(shapes)}: {_last_line(error)}") from error
        return Forward(compiled, self._beacon, precisely)

    def _read(self, part: str) -> ov.Model:
        path = ir(Path(self._spec.model), part)
        try:
            model = self._core.read_model(path)
        except RuntimeError as error:
            raise ModelError(f"{path}: cannot be read: {_last_line(error)}") from error
        for number, port in enumerate(model.outputs):
            if not port.get_names():  # as some older exports have it
                port.get_tensor().set_names({f"output_{number}"})
        return model


_RESHAPING = ("Convert", "Reshape", "Squeeze", "Unsqueeze")
"""Operations that leave integers the numbers they are."""


def _table_rows(port: ov.Output) -> int | None:
    """Rows of the table that a Gather, reached over reshaping alone, picks from by the integers that leave `port`."""
    reached = [port]
    while reached:
        for taker in reached.pop().get_target_inputs():
            node, index = taker.get_node(), taker.get_index()
            if node.get_type_name() == "Gather" and index == 1:
                rows = node.input_value(0).get_partial_shape()[0]  # also of weights that are decompressed on the way
                return int(rows.get_length()) if rows.is_static else None
            if node.get_type_name() in _RESHAPING and index == 0:
                reached += node.outputs()
    return None


def _last_line(error: RuntimeError) -> str:
    """The sentence of an OpenVINO error that says what was wrong; the lines before it name its source files."""
    return str(error).strip().splitlines()[-1].strip()
