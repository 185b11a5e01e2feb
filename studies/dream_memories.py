"""What must M have seen to be dreamed in, and do several M dream better than one?

    python -m studies.dream_memories --logdir dream_first --dataset datasets/dream_first --random datasets/random
    python -m studies.dream_memories    # prints the runs that are kept

Every M learns anew, as presets/dream says, with the V of --logdir: from the rollouts of --dataset, most of which a
driver made that learned in dreams, or from the random ones of --random. C evolves from zeros in the dream of the M of
its own seed, or in those of all seeds, each dream in one of them. What is compared is C's real return, on selection
tracks in the fast environment. Each run is kept in <--out>/dream_memories/, and one that lies there is not repeated, so
that this may be stopped at any time.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import trainmdrnn
from envs.games import DREAM
from evolution.run import open_run
from evolution.train import evolve
from studies.dreaming import as_preset
from studies.kept_runs import add_study_arguments, chosen_settings, keep_runs, read_kept_runs, with_error
from studies.scores import real_score
from utils.commandline import ScriptParser, positive_int, run_script
from utils.dreams import dream_pool
from utils.locks import locked
from utils.rollouts import Episode, Outcome
from utils.run_folder import copy_stage, copy_world, load_dreams
from utils.tracks import selection_tracks
from utils.workers import Pool, cores


class Setting(NamedTuple):
    """Whether C dreams in the M of all seeds, or in that of its own; whether M has seen random rollouts alone."""

    several: bool = False
    random: bool = False


SETTINGS = {
    "one M": Setting(),
    "several M": Setting(several=True),
    "one M, random rollouts alone": Setting(random=True),
}


class DreamsOfMany:
    """What a pool of dreams is to `evolve`, over several: an episode's seed decides which of them dreams it."""

    def __init__(self, pools: list[Pool]):
        self._pools = pools

    def __enter__(self) -> "DreamsOfMany":
        return self

    def __exit__(self, *exception: object) -> None:
        """The pools are closed by those who opened them."""

    def run(self, jobs: Iterable[Episode]) -> Iterator[tuple[int, Outcome]]:
        """Do all jobs; yield (position in `jobs`, result) as each is finished."""
        episodes = list(jobs)
        for turn, pool in enumerate(self._pools):
            numbers = [number for number, episode in enumerate(episodes) if episode.seed % len(self._pools) == turn]
            for index, outcome in pool.run(episodes[number] for number in numbers):
                yield numbers[index], outcome


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    add_study_arguments(parser)
    parser.add_argument("--dataset", type=Path, help="rollouts that M learns from")
    parser.add_argument("--random", type=Path, help="as many random ones")
    parser.add_argument("--epochs", type=positive_int, default=150, help="of every M")
    parser.add_argument("--generations", type=positive_int, default=80, help="of a run")
    args = parser.parse_args(argv)
    args.only = chosen_settings(parser, args.only, SETTINGS)
    if args.logdir and not (args.dataset and args.random):
        parser.error("argument --logdir: needs --dataset and --random as well")

    out = args.out / "dream_memories"
    if args.logdir:
        runs = [(name, seed) for name in args.only for seed in range(args.seeds)]
        terms = {"epochs": args.epochs, "generations": args.generations, "tracks": args.tracks}
        keep_runs(args, out, runs, terms, train_one, stages=("vae",))
    print_table(read_kept_runs(out))


def train_one(args: Any, folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Train the M that are not trained yet, evolve C in their dreams; its dreamed mean and its real returns."""
    setting = SETTINGS[name]
    seeds = range(args.seeds) if setting.several else [seed]
    worlds = [train_memory(args, setting.random, other) for other in seeds]
    copy_world(worlds[0], folder)
    game, sizes, settings, dreaming = as_preset(folder, "--seed", seed)
    with locked(folder / "ctrl"), ExitStack() as stack:
        run = open_run(folder, game, DREAM, sizes, settings, None, reload=False)
        dreams = [load_dreams(world, dreaming) for world in worlds]
        pools = [
            stack.enter_context(dream_pool(one, sizes, cores(), settings.episodes, folder / "tmp")) for one in dreams
        ]
        evolve(run, settings, DreamsOfMany(pools), generations=args.generations)
    returns, _ = real_score(folder, selection_tracks(args.tracks))
    print(f"dreamed {run.best:.1f}, real {returns.mean():.1f} +- {returns.std():.1f}")
    return {"dreamed": run.best, "real": returns.tolist()}


def train_memory(args: Any, random: bool, seed: int) -> Path:
    """The run folder of an M that has seen these rollouts, trained if it is not there."""
    folder = args.logdir / "studies" / "memories" / f"{'random' if random else 'own'}_{seed}"
    copy_stage(args.logdir, folder, "vae")
    words = ["@presets/dream", "--logdir", folder, "--dataset", args.random if random else args.dataset]
    trainmdrnn.main([*map(str, words), "--epochs", str(args.epochs), "--seed", str(seed)])
    return folder


def print_table(runs: dict[str, list[dict[str, Any]]]) -> None:
    print("\n| C dreams in | runs | dreamed | real | each run |\n|---|---|---|---|---|")
    for name, group in sorted(runs.items(), key=lambda item: -mean(mean(run["real"]) for run in item[1])):
        real = [mean(run["real"]) for run in group]
        cells = [name, f"{len(group)}", with_error([run["dreamed"] for run in group]), with_error(real)]
        print(f"| {' | '.join(cells)} | {' '.join(f'{value:.0f}' for value in real)} |")


if __name__ == "__main__":
    run_script(main)
