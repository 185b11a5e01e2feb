"""Draws the pictures of docs/RESULTS.md from the raw figures in docs/results/ and the history in pretrained/.

    python -m benchmarks.plot_results

learning_curve.png: the score of the distribution's mean over episodes and over core-hours, beside the paper's own run
(paper_learning_curve.csv, from the log published with it: github.com/hardmaru/WorldModelsExperiments, carracing/log).
scores.png: the returns of the shipped driver on its test tracks. Prints what they show.
"""

import csv
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from envs.carracing import MAX_EPISODE_STEPS  # noqa: E402
from utils.checkpoints import load_checkpoint  # noqa: E402
from utils.commandline import run_script, script_parser  # noqa: E402

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
CORES, PAPER_CORES = 2, 64  # that trained the driver in pretrained/, and the paper's
PAPER_SCORE = 906
LOST = 850  # less than this is a lap not driven to its end


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    history = load_checkpoint(ROOT / "pretrained" / "ctrl" / "checkpoint.tar", "it belongs to the project")["history"]
    score = json.loads((RESULTS / "driver_score.json").read_text())
    draw_learning_curve(history, args.out / "learning_curve.png")
    draw_scores(score, args.out / "scores.png")

    print("| generation | episodes | core-hours | mean |\n|---|---|---|---|")
    for row in history:
        if "return/mean" in row:
            hours = row["seconds"] * CORES / 3600
            print(f"| {row['generation']:.0f} | {row['episodes']:.0f} | {hours:.2f} | {row['return/mean']:.1f} |")
    returns, lengths = np.array(score["returns"]), np.array(score["lengths"])
    print(
        f"{score['mean']:.1f} +- {score['std']:.1f} (standard error {score['sem']:.1f}) over {len(returns)} tracks "
        f"from {score['seed']}; worst {returns.min():.1f}, median {np.median(returns):.1f}, best {returns.max():.1f}; "
        f"{(returns >= PAPER_SCORE).mean():.0%} at {PAPER_SCORE} or above; {(lengths < MAX_EPISODE_STEPS).sum()} laps "
        f"complete, after {lengths[lengths < MAX_EPISODE_STEPS].mean():.0f} steps; {(returns < LOST).sum()} returns "
        f"below {LOST}, the mean of the others {returns[returns >= LOST].mean():.1f}"
    )


def draw_learning_curve(history: list[dict[str, float]], path: Path) -> None:
    """history: one row a generation, as traincontroller.py keeps it."""
    with (RESULTS / "paper_learning_curve.csv").open() as file:
        paper = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    ours = [row for row in history if "return/mean" in row]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for panel, ours_x, paper_x, label in (
        (
            axes[0],
            [row["episodes"] for row in ours],
            [row["episodes"] for row in paper],
            "episodes",
        ),
        (
            axes[1],
            [row["seconds"] * CORES / 3600 for row in ours],
            [row["seconds"] * PAPER_CORES / 3600 for row in paper],
            "core-hours of C's training",
        ),
    ):
        panel.plot(ours_x, [row["return/mean"] for row in ours], marker=".", label="this repository")
        panel.plot(paper_x, [row["mean_return_of_distribution_mean"] for row in paper], label="the paper's run")
        panel.axhline(PAPER_SCORE, color="grey", linestyle=":", label="the paper's score, 906")
        panel.set(xscale="log", xlabel=label, ylabel="return of the distribution's mean", ylim=(400, 950))
        panel.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_scores(score: dict, path: Path) -> None:
    """score: as test_controller.py --json writes it."""
    returns = np.array(score["returns"])
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    axes.hist(returns, bins=np.arange(np.floor(returns.min() / 10) * 10, 960, 10), log=True)
    axes.axvline(returns.mean(), color="black", label=f"mean {returns.mean():.1f}")
    axes.axvline(PAPER_SCORE, color="grey", linestyle=":", label="the paper's mean, 906")
    axes.set(xlabel="return", ylabel="tracks", title=f"{len(returns):,} unseen tracks, Gymnasium's renderer")
    axes.set_ylim(bottom=0.7)  # so that a bar of one track is seen
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run_script(main)
