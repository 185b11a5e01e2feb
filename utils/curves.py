"""Learning curves as pictures, for those who would rather look than read."""

from pathlib import Path

from matplotlib.figure import Figure


def draw_controller_curve(history: list[dict[str, float]], path: Path) -> None:
    """Returns over episodes: the population's spread, its mean, and the scores of the distribution's mean.

    history: one row a generation, as traincontroller.py keeps it.
    """
    episodes = [row["episodes"] for row in history]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(
        episodes,
        [row["return/worst"] for row in history],
        [row["return/best"] for row in history],
        alpha=0.2,
        label="population, worst to best",
    )
    axes.plot(episodes, [row["return/population"] for row in history], label="population mean")
    scored = [row for row in history if "return/mean" in row]
    axes.plot(
        [row["episodes"] for row in scored],
        [row["return/mean"] for row in scored],
        marker="o",
        label="distribution mean on the selection episodes",
    )
    compared = [row for row in history if "eval_env/return/mean" in row]
    if compared:
        axes.plot(
            [row["episodes"] for row in compared],
            [row["eval_env/return/mean"] for row in compared],
            marker="s",
            label="the same in the real environment (--eval-env)",
        )
    axes.set(xlabel="episodes", ylabel="return", title="C: evolution")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_loss_curve(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Training and test loss over epochs. history: one row an epoch with "loss/train" and "loss/test"."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for tag in ("loss/train", "loss/test"):
        axes.plot(range(1, len(history) + 1), [row[tag] for row in history], marker=".", label=tag)
    axes.set(xlabel="epoch", ylabel="loss", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
