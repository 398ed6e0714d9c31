"""The figures of `triptych bench` against those of an observer outside of it.

    python -m benchmarks.observer [--jobs N] [--in-flight N] [--set KEY=VALUE ...] [--json FILE]

Two runs of `triptych bench --json`, each as a child. In the first one it starts its own pipeline, and this process
sums the PSS of all descendants from /proc, loading included, and has the CPU time of them all from wait4, as
/usr/bin/time does. In the second one it is connected to a server through a relay in this process, which passes every
frame on and notes, on its own clock and with none of bench's code, when a prompt went by and when its answers did.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import zmq

from orchestrator.client.launch import private_pipeline

_EVERY_S = 0.2
_TIMES = ("p50", "p90", "p99")


def descendants(pid: int) -> list[int]:
    """Ids of all descendants of a process, from the parent ids in /proc/*/stat."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def pss_bytes(pid: int) -> int:
    """PSS of one process, in bytes; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def watch_processes(options: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of one run of bench: (by bench itself, by the observer)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "bench", "--json", *options], stdout=subprocess.PIPE, text=True
    )
    peak = 0
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(_EVERY_S):
            peak = max(peak, sum(pss_bytes(pid) for pid in descendants(child.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, _ = child.communicate()
    ended.set()
    sampler.join()
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise SystemExit(f"bench ended with status {child.returncode}")
    told = json.loads(output)
    spans = sum(one["span_s"] for level in told["levels"] for one in level["rounds"])
    used = sum(
        stage["cores_used"] * sum(one["span_s"] for one in level["rounds"])
        for level in told["levels"]
        for stage in level["stages"].values()
    )
    said = {"peak_pss_mib": told["peak_pss_bytes"] / (1 << 20), "stages_cpu_s": used, "played_s": spans}
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return said, {"peak_pss_mib": peak / (1 << 20), "all_cpu_s": cpu_s, "wall_s": seconds}


class Relay(threading.Thread):
    """A relay between bench and the server that notes when prompts and their answers pass."""

    def __init__(self, server: str, address: str) -> None:
        super().__init__(daemon=True)
        self.sent: list[float] = []
        """Times at which each prompt passed, in order, seconds of time.perf_counter."""
        self.done: dict[int, float] = {}
        """Times at which each prompt's last answer passed, by its place in `sent`."""
        self.images: list[float] = []
        self.ended = threading.Event()
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.bind(address)
        self._back = self._context.socket(zmq.DEALER)
        self._back.connect(server)

    def run(self) -> None:
        """Pass frames on until `ended` is set."""
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        client = b""
        places: dict[str, int] = {}
        while not self.ended.is_set():
            for socket, _ in poller.poll(100):
                frames = socket.recv_multipart()
                now = time.perf_counter()
                if socket is self._front:
                    client, *frames = frames
                    self._back.send_multipart(frames)
                    message = json.loads(frames[0])
                    if message["type"] == "submit":
                        places[message["id"]] = len(self.sent)
                        self.sent.append(now)
                else:
                    self._front.send_multipart([client, *frames])
                    message = json.loads(frames[0])
                    if message["type"] == "image":
                        self.images.append(now)
                    if message["type"] in ("done", "failed"):
                        self.done[places[message["id"]]] = now
        self._front.close(0)
        self._back.close(0)
        self._context.term()


def watch_prompts(jobs: int, in_flight: int, overrides: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of one round on a server that was there before: (by bench itself, by the relay)."""
    with tempfile.TemporaryDirectory() as folder, private_pipeline(None, overrides) as pipeline:
        relay = Relay(pipeline.address, f"ipc://{folder}/relay")
        relay.start()
        options = ["--connect", f"ipc://{folder}/relay", "--rounds", "1", "--jobs", str(jobs)]
        options += ["--warm-up", str(in_flight), "--arrivals", f"closed:{in_flight}"]
        command = [sys.executable, "-m", "orchestrator", "bench", "--json", *options]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        relay.ended.set()
        relay.join()
    told = json.loads(ended.stdout)
    said = {"images/s": told["images_per_s"]} | {f"latency {p}": told["latency_s"][p] for p in _TIMES}
    places = range(in_flight, in_flight + jobs)  # what was before is the warm-up
    latencies = [relay.done[place] - relay.sent[place] for place in places]
    began = relay.sent[in_flight]
    images = sum(at >= began for at in relay.images)
    rate = images / (max(relay.done[place] for place in places) - began)
    found = np.percentile(latencies, (50, 90, 99)).tolist()
    return said, {"images/s": rate} | {f"latency {p}": value for p, value in zip(_TIMES, found, strict=True)}


def main() -> None:
    """Run both and print the differences."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observer", description=__doc__)
    parser.add_argument("--jobs", type=int, default=48)
    parser.add_argument("--in-flight", type=int, default=6)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    options = ["--jobs", str(args.jobs), "--rounds", "1", "--arrivals", f"closed:{args.in_flight}"]
    said, seen = watch_processes([*options, *(f"--set={one}" for one in args.set)])
    told, passed = watch_prompts(args.jobs, args.in_flight, args.set)
    for name, (ours, theirs) in {
        "peak PSS, MiB": (said["peak_pss_mib"], seen["peak_pss_mib"]),
        **{name: (told[name], passed[name]) for name in told},
    }.items():
        print(f"{name:14s} bench {ours:9.3f}   outside {theirs:9.3f}   {ours / theirs - 1:+.2%}")
    print(f"the first run took {seen['wall_s']:.1f} s and {seen['all_cpu_s']:.1f} CPU s, starting included; ", end="")
    print(f"bench counts {said['played_s']:.1f} s of it, and {said['stages_cpu_s']:.1f} CPU s of its stages then")
    if args.json:
        args.json.write_text(json.dumps({"processes": [said, seen], "prompts": [told, passed]}))


if __name__ == "__main__":
    main()
