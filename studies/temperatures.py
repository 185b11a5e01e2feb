"""How uncertain a dream has to be to learn in it: Take Cover at several temperatures (paper, section 4.4).

    python -m studies.temperatures --logdir doom --out my_results
    python -m studies.temperatures    # prints the runs that are kept

C evolves as the preset says, in dreams of the M of --logdir, equally long in each. The mean that dreams best is
then scored in new dreams and in real episodes, by which nothing is chosen but the temperature. Each run is kept in
<--out>/temperatures/, and one that lies there is not repeated, so that this may be stopped at any time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import traincontroller
from studies.kept_runs import RESULTS, chosen_settings, keep_runs, read_kept_runs, with_error
from studies.scores import dreamed_score, real_score
from utils.commandline import ScriptParser, positive_int, run_script
from utils.run_folder import copy_world
from utils.tracks import TEST_TRACKS, selection_tracks

RUNS = {0.1: 1, 0.5: 1, 1.0: 3, 1.15: 3, 1.3: 1}  # of each temperature, with seeds 0, 1, 2
PAPER = {  # dreamed and real score
    0.1: ("2086 ± 140", "193 ± 58"),
    0.5: ("2060 ± 277", "196 ± 50"),
    1.0: ("1145 ± 690", "868 ± 511"),
    1.15: ("918 ± 546", "1092 ± 556"),
    1.3: ("732 ± 269", "753 ± 139"),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, help="run folder with V and M; without it, nothing is trained")
    parser.add_argument("--generations", type=positive_int, default=100, help="of a run")
    parser.add_argument("--preset", default="presets/takecover", help="how C evolves, but for temperature and length")
    parser.add_argument("--episodes", type=positive_int, default=100, help="dreams, and real episodes, of a score")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the runs are kept")
    parser.add_argument("--only", nargs="+", type=float, metavar="TEMPERATURE", help="some of the temperatures")
    args = parser.parse_args(argv)
    args.only = chosen_settings(parser, args.only, RUNS)

    out = args.out / "temperatures"
    if args.logdir:
        runs = [(f"{key}", seed) for seed in range(max(RUNS.values())) for key in args.only if seed < RUNS[key]]
        terms = {"generations": args.generations, "episodes": args.episodes, "preset": Path(args.preset).name}
        keep_runs(args, out, runs, terms, train_one)
    print_table(out)


def train_one(args: Any, logdir: Path, temperature: str, seed: int) -> dict[str, Any]:
    """Evolve C; returns its scores."""
    copy_world(args.logdir, logdir)
    options = ["--logdir", logdir, "--temperature", temperature, "--seed", seed, "--generations", args.generations]
    traincontroller.main([f"@{args.preset}", *map(str, options)])
    # Not the dreams by which the best mean was chosen.
    dreamed, _ = dreamed_score(logdir, float(temperature), list(TEST_TRACKS[: args.episodes]))
    real, _ = real_score(logdir, selection_tracks(args.episodes))
    print(f"dreamed {dreamed.mean():.0f} +- {dreamed.std():.0f}, real {real.mean():.0f} +- {real.std():.0f}")
    return {"dreamed": dreamed.tolist(), "real": real.tolist()}


def print_table(out: Path) -> None:
    print("\n| temperature | runs | dreamed | real | real, each run | paper: dreamed | real |")
    print("|---|---|---|---|---|---|---|")
    for name, group in sorted(read_kept_runs(out).items(), key=lambda item: float(item[0])):
        cells = [name, f"{len(group)}"]
        cells += [f"{mean(group, where)} (± {spread(group, where):.0f})" for where in ("dreamed", "real")]
        cells += [" ".join(f"{np.mean(run['real']):.0f}" for run in group), *PAPER[float(name)]]
        print(f"| {' | '.join(cells)} |")


def mean(group: list[dict[str, Any]], where: str) -> str:
    """Of the runs' scores, with its standard error where there are several runs."""
    return with_error([float(np.mean(run[where])) for run in group])


def spread(group: list[dict[str, Any]], where: str) -> float:
    """Standard deviation over the episodes of a run."""
    return float(np.mean([np.std(run[where]) for run in group]))


if __name__ == "__main__":
    run_script(main)
