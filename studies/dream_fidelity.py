"""Does evolving in M's dream make sense? Dreamed returns beside real ones, for controllers of different quality.

    python -m studies.dream_fidelity --logdir exp_dir

The controllers lie between one that puts out zeros and C of the run folder, and around it. Each drives selection tracks
in the real environment, and as many dreams. Prints how the mean returns of both correlate over the controllers, by the
dream's horizon and by where dreams begin, and writes to exp_dir/mdrnn: fidelity.json, fidelity.png (returns, survival,
correlation over the horizon), strip.png (what C sees in reality, and in a dream from the same frame) and a point on M's
curves in TensorBoard.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from data.encoding import encode
from data.rollouts import RolloutRecorder
from envs.dream import DreamBatch, DreamSettings
from envs.games import Game
from models.controller import Controller, drive_batch
from models.sizes import Sizes
from models.vae import to_images
from models.world_model import padded
from studies.strips import save_strip
from utils.checkpoints import file_to_resume, load_checkpoint
from utils.commandline import ScriptParser, positive_float, positive_int, run_script
from utils.dreams import Dreams
from utils.files import write_json
from utils.locks import locked
from utils.logs import CurveWriter
from utils.rollouts import Episode, Recorder, drive_episode, rollout_pool
from utils.run_folder import load_controller, load_dreams, load_driver, load_vae, load_world_weights
from utils.tracks import selection_tracks
from utils.workers import cores

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of C in a controller; the rest is zeros
NOISES = (0.1, 0.2, 0.4, 0.8)  # deviation of what is added to C's weights, as a share of theirs
COPIES = 2  # controllers for each noise
HORIZONS = (50, 100, 200, 300, 500, 1000)
STRIP_STEPS = range(0, 300, 25)


class Episodes(NamedTuple):
    """K controllers in E episodes each, of T steps at most."""

    rewards: np.ndarray  # (K, E, T): after the end what idling earns, or nothing if the episode ended by itself
    lengths: np.ndarray  # (K, E): steps until it ended, by itself or as hopeless


class RewardRecorder(Recorder):
    """The rewards of an episode (T,), and whether it ended by itself."""

    def __init__(self) -> None:
        self._rewards: list[float] = []
        self._ended = False

    def act(self, environment: gymnasium.Env, action: np.ndarray, reward: float, terminated: bool) -> None:
        self._rewards.append(reward)
        self._ended = terminated

    def result(self) -> tuple[np.ndarray, bool]:
        return np.array(self._rewards), self._ended


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V, M and C")
    parser.add_argument("--episodes", type=positive_int, default=16, help="real episodes, and dreams, of a controller")
    parser.add_argument("--temperature", type=positive_float, default=1.0, help="of the dreams")
    args = parser.parse_args(argv)
    controller = load_controller(args.logdir)
    controllers = some_controllers(controller)
    dreams = load_dreams(args.logdir, DreamSettings(args.temperature))
    weights, game = load_world_weights(args.logdir, controller.sizes), dreams.game
    seeds = selection_tracks(args.episodes)
    real = drive_real(game, weights, controllers, seeds, args.logdir / "tmp")
    dreamed = {}
    for name, share in (("where rollouts begin", 1.0), ("anywhere", 0.0)):
        settings = DreamSettings(args.temperature, beginnings=share)
        dreamed[name] = dream(dreams._replace(settings=settings), controller.sizes, controllers, seeds)

    correlations = {
        name: [correlation(episodes, real, horizon) for horizon in HORIZONS] for name, episodes in dreamed.items()
    }
    print_tables(real, dreamed, correlations)
    folder = args.logdir / "mdrnn"
    result = {name: figures(episodes) for name, episodes in (dreamed | {"real": real}).items()}
    write_json(folder / "fidelity.json", {"horizons": HORIZONS, "correlations": correlations} | result)
    draw(real, dreamed, correlations, folder / "fidelity.png")
    save_strip(*strip(args.logdir, dreams, controller, seeds[0]), folder / "strip.png")
    log({f"fidelity/{name}": values[-1] for name, values in correlations.items()}, folder)


def log(figures: dict[str, float], folder: Path) -> None:
    """Add a point to the curves of a stage, at its last epoch; one that came without its training has no curves."""
    path = file_to_resume(folder)
    history = load_checkpoint(path, "train M again").get("history") if path else None
    if history:
        with locked(folder), CurveWriter(folder, history) as curves:
            curves.add_figures(figures, len(history))


def some_controllers(controller: Controller) -> np.ndarray:
    """Controllers of different quality (K, P): shares of C, and C with noise on its weights."""
    best = controller.to_vector().numpy()
    generator = np.random.default_rng(0)
    noisy = [
        best + noise * best.std() * generator.standard_normal(len(best)) for noise in NOISES for _ in range(COPIES)
    ]
    return np.array([*(share * best for share in SHARES), *noisy], np.float32)


def drive_real(game: Game, weights: Any, controllers: np.ndarray, seeds: list[int], logs: Path) -> Episodes:
    """Every controller in the real environment, with these seeds."""
    jobs = [
        Episode(controller, seed, game.patience, recorder=RewardRecorder())
        for controller in controllers
        for seed in seeds
    ]
    device = torch.device("cpu")
    with rollout_pool(game, game.training_kind, weights, device, cores(), len(jobs), logs) as pool:
        outcomes = dict(tqdm(pool.run(jobs), "real episodes", len(jobs), unit="episode", leave=False, disable=None))
    rewards = np.full((len(jobs), game.max_steps), game.idle_reward)
    for number, outcome in outcomes.items():
        earned, ended = outcome.record
        rewards[number, : len(earned)] = earned
        if ended:
            rewards[number, len(earned) :] = 0
    lengths = np.array([outcomes[number].length for number in range(len(jobs))])
    shape = (len(controllers), len(seeds))
    return Episodes(rewards.reshape(*shape, -1), lengths.reshape(shape))


@torch.inference_mode()
def dream(dreams: Dreams, sizes: Sizes, controllers: np.ndarray, seeds: list[int]) -> Episodes:
    """Every controller in the dreams of these seeds."""
    game, count = dreams.game, len(controllers) * len(seeds)
    batch, rows = DreamBatch(*dreams, count), padded(count)
    for row in range(count):
        batch.reset(row, seeds[row % len(seeds)], game.patience)
    parameters = torch.zeros(rows, sizes.controller)
    parameters[:count] = torch.from_numpy(controllers.repeat(len(seeds), axis=0))
    rewards, lengths = np.full((count, game.max_steps), game.idle_reward), np.full(count, game.max_steps)
    going_on = np.ones(count, bool)
    for step in tqdm(range(game.max_steps), "dreaming", unit="step", leave=False, disable=None):
        actions = drive_batch(sizes, parameters, batch.latents, batch.hidden, batch.cell)
        steps = batch.step(count, actions)
        rewards[going_on, step] = steps.rewards[going_on]
        ended = going_on & (steps.terminated | steps.truncated)
        rewards[going_on & steps.terminated, step + 1 :] = 0
        lengths[ended] = step + 1
        going_on &= ~ended
    shape = (len(controllers), len(seeds))
    return Episodes(rewards.reshape(*shape, -1), lengths.reshape(shape))


@torch.inference_mode()
def strip(logdir: Path, dreams: Dreams, controller: Controller, seed: int) -> tuple[Tensor, Tensor, range]:
    """What C sees in an episode, and in a dream that begins with the same frame, (1, T, 3, 64, 64) each, and at which T
    steps."""
    game, sizes, vae = dreams.game, controller.sizes, load_vae(logdir).eval()
    world, parameters = load_driver(logdir)
    recorder = RolloutRecorder()
    drive_episode(world, game, game.training_kind, Episode(parameters, seed, recorder=recorder))
    frames = torch.from_numpy(np.stack(recorder.frames[: STRIP_STEPS.stop : STRIP_STEPS.step]))
    mu, _ = encode(vae, frames[:1], world.device, torch.float32)
    batch = DreamBatch(*dreams, 1)
    nothing = np.zeros(sizes.hidden, np.float32)
    batch.begin_at(0, [mu[0].numpy(), nothing, nothing], np.random.default_rng(seed))
    dreamed = []
    for step in range(STRIP_STEPS.stop):
        if step % STRIP_STEPS.step == 0:
            dreamed.append(vae.decoder(batch.latents[:1])[0])
        controllers = torch.from_numpy(parameters).expand(len(batch.latents), -1)
        batch.step(1, drive_batch(sizes, controllers, batch.latents, batch.hidden, batch.cell))
    count = len(frames)  # fewer if the episode ended before
    return to_images(frames)[None], torch.stack(dreamed)[None, :count], STRIP_STEPS[:count]


def returns(episodes: Episodes, horizon: int | None = None) -> np.ndarray:
    """The mean return of every controller (K,) in the first steps of its episodes."""
    return episodes.rewards[..., :horizon].sum(axis=-1).mean(axis=1)


def correlation(dreamed: Episodes, real: Episodes, horizon: int) -> float:
    """Of the returns in dreams of so many steps with whole real returns, over the controllers."""
    return float(np.corrcoef(returns(dreamed, horizon), returns(real))[0, 1])


def survival(episodes: Episodes) -> np.ndarray:
    """The share of the episodes that go on after 0, 1, ... steps (T,)."""
    steps = np.arange(episodes.rewards.shape[-1])
    return (episodes.lengths[..., None] > steps).mean(axis=(0, 1))


def figures(episodes: Episodes) -> dict[str, Any]:
    """What is kept of episodes."""
    by_horizon = {str(horizon): returns(episodes, horizon).tolist() for horizon in HORIZONS}
    return {"returns": by_horizon, "survival": survival(episodes)[::10].tolist()}


def print_tables(real: Episodes, dreamed: dict[str, Episodes], correlations: dict[str, list[float]]) -> None:
    print("| controller | real | " + " | ".join(f"dream, {name}" for name in dreamed) + " |")
    print("|---|---|" + "---|" * len(dreamed))
    names = [f"{share:g} of C" for share in SHARES] + [f"C, noise {noise:g}" for noise in NOISES for _ in range(COPIES)]
    for name, *row in zip(names, returns(real), *(returns(episodes) for episodes in dreamed.values()), strict=True):
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in row)} |")
    print("\nCorrelation with the whole real return, by the dream's horizon:\n")
    print("| dreams begin | " + " | ".join(f"{horizon} steps" for horizon in HORIZONS) + " |")
    print("|---|" + "---|" * len(HORIZONS))
    for name, values in correlations.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")


def draw(real: Episodes, dreamed: dict[str, Episodes], correlations: dict[str, list[float]], path: Path) -> None:
    """Dreamed over real returns, survival in both, and how the correlation depends on the horizon."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    scatter, alive, horizons = figure.subplots(1, 3)
    for name, episodes in dreamed.items():
        scatter.plot(returns(real), returns(episodes), "o", label=name)
        alive.plot(survival(episodes), label=f"dreamed, {name}")
        horizons.plot(HORIZONS, correlations[name], "o-", label=name)
    scatter.axline((0, 0), slope=1, color="grey", lw=0.8)
    scatter.set(xlabel="real return", ylabel="dreamed return", title="a dot is a controller")
    alive.plot(survival(real), color="black", label="real")
    alive.set(xlabel="step", ylabel="episodes that go on", title="survival", ylim=(0, 1.02))
    horizons.axhline(0, color="grey", lw=0.8)
    horizons.set(xlabel="horizon of the dream", ylabel="correlation with the real return", ylim=(-1, 1))
    for axes in (scatter, alive, horizons):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_script(main)
