"""Measure every stage beside the design of 2018, in one run.

    python benchmarks/throughput.py

Each work is done in turn by ours and by its reference (A B A B ...), on one core unless it says otherwise; the table
has the medians. The machine should have nothing else to do. Takes some 15 minutes. The second game's rows are those of
benchmarks/takecover.py.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the script's own folder is there, not the project's

from benchmarks import reference  # noqa: E402
from data.loaders import load_rollout  # noqa: E402
from data.policies import POLICIES  # noqa: E402
from data.rollouts import PolicyRunner, save_rollout  # noqa: E402
from envs import make_env  # noqa: E402
from envs.dream import DreamSettings, Starts  # noqa: E402
from envs.games import CARRACING, Game  # noqa: E402
from models.dream import dream_weights  # noqa: E402
from models.mdrnn import MDRNN  # noqa: E402
from models.vae import VAE  # noqa: E402
from models.world_model import Weights, world_weights  # noqa: E402
from utils.checkpoints import save_checkpoint  # noqa: E402
from utils.commandline import ScriptParser, run_script  # noqa: E402
from utils.dreams import MAX_DREAMS, Dreams, dream_pool  # noqa: E402
from utils.precision import fast_dtype  # noqa: E402
from utils.provenance import processor  # noqa: E402
from utils.rollouts import MAX_ENVIRONMENTS, Episode, EpisodeRunner, rollout_pool  # noqa: E402

CPU = torch.device("cpu")
ROUNDS = 3
SIZES = CARRACING.sizes
LANE = MAX_ENVIRONMENTS


def rate(work: Callable[[], int]) -> float:
    """How many of the things that `work` returns the number of are done in a second."""
    start = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - start)


def compare(name: str, ours: Callable[[], float], theirs: Callable[[], float], aim: str) -> None:
    """Print one row of the table."""
    rates = [(ours(), theirs()) for _ in range(ROUNDS)]
    a, b = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in rates)
    print(f"| {name} | {a:,.0f} /s | {b:,.1f} /s | {ratio:.1f} | {aim} |", flush=True)


def drive_random(game: Game, environment, steps: int) -> int:
    """Steps of the game's random driving, resets included."""
    environment.reset(seed=0)
    for action in POLICIES[game.policy](np.random.default_rng(0), game.sizes, steps):
        _, _, terminated, truncated, _ = environment.step(action)
        if terminated or truncated:
            environment.reset()
    return steps


def lockstep_rate(weights: Weights, environments: int, ticks: int, dtype: torch.dtype) -> float:
    """Controller steps a second of one process, resets left out (they are measured with the episodes)."""
    runner = EpisodeRunner(CARRACING, "fast", weights, environments, "cpu", dtype)
    controllers = np.random.default_rng(0).normal(scale=0.03, size=(environments, SIZES.controller)).astype(np.float32)
    for number, controller in enumerate(controllers):
        runner.submit(number, Episode(controller, number))
    for _ in range(60):  # past the zooming frames
        runner.advance()
    return rate(lambda: sum(drive_tick(runner) for _ in range(ticks)))


def drive_tick(runner: EpisodeRunner) -> int:
    """One step of every episode under way; returns how many there were."""
    driven = sum(len(lane.drives) for lane in runner.lanes)
    runner.advance()
    return driven


def episodes_rate(weights: Weights, workers: int, kind: str, episodes: int, logs: Path) -> float:
    """Controller steps a second of a pool on whole episodes, resets and the tail included."""
    controller = np.zeros(SIZES.controller, dtype=np.float32)
    jobs = [Episode(controller, track) for track in range(episodes)]
    with rollout_pool(CARRACING, kind, weights, CPU, workers, episodes, logs) as pool:
        list(pool.run(jobs[:workers]))  # the workers are awake
        return rate(lambda: sum(outcome.length for _, outcome in pool.run(jobs)))


def some_dreams(game: Game, mdrnn: MDRNN) -> Dreams:
    """Dreams of an untrained M that do not end before their limit of steps."""
    sizes = game.sizes
    with torch.no_grad():
        mdrnn.gmm_linear.bias[-1] = -9  # the logit of an end
    blank = np.zeros((1, sizes.latent), np.float32), np.zeros((1, sizes.hidden), np.float32)
    starts = Starts(blank[0], blank[0], blank[1], blank[1], np.zeros(1))
    return Dreams(game, dream_weights(mdrnn), starts, DreamSettings(horizon=1000, dtype=fast_dtype(CPU)))


def dream_rate(dreams: Dreams, workers: int, logs: Path) -> float:
    """Dream steps a second of a pool, each worker with as many dreams as it holds at once."""
    sizes = dreams.game.sizes
    jobs = [Episode(np.zeros(sizes.controller, np.float32), seed) for seed in range(workers * MAX_DREAMS)]
    with dream_pool(dreams, sizes, workers, len(jobs), logs) as pool:
        list(pool.run(jobs[:workers]))  # the workers are awake
        return rate(lambda: sum(outcome.length for _, outcome in pool.run(jobs)))


