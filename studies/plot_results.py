"""Draws the pictures of docs/RESULTS.md from the raw figures in docs/results/.

    python -m studies.plot_results

learning_curve.png: the score of the distribution's mean over episodes and over core-hours, round by round
(evolution.json: the histories of a run of make reproduce, which --logdir reads anew), beside the paper's own run
(paper_learning_curve.csv, from the log published with it: github.com/hardmaru/WorldModelsExperiments, carracing/log).
scores.png: the returns of the shipped drivers on their test tracks. Prints what they show.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from envs.games import CARRACING
from utils.checkpoints import load_checkpoint
from utils.commandline import ScriptParser, run_script
from utils.files import read_json, write_json

ROOT = Path(__file__).parent.parent
CORES, PAPER_CORES = 2, 64  # that trained the driver in pretrained/, and the paper's
PAPER_SCORE = 906
SCORES = {"pretrained": "driver_score.json", "pretrained/dream": "dream_score.json"}
LOST = 850  # less than this is no matter of speed any more
History = list[dict[str, float]]  # one row a generation, as traincontroller.py keeps it


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument(
        "--logdir", type=Path, help="a run of make reproduce on two cores, to be kept in evolution.json first"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", help="folder of the raw figures")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.logdir:
        write_json(args.results / "evolution.json", read_rounds(args.logdir))
    rounds = scored_generations(read_json(args.results / "evolution.json"))
    scores = {driver: read_json(args.results / file) for driver, file in SCORES.items()}
    draw_learning_curve(rounds, args.results / "paper_learning_curve.csv", args.out / "learning_curve.png")
    draw_scores(scores, args.out / "scores.png")

    print("| round | generation | episodes so far | core-hours so far | mean |\n|---|---|---|---|---|")
    for number, rows in enumerate(rounds):
        for row in rows:
            hours = row["seconds"] * CORES / 3600
            where = f"{number} | {row['generation']:.0f} | {row['episodes']:.0f} | {hours:.2f}"
            print(f"| {where} | {row['return/mean']:.1f} |")
    for driver, score in scores.items():
        print(f"{driver}: {summary(score)}")


def summary(score: dict) -> str:
    """score: as test_controller.py --json writes it."""
    returns, lengths = np.array(score["returns"]), np.array(score["lengths"])
    laps = lengths[lengths < CARRACING.max_steps]  # that are complete
    return (
        f"{score['mean']:.1f} +- {score['std']:.1f} (standard error {score['sem']:.1f}) over {len(returns)} tracks "
        f"from {score['seed']}; worst {returns.min():.1f}, median {np.median(returns):.1f}, best {returns.max():.1f}; "
        f"{(returns >= PAPER_SCORE).mean():.0%} at {PAPER_SCORE} or above; {len(laps)} laps "
        f"complete, after {laps.mean():.0f} steps; {(returns < LOST).sum()} returns "
        f"below {LOST}, the mean of the others {returns[returns >= LOST].mean():.1f}"
    )


def read_rounds(logdir: Path) -> list[History]:
    """The history of every C of a run of make reproduce, first round first."""
    folders = [*sorted(logdir.glob("round_*")), logdir]
    return [load_checkpoint(folder / "ctrl" / "checkpoint.tar", "train it first")["history"] for folder in folders]


def scored_generations(rounds: list[History]) -> list[History]:
    """Of every round the generations whose mean was scored, with the episodes and seconds of the rounds before."""
    scored, before = [], {"episodes": 0.0, "seconds": 0.0}
    for history in rounds:
        rows = [row | {"generation": i} for i, row in enumerate(history, 1) if "return/mean" in row]
        scored.append([row | {name: row[name] + value for name, value in before.items()} for row in rows])
        before = {name: value + history[-1][name] for name, value in before.items()}
    return scored


def draw_learning_curve(rounds: list[History], paper_csv: Path, path: Path) -> None:
    """rounds: as `scored_generations` makes them."""
    with paper_csv.open() as file:
        paper = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    hours, paper_hours = CORES / 3600, PAPER_CORES / 3600
    for panel, column, ours, papers, label in (
        (axes[0], "episodes", 1, 1, "episodes"),
        (axes[1], "seconds", hours, paper_hours, "core-hours of C's training"),
    ):
        for number, rows in enumerate(rounds):
            means = [row["return/mean"] for row in rows]
            panel.plot([row[column] * ours for row in rows], means, "o-", ms=4, label=f"here, round {number}")
        means = [row["mean_return_of_distribution_mean"] for row in paper]
        panel.plot([row[column] * papers for row in paper], means, color="black", lw=1, label="the paper's run")
        panel.axhline(PAPER_SCORE, color="grey", linestyle=":", label="the paper's score, 906")
        panel.set(xscale="log", xlabel=label, ylabel="return of the distribution's mean", ylim=(300, 950))
        panel.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=110)


def draw_scores(scores: dict[str, dict], path: Path) -> None:
    """The returns of each driver; scores: as test_controller.py --json writes them."""
    returns = {driver: np.array(score["returns"]) for driver, score in scores.items()}
    every = np.concatenate(list(returns.values()))
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    bins = np.arange(every.min() // 10 * 10, every.max() + 10, 10).tolist()
    for driver, of_driver in returns.items():
        label = f"{driver}: {of_driver.mean():.1f} ± {of_driver.std():.1f}"
        axes.hist(of_driver, bins, log=True, histtype="stepfilled", alpha=0.5, label=label)
    axes.axvline(PAPER_SCORE, color="grey", linestyle=":", label="the paper's mean, 906")
    axes.set(xlabel="return", ylabel="tracks", title="1,000 unseen tracks each, Gymnasium's renderer")
    axes.set_ylim(bottom=0.7)  # so that a bar of one track is seen
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_script(main)
