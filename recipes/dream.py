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
# By the size of differences and with small steps: by rank, a good driver gets faster and faster, and leaves the road.
CAREFUL = ["--search", "mirrored-by-size", "--sigma", 0.025]


def main(argv: Sequence[str] | None = None) -> None:
    recipe = open_recipe("recipes.dream", __doc__, argv, "dream", "dream")
    recipe.generate(0, 100)
    see(recipe, 0, 3)
    learn(recipe, range(1, 15), 15, 16)
    see(recipe, 1, 8)
    learn(recipe, range(15, 31), 40, 80)
    learn(recipe, range(31, 61), 40, 208, *CAREFUL)
    recipe.score()


def see(recipe: Recipe, number: int, epochs: int) -> None:
    """V learns on from all rollouts so far. What it sees means something else to C then, which begins anew."""
    recipe.train(f"vae_{number}", "trainvae.py", "--epochs", epochs)
    recipe.once(f"forget_{number}", shutil.rmtree, recipe.logdir / "ctrl", True)


def learn(recipe: Recipe, rounds: range, more_epochs: int, generations: int, *options: object) -> None:
    """Rounds: some epochs of M, some generations of C, and rollouts of it. M has `more_epochs` beyond those of its
    rounds, and C so many generations in the first of these."""
    for number in rounds:
        recipe.train(f"mdrnn_{number}", "trainmdrnn.py", "--epochs", more_epochs + epochs(number))
        done = generations + GENERATIONS * (number - rounds[0])
        recipe.train(f"ctrl_{number}", "traincontroller.py", "--generations", done, *options)
        recipe.generate(number, ROLLOUTS, "--noise", NOISE)


def epochs(number: int) -> int:
    """Of M, up to this round: its training takes equally long in all of them, although the dataset grows."""
    return sum(210 // (round_ + 7) for round_ in range(1, number + 1))


if __name__ == "__main__":
    run_script(partial(main, None))
