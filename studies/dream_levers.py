"""What makes a driver good that learns in M's dream: rounds as in recipes/dream.py, with one factor changed at a time.

    python -m studies.dream_levers --logdir dream --out my_results
    python -m studies.dream_levers    # prints the runs that are kept

Every setting is tried with each of --seeds seeds and the V of --logdir. What is compared is C's real return, on
selection tracks in the fast environment, after half of the rounds and after all. Each run is kept in
<--out>/dream_levers/, and one that lies there is not repeated, so that this may be stopped at any time.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch

from data.loaders import find_rollouts, load_rollout
from envs.dream import DreamSettings
from envs.games import DREAM
from evolution.run import open_run
from evolution.search import MIRRORED_BY_SIZE
from evolution.train import evolve
from recipes.dream import GENERATIONS, NOISE, ROLLOUTS, epochs
from recipes.steps import Recipe
from studies.kept_runs import missing_runs, read_kept_runs, with_error
from studies.scores import real_score
from traincontroller import parse_arguments, settings_of
from utils.checkpoints import write_json
from utils.commandline import ScriptParser, UserError, positive_int, run_script
from utils.dreams import dream_pool
from utils.locks import locked
from utils.precision import fast_dtype
from utils.run_folder import fingerprint, load_dreams, load_game
from utils.tracks import selection_tracks
from utils.workers import cores

ROOT = Path(__file__).parent.parent
FIRST_GENERATIONS = 16


class Setting(NamedTuple):
    """What a run changes: of the dreams, of the search, what C sees, the noise in its rollouts, and whether M sees
    them, or as many random ones instead."""

    dream: dict[str, Any] = {}
    search: dict[str, Any] = {}
    inputs: str = "z"
    noise: float = NOISE
    own_rollouts: bool = True


SETTINGS = {
    "base": Setting(),
    "temperature 1": Setting({"temperature": 1.0}),
    "temperature 1.7": Setting({"temperature": 1.7}),
    "horizon 300": Setting({"horizon": 300}),
    "all dreams begin anywhere": Setting({"beginnings": 0.0}),
    "all dreams begin where rollouts do": Setting({"beginnings": 1.0}),
    "pairs count by size": Setting(search={"search": MIRRORED_BY_SIZE}),
    "sigma 0.025": Setting(search={"sigma": 0.025, "memory_sigma": 0.025}),
    "z and h": Setting(inputs="zh"),
    "no noise in its rollouts": Setting(noise=0.0),
    "random rollouts only": Setting(own_rollouts=False),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, help="run folder with V; without it, nothing is trained")
    parser.add_argument("--rounds", type=positive_int, default=20, help="rounds of a run")
    parser.add_argument("--tracks", type=positive_int, default=100, help="tracks that a C is scored on")
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs of each setting")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="where the runs are kept")
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="some of the settings, by name")
    args = parser.parse_args(argv)
    if unknown := set(args.only or []) - SETTINGS.keys():
        parser.error(f"no setting {sorted(unknown)}; there are {list(SETTINGS)}")

    out = args.out / "dream_levers"
    if args.logdir:
        train(args, out)
    elif not any(out.glob("*.json")):
        raise UserError(f"{out}: no runs are kept there; train some with --logdir")
    print_table(out)


def train(args: Any, out: Path) -> None:
    """Train and keep the runs that are not kept yet. Raises UserError if others are kept that cannot be compared."""
    terms = {"rounds": args.rounds, "tracks": args.tracks, "vae": fingerprint(args.logdir, "vae")}
    runs = [(name, seed) for seed in range(args.seeds) for name in args.only or SETTINGS]
    for (name, seed), path in missing_runs(out, runs, terms).items():
        print(f"== {name}, seed {seed} ==")
        recipe = Recipe(args.logdir / "studies" / "dream_levers" / path.stem, "dream", seed)
        shutil.copytree(args.logdir / "vae", recipe.logdir / "vae", dirs_exist_ok=True)
        scores = train_one(recipe, SETTINGS[name], args.rounds, args.tracks)
        write_json(path, {"setting": name, "options": SETTINGS[name]._asdict(), "seed": seed} | terms | scores)
        shutil.rmtree(recipe.logdir)
        shutil.rmtree(recipe.dataset)


def train_one(recipe: Recipe, setting: Setting, rounds: int, tracks: int) -> dict[str, Any]:
    """The rounds of a run; returns its scores after half of them and after all."""
    own = ROLLOUTS * rounds
    recipe.generate(0, 100 if setting.own_rollouts else 100 + own)
    scores: list[dict[str, Any]] = []
    for number in range(1, rounds + 1):
        recipe.train(f"mdrnn_{number}", "trainmdrnn.py", "--epochs", epochs(1, number))
        generations = FIRST_GENERATIONS + GENERATIONS * (number - 1)
        recipe.once(f"ctrl_{number}", dream_on, recipe.logdir, recipe.preset, recipe.seed, setting, generations)
        if number in (rounds // 2, rounds):
            scores.append(score(recipe, tracks))
        if setting.own_rollouts and number < rounds:
            recipe.generate(number, ROLLOUTS, "--noise", setting.noise)
    return {"scores": scores}


def dream_on(logdir: Path, preset: str, seed: int, setting: Setting, generations: int) -> None:
    """C evolves in the dream, up to so many generations in all, as the preset says but for the setting."""
    args = parse_arguments([preset, "--logdir", str(logdir), "--seed", str(seed)])
    game, sizes = load_game(logdir)
    sizes = replace(sizes, inputs=setting.inputs)
    settings = replace(settings_of(args), patience=game.patience, **setting.search)
    dreaming = DreamSettings(args.temperature, dtype=fast_dtype(torch.device("cpu")), beginnings=args.beginnings)
    dreaming = replace(dreaming, **setting.dream)
    with locked(logdir / "ctrl"):
        run = open_run(logdir, game, DREAM, sizes, settings, None, reload=True)
        dreams = load_dreams(logdir, dreaming)
        with dream_pool(dreams, sizes, cores(), settings.episodes, logdir / "tmp") as pool:
            evolve(run, settings, pool, generations=generations)


def score(recipe: Recipe, tracks: int) -> dict[str, Any]:
    """The real return of C, and how many steps V and M have seen."""
    returns, lengths = real_score(recipe.logdir, selection_tracks(tracks))
    steps = sum(len(load_rollout(path, ("rewards",))[0]) for path in find_rollouts(recipe.dataset))
    print(f"real return {returns.mean():.1f} +- {returns.std():.1f} after {steps} real steps")
    return {"real_steps": steps, "returns": returns.tolist(), "lengths": lengths.astype(int).tolist()}


def print_table(out: Path) -> None:
    runs = read_kept_runs(out)
    print("\n| setting | real steps | mean at half | mean | each run | over tracks | below 500 |")
    print("|---|---|---|---|---|---|---|")
    for name, group in sorted(runs.items(), key=lambda item: -mean(last_means(item[1]))):
        last = [run["scores"][-1] for run in group]
        halves = [mean(run["scores"][0]["returns"]) for run in group]
        cells = [
            name,
            f"{mean(row['real_steps'] for row in last):.0f}",
            with_error(halves),
            with_error(last_means(group)),
        ]
        cells += [" ".join(f"{value:.0f}" for value in last_means(group))]
        returns = np.array([row["returns"] for row in last])
        cells += [f"± {returns.std(axis=1).mean():.0f}", f"{(returns < 500).mean():.0%}"]
        print(f"| {' | '.join(cells)} |")


def last_means(runs: list[dict[str, Any]]) -> list[float]:
    return [mean(run["scores"][-1]["returns"]) for run in runs]


if __name__ == "__main__":
    run_script(main)
