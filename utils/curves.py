"""Learning curves as pictures, for those who would rather look than read."""

import functools
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.files import write_atomically


def draw_controller_curve(history: list[dict[str, float]], path: Path) -> None:
    """Returns over episodes: the population's spread, its mean, and the scores of the distribution's mean. Of a
    search by gradient, the ends in its dreams in place of a population.

    history: one row a generation, as traincontroller.py keeps it.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    if populations := [row for row in history if "return/population" in row]:
        tags = ("episodes", "return/worst", "return/best")
        episodes, worst, best = ([row[tag] for row in populations] for tag in tags)
        axes.fill_between(episodes, worst, best, alpha=0.2, label="population, worst to best")
    for tag, marker, label in (
        ("return/population", None, "population mean"),
        ("return/mean", "o", "distribution mean on the selection episodes"),
        ("eval_env/return/mean", "s", "the same in the real environment (--eval-env)"),
    ):
        if known := [(row["episodes"], row[tag]) for row in history if tag in row]:
            axes.plot(*zip(*known, strict=True), marker=marker, label=label)
    axes.set(xlabel="episodes", ylabel="return", title="C")
    figure.legend(loc="outside lower center", ncols=2)  # where it covers no point
    if practised := [row for row in history if "dream/ends" in row]:
        other = axes.twinx()
        ends = [1000 * row["dream/ends"] for row in practised]
        other.plot([row["episodes"] for row in practised], ends, color="tab:red", alpha=0.5)
        other.set(ylabel="ends in 1,000 dreamed steps (red)", yscale="log")
        other.yaxis.set_major_formatter("{x:g}")
        other.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3)
    write_atomically(path, functools.partial(figure.savefig, format="png", dpi=120))


def draw_loss_curve(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Training and test loss over epochs. history: one row an epoch with "loss/train" and "loss/test"."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for tag in ("loss/train", "loss/test"):
        axes.plot(range(1, len(history) + 1), [row[tag] for row in history], marker=".", label=tag)
    axes.set(xlabel="epoch", ylabel="loss", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend()
    axes.grid(alpha=0.3)
    write_atomically(path, functools.partial(figure.savefig, format="png", dpi=120))
