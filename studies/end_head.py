"""Does M know when an episode ends? To be looked at before C evolves in its dream.

    python -m studies.end_head --logdir doom --dataset datasets/doom

Prints how long the game's random driving lasts in reality and in the dream, and, for held-out rollouts as V sees them,
how many ends M's head foresees (its logit is positive) and how many steps it takes for an end that are none. Writes to
exp_dir/mdrnn: end_head.json, end_head.png (survival in both, and the logit before an end) and end_head_strip.png (three
held-out rollouts, and three dreams of random driving).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from data.encoding import encode
from data.loaders import find_rollouts, load_rollout, split_rollouts
from data.policies import POLICIES
from envs.dream import DreamBatch, DreamSettings
from envs.games import Game
from models.mdrnn import MDRNN
from models.vae import VAE, to_images
from models.world_model import padded
from studies.scores import policy_lengths
from studies.strips import save_strip
from studies.survival import plot_survival
from utils.commandline import ScriptParser, UserError, positive_float, positive_int, run_script
from utils.dreams import Dreams
from utils.files import write_json
from utils.run_folder import load_dreams, load_mdrnn, load_vae
from utils.tracks import selection_tracks

CPU = torch.device("cpu")
EARLY = 10  # steps: a dream that ends so much too early is as good
SHOWN_BEFORE_END = 60  # steps
STRIP_STEPS = range(30, 100, 5)
STRIP_ROWS = 3  # real ones, and as many dreams


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V and M")
    parser.add_argument("--dataset", type=Path, required=True, help="folder of the rollouts that they learned from")
    parser.add_argument("--episodes", type=positive_int, default=100, help="real episodes, and dreams")
    parser.add_argument("--temperature", type=positive_float, default=1.0, help="of the dreams")
    args = parser.parse_args(argv)
    dreams = load_dreams(args.logdir, DreamSettings(args.temperature))
    vae, mdrnn = load_vae(args.logdir).eval(), load_mdrnn(args.logdir).eval()
    _, files = split_rollouts(find_rollouts(args.dataset))
    held_out = tqdm(files, "held out", unit="rollout", leave=False, disable=None)
    ends = [end for file in held_out if (end := watch(vae, mdrnn, file)) is not None]
    if not ends:
        raise UserError(f"{args.dataset}: no held-out rollout ended by itself; make more rollouts")
    game, seeds = dreams.game, selection_tracks(args.episodes)
    lengths = {
        "real": policy_lengths(game, POLICIES[game.policy], seeds, args.logdir / "tmp"),
        "dreamed": dream(dreams, seeds),
    }

    folder = args.logdir / "mdrnn"
    result = summary(lengths, ends)
    print_tables(lengths, result)
    write_json(folder / "end_head.json", {name: steps.tolist() for name, steps in lengths.items()} | result)
    draw(lengths, ends, folder / "end_head.png")
    save_strip(*strip(vae, dreams, files, seeds), STRIP_STEPS, folder / "end_head_strip.png")


@torch.inference_mode()
def watch(vae: VAE, mdrnn: MDRNN, file: Path) -> np.ndarray | None:
    """What M's head says in the T steps of a rollout, as V sees it: the logit of the end (T,). None if the rollout did
    not end by itself in its last one."""
    keys = ("observations", "actions", "terminals")
    frames, actions, terminals = map(torch.from_numpy, load_rollout(file, keys, vae.sizes))
    if not terminals[-1]:
        return None
    mu, _ = encode(vae, frames, CPU, torch.float32)
    prediction, _ = mdrnn(actions[:, None], mu[:, None])
    return prediction.terminal_logit[:, 0].numpy()


def random_actions(game: Game, seeds: list[int]) -> Tensor:
    """The game's random driving of these seeds, (padded(E), steps, A)."""
    actions = torch.zeros(padded(len(seeds)), game.max_steps, game.sizes.action)
    for row, seed in enumerate(seeds):
        policy = POLICIES[game.policy](np.random.default_rng([seed]), game.sizes, game.max_steps)
        actions[row] = torch.from_numpy(policy)
    return actions


