"""A driver with little real driving: C begins in M's dream, and learns in reality only at the end.

    python -m recipes.dream_first [RUN FOLDER]

Rounds are as in recipes/dream.py, but fewer. The rollouts go to datasets/<path of the run folder, / as _>. Stopped at
any time, the same command goes on where it was.
"""

from collections.abc import Sequence

from recipes.dream import begin, epochs, learn
from recipes.steps import open_recipe
from utils.commandline import run_script

SECOND_V = 11  # the round before which V learns from what it has seen so far
ROUNDS = 20
MORE_EPOCHS = 120  # of M that begins anew, beyond those of its rounds
DREAMED, DRIVEN = 80, 9  # generations of the last C, in the dream and in reality
REALITY = ["--env", "fast", "--temperature", 1, "--beginnings", 1]


def main(argv: Sequence[str] | None = None) -> None:
    recipe = open_recipe("recipes.dream_first", __doc__, argv, "dream_first", ["dream"])
    begin(recipe, SECOND_V)
    learn(recipe, SECOND_V, range(SECOND_V, ROUNDS + 1), MORE_EPOCHS, 40)
    recipe.train("mdrnn_last", "trainmdrnn.py", "--epochs", MORE_EPOCHS + epochs(SECOND_V, ROUNDS + 1))
    recipe.forget(ROUNDS + 1, "ctrl")  # with what M knows now, a new one gets further
    recipe.train("dreamed", "traincontroller.py", "--generations", DREAMED)
    recipe.train("driven", "traincontroller.py", "--generations", DREAMED + DRIVEN, *REALITY)
    recipe.score()


if __name__ == "__main__":
    run_script(main)
