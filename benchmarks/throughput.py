"""Measure every stage beside the design of 2018, in one run.

    python benchmarks/throughput.py

Each work is done in turn by ours and by its reference (A B A B ...), on one core unless it says otherwise; the table
has the medians, and beside them what limits ours on this machine (benchmarks/limits.py). The machine should have
nothing else to do. Takes some 20 minutes. The second game's rows are those of benchmarks/takecover.py.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script's own folder is there, not the project's

from benchmarks import limits, ours, reference
from benchmarks.table import Table, rate
from data.loaders import load_rollout
from data.policies import POLICIES
from data.rollouts import PolicyRunner
from envs import make_env
from envs.games import CARRACING
from models.mdrnn import MDRNN
from models.vae import VAE
from models.world_model import Weights, world_weights
from utils.checkpoints import save_checkpoint
from utils.commandline import ScriptParser, run_script
from utils.precision import fast_dtype
from utils.provenance import processor


def driving_rows(table: Table, weights: Weights) -> None:
    fast, plain, clocked = make_env("fast"), make_env("gymnasium"), limits.CLOCKED.make("fast")
    ours.drive_random(CARRACING, fast, 10)  # compiles
    table.row(
        "environment steps",
        lambda: rate(lambda: ours.drive_random(CARRACING, fast, 8000)),
        lambda: rate(lambda: ours.drive_random(CARRACING, plain, 300)),
        "85",
        lambda: limits.world_rate(lambda: ours.drive_random(CARRACING, clocked, 4000)),
    )
    table.row(
        f"controller steps, {ours.LANE} cars in lockstep",
        lambda: ours.lockstep_rate(weights, ours.LANE, 200),
        lambda: rate(lambda: reference.controller_steps(200)),
        "70",
        lambda: ours.lockstep_limit(weights, ours.LANE, 100),
    )


def training_rows(table: Table, logdir: Path, dtype: torch.dtype) -> None:
    """logdir: with a V that M can be trained for."""
    generation, vision, memory = "generation, frames on disk", "V training, images", "M training, sequences of 32"
    runner, dataset = PolicyRunner(CARRACING, "fast", POLICIES["brown"]), logdir / "rollouts"
    clocked = limits.CLOCKED.make("fast")
    table.row(
        generation,
        lambda: rate(lambda: ours.generate(runner, dataset, range(8))),
        lambda: rate(lambda: reference.generated_frames(300, logdir / "reference.npz")),
        "40",
        lambda: limits.world_rate(lambda: ours.drive_random(CARRACING, clocked, 4000)),
    )
    if not table.measures(vision, memory):
        return
    ours.generate(runner, dataset, range(24))
    frames, actions = map(torch.from_numpy, load_rollout(dataset / "rollout_0.npz", ("observations", "actions")))
    table.row(
        vision,
        lambda: ours.training_rate("trainvae.py", logdir / "v", dataset, epochs=1),
        lambda: rate(lambda: len(reference.vae_training(frames))),
        "5",
        lambda: limits.peak(dtype) / limits.vae_training(ours.SIZES),
    )
    starts = torch.arange(32)[:, None] * 30 + torch.arange(33)
    table.row(
        memory,
        lambda: ours.training_rate("trainmdrnn.py", logdir, dataset, epochs=5),
        lambda: rate(lambda: len(reference.mdrnn_training(frames[starts], actions[starts[:, :-1]]))),
        "200",
        lambda: limits.peak(dtype) / (limits.TRAINING * 32 * limits.predicting(ours.SIZES)),
    )


def dreaming_rows(table: Table, mdrnn: MDRNN, logs: Path, dtype: torch.dtype) -> None:
    dreams = ours.some_dreams(CARRACING, mdrnn)
    with torch.inference_mode():
        table.row(
            "dream steps against M's matrix products alone",
            lambda: ours.dream_rate(dreams, 1, logs),
            lambda: rate(lambda: ours.matrix_products(mdrnn, 300)),
            "40,000 /s",
            lambda: limits.peak(dtype) / limits.predicting(ours.SIZES),
        )
    table.row(
        "dream steps: 2 workers against 1",
        lambda: ours.dream_rate(dreams, 2, logs),
        lambda: ours.dream_rate(dreams, 1, logs),
        "1.9",
        limit=2.0,
    )


def episode_rows(table: Table, weights: Weights, logs: Path) -> None:
    plain = make_env("gymnasium")
    table.row(
        "controller steps in whole episodes: 2 workers against 1",
        lambda: ours.episodes_rate(weights, 2, "fast", 2 * ours.LANE, logs),
        lambda: ours.episodes_rate(weights, 1, "fast", ours.LANE, logs),
        "1.9",
        limit=2.0,
    )
    table.row(
        "scoring in Gymnasium's renderer against its drawing alone",
        lambda: ours.episodes_rate(weights, 1, "gymnasium", 4, logs),
        lambda: rate(lambda: ours.drive_random(CARRACING, plain, 500)),
        "0.91",
        limit=1.0,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--only", metavar="WORDS", default="", help="measure only the rows whose names contain this")
    args = parser.parse_args(argv)
    every_core, dtype = os.sched_getaffinity(0), fast_dtype(ours.CPU)
    print(f"{processor()}, {len(every_core)} cores, {dtype}, ", end="")
    print(", ".join(f"{package} {version(package)}" for package in ("torch", "gymnasium", "numpy", "numba", "cma")))
    ours.one_core()
    for kind in dict.fromkeys((ours.FLOAT, dtype)):
        print(f"a large matrix product in {kind}, one core: {limits.peak(kind) / 1e9:,.0f} GFLOP/s")
    print()
    table = Table("design of 2018", args.only)
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        torch.manual_seed(0)
        vae, mdrnn = VAE(), MDRNN()
        save_checkpoint(logdir / "vae" / "best.tar", {"state_dict": vae.state_dict()})
        weights = world_weights(ours.SIZES, vae, mdrnn)
        driving_rows(table, weights)
        training_rows(table, logdir, dtype)
        os.sched_setaffinity(0, every_core)  # before the first pool: workers are where the server that forks them began
        dreaming_rows(table, mdrnn, logdir, dtype)
        episode_rows(table, weights, logdir)
        if not args.only:
            ours.one_core()
            print("\n| cars in lockstep | controller steps |\n|---|---|")
            for cars in (1, 4, 8, 16, 32, 64):
                print(f"| {cars} | {ours.lockstep_rate(weights, cars, 200):,.0f} /s |", flush=True)


if __name__ == "__main__":
    run_script(main)