def matrix_products(mdrnn: MDRNN, rounds: int) -> int:
    """What dream steps cannot do without: the products with M's weights. Returns the number of steps."""
    dtype = fast_dtype(CPU)
    of_input, of_state, *_ = mdrnn.rnn.parameters()
    gates, head = torch.cat([of_input, of_state], dim=1).to(dtype), mdrnn.gmm_linear.weight.to(dtype)
    seen, hidden = (torch.randn(MAX_DREAMS, weight.shape[1]).to(dtype) for weight in (gates, head))
    for _ in range(rounds):
        F.linear(seen, gates)
        F.linear(hidden, head)
    return rounds * MAX_DREAMS


def generate(runner: PolicyRunner, dataset: Path, numbers: Iterable[int]) -> int:
    """Drive rollouts and write them; returns the number of frames."""
    frames = 0
    for number in numbers:
        runner.submit(number, (number, [number]))
        for _, outcome in runner.advance():
            save_rollout(dataset / f"rollout_{number}.npz", outcome.record)
            frames += outcome.length
    return frames


def training_rate(script: str, logdir: Path, dataset: Path, epochs: int) -> float:
    """What a training script says of its own speed: the median over the epochs."""
    options = ["--logdir", str(logdir), "--dataset", str(dataset), "--epochs", str(epochs)]
    command = [sys.executable, str(ROOT / script), *options]
    output = subprocess.run([*command, "--noreload", "--nosamples"], capture_output=True, text=True, check=True).stdout
    return statistics.median(float(speed) for speed in re.findall(r"at (\d+) a second", output))


def one_core() -> None:
    """Pin this process and those it starts to one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def main(argv: Sequence[str] | None = None) -> None:
    ScriptParser(__file__, __doc__).parse_args(argv)
    every_core = os.sched_getaffinity(0)
    print(f"{processor()}, {len(every_core)} cores, {fast_dtype(CPU)}, ", end="")
    print(", ".join(f"{package} {version(package)}" for package in ("torch", "gymnasium", "numpy", "numba", "cma")))
    print("\n| work | ours | design of 2018 | ratio | aim |\n|---|---|---|---|---|")

    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder)
        torch.manual_seed(0)
        vae, mdrnn = VAE(), MDRNN()
        save_checkpoint(logdir / "vae" / "best.tar", {"state_dict": vae.state_dict()})
        weights = world_weights(SIZES, vae, mdrnn)
        one_core()

        fast, plain = make_env("fast"), make_env("gymnasium")
        drive_random(CARRACING, fast, 10)
        compare(
            "environment steps",
            lambda: rate(lambda: drive_random(CARRACING, fast, 8000)),
            lambda: rate(lambda: drive_random(CARRACING, plain, 300)),
            "60 (physics alone: 94)",
        )
        compare(
            f"controller steps, {LANE} cars in lockstep",
            lambda: lockstep_rate(weights, LANE, 200, fast_dtype(CPU)),
            lambda: rate(lambda: reference.controller_steps(200)),
            "70",
        )
        runner, dataset = PolicyRunner(CARRACING, "fast", POLICIES["brown"]), logdir / "rollouts"
        compare(
            "generation, frames on disk",
            lambda: rate(lambda: generate(runner, dataset, range(8))),
            lambda: rate(lambda: reference.generated_frames(300, logdir / "reference.npz")),
            "40",
        )
        generate(runner, dataset, range(8, 24))
        frames, actions = map(torch.from_numpy, load_rollout(dataset / "rollout_0.npz", ("observations", "actions")))
        compare(
            "V training, images",
            lambda: training_rate("trainvae.py", logdir / "v", dataset, epochs=1),
            lambda: rate(lambda: len(reference.vae_training(frames))),
            "5",
        )
        starts = torch.arange(32)[:, None] * 30 + torch.arange(33)
        compare(
            "M training, sequences of 32",
            lambda: training_rate("trainmdrnn.py", logdir, dataset, epochs=5),
            lambda: rate(lambda: len(reference.mdrnn_training(frames[starts], actions[starts[:, :-1]]))),
            "200",
        )
        os.sched_setaffinity(0, every_core)  # before the first pool: workers are where the server that forks them began
        dreams = some_dreams(CARRACING, mdrnn)
        with torch.inference_mode():
            compare(
                "dream steps against M's matrix products alone",
                lambda: dream_rate(dreams, 1, logdir),
                lambda: rate(lambda: matrix_products(mdrnn, 300)),
                "40,000 /s",
            )
        compare(
            "dream steps: 2 workers against 1",
            lambda: dream_rate(dreams, 2, logdir),
            lambda: dream_rate(dreams, 1, logdir),
            "1.9",
        )
        compare(
            "controller steps in whole episodes: 2 workers against 1",
            lambda: episodes_rate(weights, 2, "fast", 2 * LANE, logdir),
            lambda: episodes_rate(weights, 1, "fast", LANE, logdir),
            "1.9",
        )
        compare(
            "scoring in Gymnasium's renderer against its drawing alone",
            lambda: episodes_rate(weights, 1, "gymnasium", 4, logdir),
            lambda: rate(lambda: drive_random(CARRACING, plain, 500)),
            "0.91",
        )
        one_core()
        print("\n| cars in lockstep | controller steps |\n|---|---|")
        for cars in (1, 4, 8, 16, 32, 64):
            print(f"| {cars} | {lockstep_rate(weights, cars, 6000 // cars, fast_dtype(CPU)):,.0f} /s |", flush=True)


if __name__ == "__main__":
    run_script(main)
