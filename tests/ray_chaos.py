"""Train C on a Ray cluster whose nodes are killed, and compare with a training on this machine that nothing disturbs.

    python tests/ray_chaos.py

Starts a head without cores and two nodes of one core on this machine. Every 20 seconds a random node is ended with
SIGKILL, as by a power cut, and another is started; midway, one more joins. At the end the two trainings must have the
same figures in every generation and the same weights. tests/test_ray.py is the short form.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import ROOT, children_of

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}  # bytes; Ray takes no less than 75 MiB
GAME = ["--pop-size", "4", "--n-samples", "4", "--eval-episodes", "8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20, help="from one death to the next")
    parser.add_argument("--seed", type=int, default=0, help="of who dies")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        os.environ |= {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
        runs = [Path(folder) / name for name in ("alone", "cluster")]
        for run in runs:
            for stage in ("vae", "mdrnn"):
                shutil.copytree(ROOT / "pretrained" / stage, run / stage)
        train(runs[0], args.generations).wait()
        print(f"undisturbed:\n{(runs[0] / 'output').read_text()}", flush=True)
        disturbed(runs[1], args)
        first, second = (torch.load(run / "ctrl" / "checkpoint.tar", weights_only=True) for run in runs)
    rows = [[row | {"seconds": 0} for row in state["history"]] for state in (first, second)]
    equal = sum(a == b for a, b in zip(*rows, strict=True))
    same = all(torch.equal(weight, second["state_dict"][name]) for name, weight in first["state_dict"].items())
    print(
        f"{equal} of {len(rows[0])} generations have equal figures; the final means are {'' if same else 'NOT '}equal"
    )
    sys.exit(not same or equal < len(rows[0]))


def train(logdir: Path, generations: int, *words: str) -> subprocess.Popen:
    """Start a training; what it prints goes to the file `output` in its folder."""
    command = [sys.executable, ROOT / "traincontroller.py", "--logdir", logdir, "--generations", generations]
    with (logdir / "output").open("w") as output:
        return subprocess.Popen([*map(str, command), *GAME, *words], stdout=output, stderr=subprocess.STDOUT)


def disturbed(logdir: Path, args: argparse.Namespace) -> None:
    """Train on a cluster while its nodes die."""
    cluster = Cluster(head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False}, initialize_head=True)
    for _ in range(2):
        cluster.add_node(**NODE)
    choice, deaths, joined = random.Random(args.seed), 0, False
    with train(logdir, args.generations, "--ray", cluster.address) as process:
        due = time.monotonic() + args.seconds
        while process.poll() is None:
            time.sleep(0.5)
            if not joined and f"generation {args.generations // 2}:" in (logdir / "output").read_text():
                cluster.add_node(**NODE)
                joined = True
                print(f"{time.strftime('%X')} one more node has joined", flush=True)
            if time.monotonic() > due:
                node = choice.choice(sorted(cluster.worker_nodes, key=lambda node: node.node_id))
                print(f"{time.strftime('%X')} one of {len(cluster.worker_nodes)} nodes dies", flush=True)
                kill_node(node)
                cluster.worker_nodes.discard(node)
                cluster.add_node(**NODE)
                deaths, due = deaths + 1, time.monotonic() + args.seconds
    cluster.shutdown()
    print(f"{deaths} nodes died; what the training printed:\n{(logdir / 'output').read_text()}")


def kill_node(node: Any) -> None:
    """End a node and what runs on it, as a power cut does."""
    (raylet,) = node.all_processes["raylet"]
    for pid in [raylet.process.pid, *children_of(raylet.process.pid)]:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
