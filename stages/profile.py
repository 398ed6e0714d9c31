"""Measure one stage alone: `python -m stages.profile SPEC`, the spec as JSON.

The stage that is measured is the one that serves, on a private arena: what it does around its model counts. It stays
loaded; every line on stdin is a number of rows to measure it with, answered by a line of JSON on stdout
(stages.core.point.Point). How long that takes is bounded by `_ENOUGH_S`, or by `_LEAST` units of work where those are
longer.
"""

import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import assert_never

import msgspec
import numpy as np

from stages.core import cores, embeds
from stages.core.arena import Arena, Layout, SlotRef, View
from stages.core.batching import worth_compiling
from stages.core.board import Board, BoardWriter
from stages.core.config import StageSpec
from stages.core.errors import StartFailed, TriptychError
from stages.core.model import TOKENS, ModelCard, read_card
from stages.core.order import SchedulingKey
from stages.core.pipes import Fault, Finished, Input, Run
from stages.core.point import Point
from stages.core.route import STEPWISE, TEXT_TO_IMAGE, Pool
from stages.core.tasks import Decode, Denoise, EncodeText, Task
from stages.stage import Stage

_ENOUGH_S = 0.5
"""Seconds that one point is measured for, about, where units of work are short."""

_LEAST = 3
"""Units of work (for each stream) that a median is taken of, however long they are; the first one does not count."""

_MOST = 400


class Bench:
    """A stage with an arena of its own, loaded by hand as the hub would."""

    def __init__(self, spec: StageSpec, implementation: type[Stage]) -> None:
        layout = Layout(spec.pools)
        board = Board(spec.number + 1)
        self._arena = Arena(layout)
        self._view = View(self._arena.region.fd, layout, spec.number)
        self._spec = spec
        self._card: ModelCard = read_card(Path(spec.model))
        self._rows_of_a_job = self._card.rows(self._card.guidance_scale)
        self._count = 0
        self._outputs: dict[int, SlotRef] = {}
        """The output slots of the jobs that the stage has."""
        self._leg = next(leg for leg in TEXT_TO_IMAGE if leg.kind == spec.kind)
        self._inputs: tuple[Input, ...] = ()
        """The slots that all jobs read."""
        self.stage = implementation(spec, self._view, BoardWriter(board.region, spec.number))

    def load(self) -> None:
        """Load the stage. Raises what it raises."""
        self.stage.load()
        self._inputs = tuple(self._fill(pool) for pool in self._leg.reads)

    def measure(self, rows: int, clock: Callable[[], float] = time.monotonic) -> Point:
        """Time the unit of work of `rows` rows, all streams in flight."""
        streams = self._spec.streams
        jobs = 1
        if self._spec.kind == STEPWISE:
            if not worth_compiling(rows, self._spec.max_rows):  # smaller forwards would be run
                raise StartFailed(
                    f"no forward of {rows} rows is compiled where there are at most {self._spec.max_rows}"
                )
            self.stage.spec = msgspec.structs.replace(self._spec, max_rows=max(rows, 2))
            jobs = streams * rows // self._rows_of_a_job
        samples: list[float] = []
        self._unit(jobs)  # compiles, if it must
        self._unit(jobs)
        began, cpu = clock(), time.process_time()
        while len(samples) < _MOST and (len(samples) < _LEAST or clock() - began < _ENOUGH_S):
            start = clock()
            self._unit(jobs)
            samples.append(clock() - start)
        cpu_s = (time.process_time() - cpu) / len(samples) / streams
        self._leave()
        first, _, third = quantiles(samples, n=4)
        return Point(
            kind=self._spec.kind,
            cores=cores.render(cores.read_back(os.getpid())),
            threads=self._spec.threads,
            streams=streams,
            rows=rows,
            seconds=median(samples),
            spread_s=third - first,
            cpu_s=cpu_s,
            repeats=len(samples),
            rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            precision=self.stage.precision,
        )

    def _unit(self, jobs: int) -> None:
        """One unit of work for each stream, with `jobs` jobs there; new ones come for those that end, as they would."""
        for _ in range(self._spec.streams):
            while len(self._outputs) < jobs:
                self._admit()
            self._step()

    def _step(self) -> None:
        for report in self.stage.step():
            if isinstance(report, Finished | Fault):
                self._arena.free(self._outputs.pop(report.job))

    def _admit(self) -> None:
        self._count += 1
        job = self._count
        output = self._outputs[job] = self._arena.reserve(self._leg.writes, self._spec.number, job)
        self.stage.admit(Run(job, self._task(job), output, self._inputs, scheduling_key=SchedulingKey(float(job))))

    def _leave(self) -> None:
        """Drop all jobs, and finish the forwards they are in."""
        for job in self._outputs:
            self.stage.drop(job)
        while not self.stage.idle:
            self._step()
        for slot in self._outputs.values():
            self._arena.free(slot)
        self._outputs.clear()

    def _task(self, job: int) -> Task:
        """The task of job number `job`: none is done before, nor found in a cache."""
        card = self._card
        width, height = self._spec.sizes[0]
        match self._leg.task:
            case "encode_text":  # the negative prompt is in the cache, as a rule
                return EncodeText(f"a photo of {job} ships in a storm", guided=self._rows_of_a_job == 2)
            case "denoise":
                return Denoise(
                    width=width,
                    height=height,
                    steps=card.steps,
                    guidance_scale=card.guidance_scale,
                    schedule=self._spec.schedule or None,
                    seed=job,
                )
            case "decode":
                return Decode()
            case _:
                assert_never(self._leg.task)

    def _fill(self, pool: Pool) -> Input:
        """A sealed slot of `pool` with normal noise, float32."""
        card = self._card
        shape: tuple[int, ...]
        if pool == "embeds":
            shape = (self._rows_of_a_job, TOKENS, card.embed_dim)
            nbytes = embeds.nbytes(shape, card.pooled_dim)
        else:
            shape = card.latent_shape(*self._spec.sizes[0])
            nbytes = math.prod(shape) * 4
        slot = self._arena.reserve(pool, self._spec.number, 0)
        noise = self._view.write(slot)[:nbytes].view(np.float32)
        noise[...] = np.random.default_rng(0).standard_normal(noise.size, np.float32)
        self._view.seal(slot, nbytes)
        return Input(slot, shape)


def main() -> int:
    """Read the spec, pin, load, measure; one line for every number of rows, until stdin ends."""
    spec = msgspec.json.decode(sys.argv[1], type=StageSpec)
    # As in stages.__main__: before OpenVINO is imported, which looks at the mask when it starts its threads.
    cores.pin(cores.parse(spec.cores))
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    from stages.implementation import implementation

    try:
        bench = Bench(spec, implementation(spec))
        bench.load()
        if (seen := cores.read_back(os.getpid())) != cores.parse(spec.cores):
            raise StartFailed(f"asked for cores {spec.cores}, but its threads may run on {cores.render(seen)}")
        for rows in sys.stdin:
            print(msgspec.json.encode(bench.measure(int(rows))).decode(), flush=True)
    except TriptychError as error:
        print(error.message, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
