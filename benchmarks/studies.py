"""Trains many controllers that differ in one point, and compares them.

    python -m benchmarks.studies levers --logdir exp_dir       # what makes evolution cheap?
    python -m benchmarks.studies ablations --logdir exp_dir    # what does C need to see?

Every setting is tried with each of --seeds seeds, the V and M of --logdir, and the same budget of episodes. Levers are
compared by the distribution mean on selection tracks, ablations by test_controller.py's score; neither set is ever
driven in evolution. Each run is kept in docs/results/<study>/, and one that lies there is not repeated, so that this
may be stopped at any time.
"""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from utils.checkpoints import load_checkpoint, write_atomically
from utils.commandline import UserError, positive_int, run_script, script_parser

ROOT = Path(__file__).parent.parent
POPULATION, SAMPLES = 128, 1  # traincontroller's defaults
CMA = {"search": "cma", "pop-size": 32, "n-samples": 4}  # the same episodes a generation, on common tracks


class Setting(NamedTuple):
    """What a run changes: options of traincontroller.py, and the stages whose training is left out."""

    options: dict[str, Any] = {}
    untrained: tuple[str, ...] = ()


STUDIES: dict[str, dict[str, Setting]] = {
    "levers": {
        "default": Setting(),
        "population 64, 2 tracks": Setting({"pop-size": 64, "n-samples": 2}),
        "population 256": Setting({"pop-size": 256}),
        "all on the same 4 tracks": Setting({"pop-size": 32, "n-samples": 4, "tracks": 4}),
        "sigma 0.0125": Setting({"sigma": 0.0125}),
        "sigma 0.05": Setting({"sigma": 0.05}),
        "weights of h vary as those of z": Setting({"memory-scale": 1, "sigma": 0.045}),
        "weight decay 100": Setting({"weight-decay": 100}),
        "no early end": Setting({"patience": 0}),
        "CMA-ES": Setting(CMA),
        "CMA-ES, population 128, 1 track": Setting({"search": "cma"}),
        "CMA-ES, 4 of 16 tracks": Setting(CMA | {"tracks": 16}),
        "CMA-ES, full covariance": Setting(CMA | {"diagonal-generations": 0}),
        "CMA-ES, diagonal, full from generation 10": Setting(CMA | {"diagonal-generations": 10}),
        "CMA-ES, weights of h vary as those of z": Setting(CMA | {"memory-scale": 1, "sigma": 0.08}),
    },
    "ablations": {
        "z and h": Setting(),
        "z": Setting({"inputs": "z"}),
        "z, 40 hidden units": Setting({"inputs": "z", "hidden-units": 40}),
        "untrained M": Setting(untrained=("mdrnn",)),
        "untrained V and M": Setting(untrained=("vae", "mdrnn")),
    },
}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("study", choices=list(STUDIES), help="which settings to compare")
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V and M; the runs go there, too")
    parser.add_argument(
        "--dataset", type=Path, default=Path("datasets/carracing"), help="rollouts, for untrained models"
    )
    parser.add_argument("--episodes", type=positive_int, default=2560, help="budget of a run")
    parser.add_argument("--tracks", type=positive_int, default=100, help="tracks of a run's score")
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs of each setting")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="where the runs are kept")
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="some of the settings, by name")
    args = parser.parse_args()
    settings = STUDIES[args.study]
    if unknown := set(args.only or []) - settings.keys():
        parser.error(f"no setting {sorted(unknown)}; there are {list(settings)}")

    out = args.out / args.study
    for seed in range(args.seeds):
        for name in args.only or settings:
            path = out / f"{name.replace(',', '').replace(' ', '_')}_{seed}.json"
            if not path.exists():
                print(f"== {name}, seed {seed} ==")
                folder = args.logdir / args.study / path.stem
                run = {"setting": name, "options": settings[name].options, "seed": seed}
                run |= {"history": evolve(folder, settings[name], seed, args)}
                run |= (
                    {"mean": run["history"][-1]["return/mean"]}
                    if args.study == "levers"
                    else score(folder, args.tracks)
                )
                write_atomically(path, lambda file, run=run: file.write(json.dumps(run, indent=1).encode() + b"\n"))
                shutil.rmtree(folder)
    report(out)


def evolve(folder: Path, setting: Setting, seed: int, args: Any) -> list[dict[str, float]]:
    """Train a run's C, going on if it was stopped; returns its history, whose last row scores the mean."""
    for stage, script in (("vae", "trainvae.py"), ("mdrnn", "trainmdrnn.py")):
        if stage in setting.untrained:
            execute(script, "--logdir", folder, "--dataset", args.dataset, "--epochs", 0, "--seed", seed)
        else:
            (folder / stage).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(args.logdir / stage / "best.tar", folder / stage / "best.tar")
    options = {"pop-size": POPULATION, "n-samples": SAMPLES} | setting.options
    generations = args.episodes // (options["pop-size"] * options["n-samples"])
    options |= {"seed": seed, "generations": generations, "eval-every": generations, "eval-episodes": args.tracks}
    words = [word for name, value in options.items() for word in [f"--{name}", value]]
    execute("traincontroller.py", "--logdir", folder, *words)
    return load_checkpoint(folder / "ctrl" / "checkpoint.tar", "remove it")["history"]


def score(folder: Path, tracks: int) -> dict[str, Any]:
    """A run's score as test_controller.py writes it, "mean" and "returns" among others."""
    execute("test_controller.py", "--logdir", folder, "--episodes", tracks, "--json", folder / "score.json")
    return json.loads((folder / "score.json").read_text())


def execute(script: str, *arguments: object) -> None:
    """Run a script of the project; raises UserError if it fails."""
    if subprocess.run([sys.executable, ROOT / script, *map(str, arguments)]).returncode != 0:
        raise UserError(f"{script} failed, see above")


def report(folder: Path) -> None:
    """Print the table of all runs in a folder, best setting first."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["setting"], []).append(run)
    print("\n| setting | runs | episodes | mean | standard error over runs | each run | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, group in sorted(runs.items(), key=lambda item: -statistics.mean(run["mean"] for run in item[1])):
        means = [run["mean"] for run in group]
        error = f"{statistics.stdev(means) / len(means) ** 0.5:.0f}" if len(means) > 1 else "-"
        episodes = group[0]["history"][-1]["episodes"]
        seconds = statistics.mean(run["history"][-1]["seconds"] for run in group)
        cells = [name, len(group), f"{episodes:.0f}", f"{statistics.mean(means):.0f}", error]
        cells += [" ".join(f"{mean:.0f}" for mean in means), f"{seconds:.0f}"]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    run_script(main)
