"""What a controller, or driving without one, earns: the scores that the studies have in common."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.policies import Policy
from data.rollouts import PolicyRunner
from envs.dream import DreamSettings
from envs.games import Game
from evolution.train import drive
from utils.dreams import dream_pool
from utils.rollouts import Episode, rollout_pool
from utils.run_folder import load_controller, load_dreams, load_game, load_world_weights
from utils.workers import WorkerPool, cores


def real_score(logdir: Path, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the episodes with these seeds, (E,) each, that the C of a run folder drives in the game's
    environment for training."""
    controller, (game, _) = load_controller(logdir), load_game(logdir)
    weights = load_world_weights(logdir, controller.sizes)
    episodes = [Episode(controller.to_vector().numpy(), seed) for seed in seeds]
    device, logs = torch.device("cpu"), logdir / "tmp"
    with rollout_pool(game, game.training_kind, weights, device, cores(), len(seeds), logs) as pool:
        return drive(pool, episodes, "real" if sys.stderr.isatty() else None)


def dreamed_score(logdir: Path, temperature: float, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The same in dreams of M."""
    controller = load_controller(logdir)
    dreams = load_dreams(logdir, DreamSettings(temperature))
    episodes = [Episode(controller.to_vector().numpy(), seed) for seed in seeds]
    with dream_pool(dreams, controller.sizes, cores(), len(seeds), logdir / "tmp") as pool:
        return drive(pool, episodes, "dreamed" if sys.stderr.isatty() else None)


def policy_lengths(game: Game, policy: Policy, seeds: list[int], logs: Path) -> np.ndarray:
    """How long driving without a controller goes on in real episodes with these seeds: steps (E,)."""
    whole = replace(game, shortest_rollout=0)
    arguments = [(whole, game.training_kind, policy)] * min(cores(), len(seeds))
    lengths = np.zeros(len(seeds), int)
    with WorkerPool(PolicyRunner, arguments, 2, logs) as pool:
        outcomes = pool.run((seed, [seed]) for seed in seeds)
        for number, outcome in tqdm(outcomes, "real", len(seeds), unit="episode", leave=False, disable=None):
            lengths[number] = outcome.length
    return lengths
