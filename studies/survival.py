"""Does the dream grow as dangerous as the game? How a driver's episodes end in time, in reality and in M's dreams.

    python -m studies.survival --logdir doom --temperatures 1.15 1.4

In Take Cover monsters come one after the other, so that the game is hardest late. Prints the ends in 1,000 steps for
each phase of an episode, and writes to exp_dir/ctrl: survival.json (every length) and survival.png (the share of the
episodes that go on). Real episodes are selection episodes, not those of test_controller.py.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.scores import dreamed_score, real_score
from utils.commandline import ScriptParser, positive_float, positive_int, run_script
from utils.files import write_json
from utils.run_folder import load_game
from utils.tracks import TEST_TRACKS, selection_tracks

PHASES = 7  # of an episode
FEWEST_STEPS = 5000  # in a phase, below which its ends are too few to count


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V, M and C")
    parser.add_argument("--temperatures", type=positive_float, nargs="+", default=[1.0], help="of the dreams")
    parser.add_argument("--episodes", type=positive_int, default=200, help="real episodes, and dreams of each")
    args = parser.parse_args(argv)
    game, _ = load_game(args.logdir)
    _, real = real_score(args.logdir, selection_tracks(args.episodes))
    lengths = {"real": real}
    for temperature in args.temperatures:
        # Not the dreams by which the best mean was chosen.
        _, dreamed = dreamed_score(args.logdir, temperature, list(TEST_TRACKS[: args.episodes]))
        lengths[f"dreamed, temperature {temperature:g}"] = dreamed

    print_table(lengths, game.max_steps)
    folder = args.logdir / "ctrl"
    write_json(folder / "survival.json", {name: steps.tolist() for name, steps in lengths.items()})
    draw(lengths, folder / "survival.png")


def bounds_of_phases(max_steps: int) -> np.ndarray:
    """The steps (PHASES + 1,) at which the phases of an episode begin and end."""
    return np.linspace(0, max_steps, PHASES + 1)


def ends_by_phase(lengths: np.ndarray, max_steps: int) -> list[float]:
    """Of episodes of these lengths (E,), truncated at `max_steps`, the ends in 1,000 steps of each phase; NaN where too
    few went on to tell."""
    rates = []
    for begin, end in pairwise(bounds_of_phases(max_steps)):
        steps = np.clip(lengths - begin, 0, end - begin).sum()
        ends = ((lengths > begin) & (lengths <= end) & (lengths < max_steps)).sum()
        rates.append(1000 * ends / steps if steps >= FEWEST_STEPS else float("nan"))
    return rates


def print_table(lengths: dict[str, np.ndarray], max_steps: int) -> None:
    heads = [f"to {bound:.0f}" for bound in bounds_of_phases(max_steps)[1:]]
    print(f"| ends in 1,000 steps | mean length | {' | '.join(heads)} |\n|---|---|{'---|' * PHASES}")
    for name, steps in lengths.items():
        cells = ["" if math.isnan(rate) else f"{rate:.2f}" for rate in ends_by_phase(steps, max_steps)]
        error = steps.std() / len(steps) ** 0.5
        print(f"| {name} | {steps.mean():.0f} ± {error:.0f} | {' | '.join(cells)} |")


def draw(lengths: dict[str, np.ndarray], path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    plot_survival(figure.subplots(), lengths)
    figure.savefig(path, dpi=110)


def plot_survival(axes: Axes, lengths: dict[str, np.ndarray]) -> None:
    """The share of the episodes of these lengths (E,) that go on, step by step."""
    for name, steps in lengths.items():
        axes.plot([(steps > step).mean() for step in range(int(steps.max()) + 1)], label=name)
    axes.set(xlabel="step", ylabel="episodes that go on", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    run_script(main)
