"""A driver that has never driven while it learned: from random rollouts alone, V and M learn from what it sees, and C
learns in M's dream. Rounds are small, so that C stays near what M has seen.

    python -m recipes.dream [RUN FOLDER]

The rollouts go to datasets/<path of the run folder, / as _>. Stopped at any time, the same command goes on where it
was.
"""

import shutil
from collections.abc import Sequence
from functools import partial

from recipes.steps import Recipe, open_recipe
from utils.commandline import run_script

ROLLOUTS, NOISE = 10, 0.2  # of a round
GENERATIONS = 8  # of a round


def main(argv: Sequence[str] | None = None) -> None:
    recipe = open_recipe("recipes.dream", __doc__, argv, "dream", "dream")
    recipe.generate(0, 100)
    learn(recipe, range(1, 26), 3, 16)
    learn(recipe, range(26, 61), 6, 80)
    recipe.score()


def learn(recipe: Recipe, rounds: range, vae_epochs: int, generations: int) -> None:
    """V learns on from all rollouts so far, to so many epochs in all. What it sees means something else to C then,
    which begins anew, with so many generations. Then a round is some epochs of M, some generations of C, and rollouts
    of it."""
    recipe.train(f"vae_{rounds[0]}", "trainvae.py", "--epochs", vae_epochs)
    recipe.once(f"forget_{rounds[0]}", shutil.rmtree, recipe.logdir / "ctrl", True)
    for number in rounds:
        recipe.train(f"mdrnn_{number}", "trainmdrnn.py", "--epochs", sum(map(epochs, range(1, number + 1))))
        done = GENERATIONS * (number - rounds[0])
        recipe.train(f"ctrl_{number}", "traincontroller.py", "--generations", generations + done)
        recipe.generate(number, ROLLOUTS, "--noise", NOISE)


def epochs(number: int) -> int:
    """Of M in a round: its training takes equally long in all of them, although the dataset grows."""
    return 210 // (number + 7)


if __name__ == "__main__":
    run_script(partial(main, None))
