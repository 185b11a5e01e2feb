"""A driver that has never driven while it learned: C evolves in M's dream alone. V and M learn from random rollouts,
and after every round from ten rollouts of C. Rounds are small, so that C stays near what M has seen.

    python -m recipes.dream [RUN FOLDER]

The rollouts go to datasets/<path of the run folder, / as _>. Stopped at any time, the same command goes on where it
was.
"""

from collections.abc import Sequence

from recipes.steps import Recipe, open_recipe
from utils.commandline import run_script

ROLLOUTS, NOISE = 10, 0.2  # of a round
GENERATIONS = 8  # of a round
SECOND_V = 15  # the round before which V learns from what it has seen so far
# By the size of differences and with small steps: by rank, a good driver gets faster and faster, and leaves the road.
CAREFUL = ["--search", "mirrored-by-size", "--sigma", 0.025]


def main(argv: Sequence[str] | None = None) -> None:
    recipe = open_recipe("recipes.dream", __doc__, argv, "dream", ["dream"])
    begin(recipe, SECOND_V)
    learn(recipe, SECOND_V, range(SECOND_V, 20), 120, 40)
    recipe.forget(20, "ctrl")  # it may have found what M did not know, and be far from good driving
    learn(recipe, SECOND_V, range(20, 25), 120, 40)
    learn(recipe, SECOND_V, range(25, 51), 120, 80, *CAREFUL)
    recipe.score()


def begin(recipe: Recipe, second_v: int) -> None:
    """Random rollouts, and the rounds up to the one before which V learns from what it has seen so far."""
    recipe.generate(0, 100)
    recipe.train("vae_0", "trainvae.py", "--epochs", 3)
    learn(recipe, 1, range(1, second_v), 15, 16)
    recipe.train("vae_1", "trainvae.py", "--epochs", 8)
    recipe.forget(second_v, "mdrnn", "ctrl")  # what they see means something else now, and M may not get over it


def learn(recipe: Recipe, began: int, rounds: range, more_epochs: int, generations: int, *options: object) -> None:
    """Rounds: some epochs of M, some generations of C, and rollouts of it. M began in round `began`, and has
    `more_epochs` beyond those of the rounds since then; C has so many generations in the first of these."""
    for number in rounds:
        recipe.train(f"mdrnn_{number}", "trainmdrnn.py", "--epochs", more_epochs + epochs(began, number))
        done = generations + GENERATIONS * (number - rounds[0])
        recipe.train(f"ctrl_{number}", "traincontroller.py", "--generations", done, *options)
        recipe.generate(number, ROLLOUTS, "--noise", NOISE)


def epochs(first: int, last: int) -> int:
    """Of M, in these rounds: its training takes equally long in all of them, although the dataset grows."""
    return sum(210 // (number + 7) for number in range(first, last + 1))


if __name__ == "__main__":
    run_script(main)
