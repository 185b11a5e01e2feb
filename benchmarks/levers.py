"""What makes evolution cheap? Runs traincontroller.py with one setting changed at a time, and compares.

    python -m benchmarks.levers --logdir exp_dir

Every lever is tried with each of --seeds seeds, the V and M of --logdir, and the same budget of episodes; what counts
is the distribution mean on selection tracks, which no candidate ever drives. Each run's history is kept in
docs/results/levers/, and a run whose history lies there is not repeated, so that this may be stopped at any time.
"""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from utils.checkpoints import load_checkpoint, write_atomically
from utils.commandline import UserError, positive_int, run_script, script_parser

ROOT = Path(__file__).parent.parent
POPULATION, SAMPLES = 32, 4  # traincontroller's defaults
LEVERS: dict[str, dict[str, object]] = {
    "default": {},
    "population 64, 2 tracks": {"pop-size": 64, "n-samples": 2},
    "population 128, 1 track": {"pop-size": 128, "n-samples": 1},
    "population 16, 8 tracks": {"pop-size": 16, "n-samples": 8},
    "own tracks": {"own-tracks": True},
    "full covariance": {"diagonal-generations": 0},
    "diagonal, full from generation 10": {"diagonal-generations": 10},
    "sigma 0.05": {"sigma": 0.05},
    "sigma 0.2": {"sigma": 0.2},
    "weight decay 100": {"weight-decay": 100},
    "no early end": {"patience": 0},
}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V and M; C's go into its levers/")
    parser.add_argument("--episodes", type=positive_int, default=2560, help="budget of a run")
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs of each lever")
    parser.add_argument("--only", nargs="+", choices=list(LEVERS), default=list(LEVERS), help="some of the levers")
    parser.add_argument("--out", type=Path, default=Path("docs/results/levers"), help="folder of the histories")
    args = parser.parse_args()
    for seed in range(args.seeds):
        for lever in args.only:
            path = args.out / f"{lever.replace(', ', '_').replace(' ', '-')}_{seed}.json"
            if not path.exists():
                history = evolve(args.logdir, lever, seed, args.episodes)
                run = {"lever": lever, "options": LEVERS[lever], "seed": seed, "history": history}
                write_atomically(path, lambda file, run=run: file.write(json.dumps(run, indent=1).encode() + b"\n"))
    report(args.out)


def evolve(logdir: Path, lever: str, seed: int, episodes: int) -> list[dict[str, float]]:
    """One run; returns its history, whose last row holds the score. Goes on with a run that was stopped."""
    options = {"pop-size": POPULATION, "n-samples": SAMPLES} | LEVERS[lever]
    generations = episodes // (options["pop-size"] * options["n-samples"])
    folder = logdir / "levers" / f"{lever} {seed}"
    for stage in ("vae", "mdrnn"):
        (folder / stage).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(logdir / stage / "best.tar", folder / stage / "best.tar")
    command = [sys.executable, ROOT / "traincontroller.py", "--logdir", folder, "--seed", str(seed)]
    command += ["--generations", str(generations), "--eval-every", str(generations), "--eval-episodes", "64"]
    for name, value in options.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    print(f"== {lever}, seed {seed} ==")
    if subprocess.run(command).returncode != 0:
        raise UserError(f"{folder}: the run failed; see above")
    history = load_checkpoint(folder / "ctrl" / "checkpoint.tar", "remove it")["history"]
    shutil.rmtree(folder)
    return history


def report(folder: Path) -> None:
    """Print the table of all histories in a folder."""
    runs: dict[str, list[dict[str, float]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["lever"], []).append(run["history"][-1])
    print("\n| lever | seeds | episodes | distribution mean | standard error | seconds |\n|---|---|---|---|---|---|")
    for lever, ends in sorted(runs.items(), key=lambda item: -statistics.mean(row["return/mean"] for row in item[1])):
        scores = [row["return/mean"] for row in ends]
        error = f"{statistics.stdev(scores) / len(scores) ** 0.5:.0f}" if len(scores) > 1 else "-"
        seconds = statistics.mean(row["seconds"] for row in ends)
        mean, episodes = statistics.mean(scores), ends[0]["episodes"]
        print(f"| {lever} | {len(ends)} | {episodes:.0f} | {mean:.0f} | {error} | {seconds:.0f} |")


if __name__ == "__main__":
    run_script(main)
