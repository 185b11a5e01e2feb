"""--ray: the cluster that a script drives its episodes on, in place of this machine's cores alone.

Ray is optional (requirements-ray.txt) and takes a second to import, so it is imported where a cluster is asked for.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from utils.commandline import UserError
from utils.provenance import ROOT
from utils.workers import Runner, cores

if TYPE_CHECKING:
    from utils.ray_pool import RayPool

LOCAL = "local"
ANSWER_WITHIN = 30  # seconds
# Bytes. Weights are in it, and in generation the rollouts on their way; Ray would take a third of the memory.
OBJECT_STORE = 256 * 2**20
# Where no cluster answers, Ray tries for minutes, and is not to be interrupted. A process can be killed.
PROBE = "import ray, sys; ray.init(sys.argv[1], logging_level='error', log_to_driver=False)"


@dataclass(frozen=True)
class RayCluster:
    """The cluster that this process is connected to."""

    most: int | None  # actors of a pool; None: as many as there are cores
    pools: int  # that have actors on the same cores

    @property
    def workers(self) -> int:
        """How many actors a pool has, with the machines that are there now; at least one, for one that is to come."""
        from utils.ray_pool import cores_of, working_nodes

        there = max(sum(map(cores_of, working_nodes())), 1)
        return there if self.most is None else min(there, self.most)

    def pool(
        self, make_runner: Callable[..., Runner], arguments: tuple, capacity: int, jobs: int, on_gpu: bool = False
    ) -> "RayPool":
        """A pool for so many jobs at a time; the rest is as in RayPool."""
        from utils.ray_pool import RayPool

        most = jobs if self.most is None else min(self.most, jobs)
        return RayPool(make_runner, arguments, capacity, most, 1 / self.pools, on_gpu)


def add_ray_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help=f"drive on this Ray cluster: host:port, auto for the one that this machine is in, or {LOCAL} for one of "
        "its own",
    )


@contextmanager
def open_cluster(address: str | None, most: int | None, pools: int = 1) -> Iterator[RayCluster | None]:
    """The cluster for --ray, for so many pools at a time of so many actors at most; None if none is asked for.

    Raises UserError if Ray is missing, or no cluster of the same Ray and Python answers within 30 seconds.
    """
    if address is None:
        yield None
        return
    if find_spec("ray") is None:
        raise UserError("--ray: Ray is not installed: python -m pip install -r requirements-ray.txt")
    import ray

    options: dict[str, Any] = {"address": address, "logging_level": "error", "log_to_driver": False}
    if address == LOCAL:
        options |= {"num_cpus": most or cores(), "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    else:
        _probe(address)
    # What the actors import is the checkout at this path on their own machine.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options, runtime_env={"env_vars": {"PYTHONPATH": path}})
    except Exception as error:  # Ray raises plain ones, too: of a node that does not start in time, for one
        raise UserError(f"--ray {address}: {_explain(str(error))}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray takes the signal for itself
    try:
        yield RayCluster(most, pools)
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Raises UserError if this machine cannot connect to the cluster."""
    command = [sys.executable, "-c", PROBE, address]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_WITHIN)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"--ray {address}: no cluster answers within {ANSWER_WITHIN} seconds; start one as in docs/SCALING.md"
        ) from None
    if result.returncode:
        raise UserError(f"--ray {address}: {_explain(result.stderr)}; see docs/SCALING.md")


def _explain(output: str) -> str:
    """What Ray says of why it does not start, in a line."""
    releases = re.findall(r"^\s+(?:Ray|Python): (\S+)$", output, re.M)
    if "Version mismatch" in output and len(releases) >= 4:
        theirs, python, ours, own = releases[:4]
        return f"the cluster has Ray {theirs} and Python {python}, this machine Ray {ours} and Python {own}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray does not start"
