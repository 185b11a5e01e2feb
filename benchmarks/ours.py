"""What throughput.py measures of ours: each function does some work, or tells how fast it was done."""

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import limits
from benchmarks.table import rate
from data.policies import POLICIES
from data.rollouts import PolicyRunner, save_rollout
from envs.dream import DreamSettings, Starts
from envs.games import CARRACING, Game
from models.dream import dream_weights
from models.mdrnn import MDRNN
from models.world_model import Weights
from utils.dreams import MAX_DREAMS, Dreams, dream_pool
from utils.precision import fast_dtype
from utils.rollouts import MAX_ENVIRONMENTS, Episode, EpisodeRunner, rollout_pool

ROOT = Path(__file__).resolve().parents[1]
CPU, FLOAT = torch.device("cpu"), torch.float32
SIZES = CARRACING.sizes
LANE = MAX_ENVIRONMENTS


def drive_random(game: Game, environment: gymnasium.Env, steps: int) -> int:
    """Steps of the game's random driving, resets included."""
    environment.reset(seed=0)
    for action in POLICIES[game.policy](np.random.default_rng(0), game.sizes, steps):
        _, _, terminated, truncated, _ = environment.step(action)
        if terminated or truncated:
            environment.reset()
    return steps


def lockstep(game: Game, weights: Weights, environments: int) -> EpisodeRunner:
    """A process under way with as many episodes, past the frames in which the camera zooms."""
    runner = EpisodeRunner(game, "fast", weights, environments, "cpu", fast_dtype(CPU))
    controllers = np.random.default_rng(0).normal(scale=0.03, size=(environments, SIZES.controller)).astype(np.float32)
    for number, controller in enumerate(controllers):
        runner.submit(number, Episode(controller, number))
    drive_ticks(runner, 60)
    return runner


def drive_ticks(runner: EpisodeRunner, ticks: int) -> int:
    """So many steps of every episode under way; returns the number of steps, without resets."""
    driven = 0
    for _ in range(ticks):
        driven += sum(len(lane.drives) for lane in runner.lanes)
        runner.advance()
    return driven


def lockstep_rate(weights: Weights, environments: int, ticks: int) -> float:
    """Controller steps a second of one process."""
    runner = lockstep(CARRACING, weights, environments)
    return rate(lambda: drive_ticks(runner, ticks))


def lockstep_limit(weights: Weights, environments: int, ticks: int) -> float:
    """The same, if only Box2D, the drawing and the models' multiplications took time."""
    runner = lockstep(limits.CLOCKED, weights, environments)
    world = limits.world_rate(lambda: drive_ticks(runner, ticks))
    operations = limits.encoding(SIZES) / limits.peak(fast_dtype(CPU)) + limits.remembering(SIZES) / limits.peak(FLOAT)
    return limits.both(world, 1 / operations)


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
