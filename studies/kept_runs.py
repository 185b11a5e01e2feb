"""The runs that a study keeps, a JSON file each: which are missing, whether they can be compared, how they are made,
and what their tables share."""

import argparse
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

from matplotlib.figure import Figure

from utils.commandline import UserError, positive_int
from utils.files import read_json, write_json
from utils.run_folder import fingerprint

RESULTS = Path(__file__).parent.parent / "docs" / "results"
T = TypeVar("T", str, float)  # a setting's name


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of studies that score every run on selection tracks."""
    option = parser.add_argument
    option("--logdir", type=Path, help="run folder with V and M; without it, nothing is trained")
    option("--tracks", type=positive_int, default=100, help="tracks that a C is scored on")
    option("--seeds", type=positive_int, default=3, help="runs of each setting")
    option("--out", type=Path, default=RESULTS, help="where the runs are kept")
    option("--only", nargs="+", metavar="SETTING", help="some of the settings, by name")


def chosen_settings(parser: argparse.ArgumentParser, only: list[T] | None, settings: Iterable[T]) -> list[T]:
    """Those that --only names, or all. Ends with one line and status 2 if one is not there."""
    if unknown := set(only or []) - set(settings):
        parser.error(f"no setting {sorted(map(str, unknown))}; there are {list(settings)}")
    return only or list(settings)


def missing_runs(folder: Path, runs: Iterable[tuple[str, int]], terms: dict[str, Any]) -> dict[tuple[str, int], Path]:
    """Of the runs (setting, seed), those that are not in the folder yet, and the files for them.

    Raises UserError if a run in the folder was made on other terms, so that it cannot be compared.
    """
    for path in folder.glob("*.json"):
        run = read_json(path)
        if other := {name: run.get(name) for name, value in terms.items() if run.get(name) != value}:
            raise UserError(f"{path}: a run with {other}, not with these {terms}; remove it, or give another --out")
    paths = {run: folder / f"{run[0].replace(',', '').replace(' ', '_')}_{run[1]}.json" for run in runs}
    return {run: path for run, path in paths.items() if not path.exists()}


def keep_runs(
    args: Any,
    out: Path,
    runs: Iterable[tuple[str, int]],
    terms: dict[str, Any],
    train_one: Callable[[Any, Path, str, int], dict[str, Any]],
    check: Callable[[Any, str], None] = lambda args, setting: None,
    stages: tuple[str, ...] = ("vae", "mdrnn"),
) -> None:
    """Train, and keep in the folder `out`, the runs (setting, seed) that are not kept yet, on these terms and with the
    models of these stages of --logdir. Raises UserError if others are kept that cannot be compared.

    check(args, setting): raises UserError if that cannot be trained; called for all that are missing before the first.
    train_one(args, run folder, setting, seed): returns what is kept of a run. The run folders lie in --logdir until
    then, named by the terms: a run that was stopped does not go on with others.
    """
    terms = terms | {"models": fingerprint(args.logdir, *stages)}
    missing = missing_runs(out, runs, terms)
    for setting, _ in missing:
        check(args, setting)
    for (setting, seed), path in missing.items():
        print(f"== {setting}, seed {seed} ==")
        logdir = args.logdir / "studies" / out.name / "_".join(map(str, [path.stem, *terms.values()]))
        result = train_one(args, logdir, setting, seed)
        write_json(path, {"setting": setting, "seed": seed} | terms | result)
        shutil.rmtree(logdir)


def read_kept_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs in a folder, by setting. Raises UserError if there are none."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = read_json(path)
        runs.setdefault(run["setting"], []).append(run)
    if not runs:
        raise UserError(f"{folder}: no runs are kept there; train some with --logdir")
    return runs


def with_error(values: list[float]) -> str:
    """Mean and standard error of several runs."""
    return f"{mean(values):.0f} ± {stdev(values) / len(values) ** 0.5:.0f}" if len(values) > 1 else f"{values[0]:.0f}"


def draw_dots(rows: Mapping[str, Sequence[list[float]]], labels: Sequence[str], xlabel: str, path: Path) -> None:
    """Every run as two dots in the line of its setting, an open and a filled one: rows has both numbers of its runs."""
    figure = Figure(figsize=(9, 1.2 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for line, both in enumerate(rows.values()):
        for values, fill, label in zip(both, ("none", "C0"), labels, strict=True):
            axes.plot(values, [line] * len(values), "o", color="C0", mfc=fill, label=None if line else label)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set(xlabel=xlabel)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)
