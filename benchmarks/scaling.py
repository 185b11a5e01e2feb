"""Measure what --ray costs, on nodes of one core on this machine, and compute from it what 64 and 1,024 cores would do.

    python -m benchmarks.scaling

The machine should have two cores and nothing else to do. Takes some 10 minutes. Every node is pinned to a core of its
own; the head has none, the driver and it run where there is room. docs/SCALING.md has the model.
"""

import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster

from envs.games import CARRACING
from models.world_model import Weights
from utils.commandline import ScriptParser, positive_float, positive_int, run_script
from utils.precision import fast_dtype
from utils.provenance import ROOT, processor
from utils.ray_cluster import RayCluster, open_cluster
from utils.rollouts import MAX_ENVIRONMENTS, Episode, Outcome, rollout_pool
from utils.run_folder import load_controller, load_world_weights

CPU = torch.device("cpu")
ROUNDS = 3
CALLS = 2000
CLUSTERS = (2, 64, 1024)  # cores
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}  # bytes


class Instant:
    """A Runner whose episodes take no time."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    @property
    def busy(self) -> bool:
        return bool(self._numbers)

    def submit(self, number: int, job: Any) -> None:
        self._numbers.append(number)

    def advance(self) -> list[tuple[int, Outcome]]:
        finished = [(number, Outcome(1.0, 1)) for number in self._numbers]
        self._numbers = []
        return finished


class Sleeper:
    def sleep(self) -> None:
        time.sleep(60)


def received() -> int:
    """Bytes that have come in over this machine's connections with itself."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    return 0


def costs(cluster: RayCluster, job: Episode) -> dict[str, float]:
    """What a call with one episode costs, its driving left out: seconds of latency, seconds of the driver's processor,
    bytes on the wire."""
    with cluster.pool(Instant, (), capacity=1, jobs=CALLS) as pool:
        list(pool.run([job] * 10))
        latencies = []
        for _ in range(200):
            start = time.perf_counter()
            list(pool.run([job]))
            latencies.append(time.perf_counter() - start)
        background, start = received(), time.perf_counter()
        time.sleep(5)
        idle = (received() - background) / (time.perf_counter() - start)
        before, start, busy = received(), time.perf_counter(), time.process_time()
        list(pool.run([job] * CALLS))
        busy, seconds = time.process_time() - busy, time.perf_counter() - start
        sent = received() - before - idle * seconds
    return {"latency": statistics.median(latencies), "call": busy / CALLS, "bytes": sent / CALLS}


def looking(cores: int) -> float:
    """Seconds that the driver takes to look which of so many calls are answered."""
    sleeper: Any = ray.remote(Sleeper)
    handle = sleeper.options(num_cpus=0).remote()
    calls = [handle.sleep.remote() for _ in range(cores)]
    times = []
    for _ in range(20):
        start = time.process_time()
        ray.wait(calls, num_returns=len(calls), timeout=0)
        times.append(time.process_time() - start)
    ray.kill(handle)
    return 2 * statistics.median(times)  # RayPool looks twice


def driving(cluster: RayCluster | None, weights: Weights, episodes: int, controller: np.ndarray) -> tuple[float, float]:
    """Episodes and steps a second of a pool, on one core of this machine if there is no cluster."""
    with (
        tempfile.TemporaryDirectory() as logs,
        rollout_pool(CARRACING, "fast", weights, CPU, 1, episodes, Path(logs), cluster=cluster) as pool,
    ):
        list(pool.run([Episode(controller, track, patience=1) for track in range(2 * episodes)]))  # all are awake
        start = time.perf_counter()
        steps = sum(
            outcome.length for _, outcome in pool.run([Episode(controller, track) for track in range(episodes)])
        )
        seconds = time.perf_counter() - start
    return episodes / seconds, steps / seconds


def compute(cores: int, rate: float, cost: dict[str, float], look: float) -> tuple[float, str]:
    """The share of their time that so many cores drive, each at so many episodes a second; and what limits them.

    An answer waits until the driver has looked through all calls, and for the answers before it.
    """
    load = cores * rate * cost["call"]  # of the driver, which is one process
    if load >= 1:
        return 1 / load, "the driver"
    waiting = cost["latency"] + look / (1 - load)
    return 1 / (1 + rate * waiting), "waiting for the driver"


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--episodes", type=positive_int, default=2 * MAX_ENVIRONMENTS, help="for every core")
    parser.add_argument(
        "--rate", type=positive_float, nargs="*", default=[], help="compute for these episodes a second of a core, too"
    )
    args = parser.parse_args(argv)
    model = load_controller(ROOT / "pretrained")
    controller, weights = model.to_vector().numpy(), load_world_weights(ROOT / "pretrained", model.sizes)
    load = os.getloadavg()[0]
    print(f"{processor()}, {fast_dtype(CPU)}, ray {ray.__version__}; {load:.1f} other processes ran as this began")

    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        os.environ |= {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
        nodes = Cluster(head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False}, initialize_head=True)
        every_core = sorted(os.sched_getaffinity(0))
        for core in every_core[:2]:
            os.sched_setaffinity(0, {core})
            nodes.add_node(**NODE)
        os.sched_setaffinity(0, every_core)
        with open_cluster(nodes.address, most=None) as cluster:
            assert cluster is not None
            job = Episode(controller, 0)
            cost = costs(replace(cluster, most=1), job)
            looks = {cores: looking(cores) for cores in CLUSTERS}
            rates: dict[str, list[tuple[float, float]]] = {}
            for _ in range(ROUNDS):
                for name, where, count in (
                    ("a process, without Ray", None, 1),
                    ("1 node", replace(cluster, most=1), 1),
                    ("2 nodes", replace(cluster, most=2), 2),
                ):
                    rates.setdefault(name, []).append(driving(where, weights, count * args.episodes, controller))
        nodes.shutdown()

    size = len(pickle.dumps([(0, job)])), len(pickle.dumps([(0, Outcome(1.0, 1))]))
    weight = sum(array.nbytes for array in weights.parameters.values())
    print(f"| an episode there and back, pickled | {size[0]:,} + {size[1]:,} bytes |\n|---|---|")
    print(f"| the same on the wire, with what Ray adds | {cost['bytes']:,.0f} bytes |")
    print(f"| weights of V and M, once for every machine | {weight / 1e6:.1f} MB |")
    print(f"| a call and its answer | {1e3 * cost['latency']:.1f} ms |")
    print(f"| processor time of the driver for a call | {1e3 * cost['call']:.2f} ms |")
    print("\n| where | episodes /s | steps /s | of 1 node's, for each core |\n|---|---|---|---|")
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in rates.items()
    }
    for name, (episodes, steps) in medians.items():
        share = steps / medians["1 node"][1] / (2 if name == "2 nodes" else 1)
        print(f"| {name} | {episodes:.2f} | {steps:,.0f} | {share:.2f} |")
    print("\n| cores | episodes /s of a core | computed efficiency | limit | candidates, of 4 episodes each |")
    print("|---|---|---|---|---|")
    for rate in [medians["1 node"][0], *args.rate]:
        for cores, look in looks.items():
            efficiency, limit = compute(cores, rate, cost, look)
            population = cores * MAX_ENVIRONMENTS // 4
            print(f"| {cores:,} | {rate:.2f} | {efficiency:.3f} | {limit} | {population:,} |")


if __name__ == "__main__":
    run_script(main)
