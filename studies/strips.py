"""Film strips: real frames above dreamed ones."""

from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

PADDING = 2  # pixels between frames


def save_strip(real: Tensor, dreamed: Tensor, steps: range, path: Path) -> None:
    """Draw frames (R, T, 3, 64, 64) with numbers in [0, 1]: R real episodes, and below them some dreams, at T steps."""
    rows, columns, side = [len(real), len(dreamed)], len(steps), real.shape[-1]
    figure = Figure(figsize=(0.9 * columns, 0.9 * sum(rows) + 0.5), layout="constrained")
    both = figure.subplots(2, 1, sharex=True, height_ratios=rows)
    for axes, name, frames in zip(both, ("real", "dreamed"), (real, dreamed), strict=True):
        grid = make_grid(frames.flatten(0, 1), nrow=columns, padding=PADDING, pad_value=1)
        axes.imshow(grid.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel(name, fontsize=14)
    axes.set_xticks([(side + PADDING) * (column + 0.5) for column in range(columns)], map(str, steps))
    axes.set_xlabel("step")
    figure.savefig(path, dpi=100)
