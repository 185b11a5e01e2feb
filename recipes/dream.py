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
    recipe.train("vae_0", "trainvae.py", "--epochs", 3)
    learn(recipe, range(1, 15), 15, 16)
    recipe.train("vae_1", "trainvae.py", "--epochs", 8)
    begin_anew(recipe, 15)  # what it sees means something else now
    learn(recipe, range(15, 20), 40, 40)
    begin_anew(recipe, 20)  # it may have found what M did not know, and be far from good driving
    learn(recipe, range(20, 25), 40, 40)
    learn(recipe, range(25, 51), 40, 80, *CAREFUL)
    recipe.score()


def begin_anew(recipe: Recipe, number: int) -> None:
    """C is forgotten before a round."""
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
