"""The runs that a study keeps, a JSON file each: which are missing, whether they can be compared, and what their tables
share."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from utils.commandline import UserError


def missing_runs(folder: Path, runs: Iterable[tuple[str, int]], terms: dict[str, Any]) -> dict[tuple[str, int], Path]:
    """Of the runs (setting, seed), those that are not in the folder yet, and the files for them.

    Raises UserError if a run in the folder was made on other terms, so that it cannot be compared.
    """
    for path in folder.glob("*.json"):
        run = json.loads(path.read_text())
        if other := {name: run.get(name) for name, value in terms.items() if run.get(name) != value}:
            raise UserError(f"{path}: a run with {other}, not with these {terms}; remove it, or give another --out")
    paths = {run: folder / f"{run[0].replace(',', '').replace(' ', '_')}_{run[1]}.json" for run in runs}
    return {run: path for run, path in paths.items() if not path.exists()}


def read_kept_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs in a folder, by setting."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["setting"], []).append(run)
    return runs


def with_error(values: list[float]) -> str:
    """Mean and standard error of several runs."""
    return f"{mean(values):.0f} ± {stdev(values) / len(values) ** 0.5:.0f}" if len(values) > 1 else f"{values[0]:.0f}"
