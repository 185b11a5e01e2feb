"""The recipe of the driver in pretrained/ (docs/RESULTS.md). Round 0: a driver from random rollouts. Rounds 1 and 2: V
and M learn on from what the driver sees, and another evolves with them (the iterative training of the paper's section
5).

    python -m recipes.reproduce [RUN FOLDER]

The rollouts go to datasets/<path of the run folder, / as _>. The drivers of rounds 0 and 1 stay in <RUN FOLDER>/round_0
and round_1, run folders of their own. Stopped at any time, the same command goes on where it was.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from recipes.steps import Recipe, open_recipe
from utils.commandline import run_script


def main(argv: Sequence[str] | None = None) -> None:
    recipe = open_recipe("recipes.reproduce", __doc__, argv, "reproduce", ["shipped"])
    recipe.generate(0, 300)
    learn(recipe, 0, 3, 6, 20)
    recipe.generate(1, 400)
    recipe.once("keep_0", keep, recipe.logdir, 0)
    learn(recipe, 1, 6, 30, 30)
    recipe.generate(2, 400)
    recipe.once("keep_1", keep, recipe.logdir, 1)
    # By the size of differences: by rank, a driver as good as this gets faster and faster and leaves the road more
    # often. One mean is better than another by little now, which many tracks must show.
    careful = ["--search", "mirrored-by-size", "--eval-episodes", 256]
    learn(recipe, 2, 12, 54, 10, "--warm-start", recipe.logdir / "round_1", *careful)
    # Small steps: near a good mean the search need not look far.
    recipe.train("fine", "traincontroller.py", "--sigma", 0.0125, 0.05, "--generations", 30, *careful)
    recipe.score()


def learn(recipe: Recipe, number: int, vae_epochs: int, mdrnn_epochs: int, generations: int, *options: object) -> None:
    """A round: V and M learn on from all rollouts so far (their epochs count from the beginning), and then C evolves,
    because what the C before saw with the old ones means something else now."""
    recipe.train(f"vae_{number}", "trainvae.py", "--epochs", vae_epochs)
    recipe.train(f"mdrnn_{number}", "trainmdrnn.py", "--epochs", mdrnn_epochs)
    recipe.train(f"ctrl_{number}", "traincontroller.py", "--generations", generations, *options)


def keep(logdir: Path, number: int) -> None:
    """A round's driver gets a folder of its own. V and M learn on in their place, so they are copied; C is moved."""
    folder = logdir / f"round_{number}"
    for stage in ("vae", "mdrnn"):
        shutil.copytree(logdir / stage, folder / stage, dirs_exist_ok=True)
    if not (folder / "ctrl").exists():
        (logdir / "ctrl").rename(folder / "ctrl")


if __name__ == "__main__":
    run_script(main)