@torch.inference_mode()
def dream(dreams: Dreams, seeds: list[int]) -> np.ndarray:
    """The same in dreams (E,), of the same actions."""
    actions, count = random_actions(dreams.game, seeds), len(seeds)
    batch = DreamBatch(*dreams, count)
    for row, seed in enumerate(seeds):
        batch.reset(row, seed)
    lengths = np.zeros(count, int)
    going_on = np.ones(count, bool)
    for step in tqdm(range(dreams.game.max_steps), "dreamed", unit="step", leave=False, disable=None):
        lengths += going_on
        steps = batch.step(count, actions[:, step])
        going_on &= ~(steps.terminated | steps.truncated)
        if not going_on.any():
            break
    return lengths


def summary(lengths: dict[str, np.ndarray], ends: list[np.ndarray]) -> dict[str, Any]:
    """What is kept, but for the lengths: how many ends the head tells of in the very step, and then or shortly before,
    and how many steps long before it takes for one, as shares. ends: as `watch` returns them."""
    long_before = np.concatenate([logits[:-EARLY] for logits in ends])
    return {
        "mean": {name: float(steps.mean()) for name, steps in lengths.items()},
        "std": {name: float(steps.std()) for name, steps in lengths.items()},
        "ends": len(ends),
        "foreseen": float(np.mean([logits[-1] > 0 for logits in ends])),
        "foreseen_early": float(np.mean([(logits[-EARLY:] > 0).any() for logits in ends])),
        "false_alarms": float(np.mean(long_before > 0)),
    }


def print_tables(lengths: dict[str, np.ndarray], result: dict[str, Any]) -> None:
    print("| random driving | episodes | steps | shortest | longest |\n|---|---|---|---|---|")
    for name, steps in lengths.items():
        mean, std = result["mean"][name], result["std"][name]
        print(f"| {name} | {len(steps)} | {mean:.0f} ± {std:.0f} | {steps.min()} | {steps.max()} |")
    print(f"\nof {result['ends']} held-out ends, foreseen in the very step: {result['foreseen']:.0%}")
    print(f"then or in the {EARLY - 1} steps before: {result['foreseen_early']:.0%}")
    print(f"false alarms in 1,000 steps before these: {1000 * result['false_alarms']:.1f}")


def draw(lengths: dict[str, np.ndarray], ends: list[np.ndarray], path: Path) -> None:
    """Survival in reality and in the dream, and what the head says before an end."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    alive, before = figure.subplots(1, 2)
    plot_survival(alive, lengths)
    alive.set_title("random driving")
    shown = np.full((len(ends), SHOWN_BEFORE_END), np.nan)
    for row, logits in zip(shown, ends, strict=True):
        last = logits[-SHOWN_BEFORE_END:]
        row[len(row) - len(last) :] = last
    steps = np.arange(1 - SHOWN_BEFORE_END, 1)
    for quantile in (10, 50, 90):
        before.plot(steps, np.nanpercentile(shown, quantile, axis=0), label=f"{quantile} % of the rollouts are below")
    before.axhline(0, color="grey", lw=0.8)
    before.set(xlabel="steps before the end of a held-out rollout", ylabel="logit of the end")
    before.legend(fontsize=8)
    before.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


@torch.inference_mode()
def strip(vae: VAE, dreams: Dreams, files: list[Path], seeds: list[int]) -> tuple[Tensor, Tensor]:
    """Frames (R, T, 3, 64, 64) of held-out rollouts, black after their end, and of dreams of random driving, which go
    on after an end."""
    seeds, files = seeds[:STRIP_ROWS], files[:STRIP_ROWS]
    real, dreamed = (torch.zeros(len(rows), len(STRIP_STEPS), 3, 64, 64) for rows in (files, seeds))
    for row, file in zip(real, files, strict=True):
        (frames,) = load_rollout(file, ("observations",), vae.sizes)
        images = to_images(torch.from_numpy(frames[STRIP_STEPS.start : STRIP_STEPS.stop : STRIP_STEPS.step]))
        row[: len(images)] = images
    batch, actions = DreamBatch(*dreams, len(seeds)), random_actions(dreams.game, seeds)
    for row, seed in enumerate(seeds):
        batch.reset(row, seed)
    for step in range(STRIP_STEPS.stop):
        if step in STRIP_STEPS:
            dreamed[:, STRIP_STEPS.index(step)] = vae.decoder(batch.latents[: len(seeds)])
        batch.step(len(seeds), actions[:, step])
    return real, dreamed


if __name__ == "__main__":
    run_script(main)
