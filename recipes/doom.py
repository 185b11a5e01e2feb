"""The paper's second experiment (section 4): C learns Take Cover inside M's dream of it, and is then scored in the real
game.

    python -m recipes.doom [RUN FOLDER]

V and M learn from random driving, and C in M's dream. Random driving meets few fireballs at a time. So V and M then
learn from what two such drivers saw, too; M and C begin anew for that. M is compared with the real game
(studies/end_head.py) before the last C begins.

The rollouts go to datasets/<path of the run folder, / as _>. Stopped at any time, the same command goes on where it
was.
"""

from collections.abc import Sequence
from functools import partial

from recipes.steps import open_recipe
from utils.commandline import run_script

RANDOM_ROLLOUTS, ROLLOUTS, NOISE = 5000, 500, 0.2
ROUNDS = 2  # of rollouts of a driver


def main(argv: Sequence[str] | None = None) -> None:
    recipe = open_recipe("recipes.doom", __doc__, argv, "takecover", "doom")
    recipe.generate(0, RANDOM_ROLLOUTS)
    recipe.train("vae_0", "trainvae.py", "--epochs", 7)
    for number in range(1, ROUNDS + 1):
        recipe.train(f"mdrnn_{number}", "trainmdrnn.py", "--epochs", 6 * number)
        recipe.train(f"ctrl_{number}", "traincontroller.py", "--generations", 15 * number)
        recipe.generate(number, ROLLOUTS, "--noise", NOISE)
    recipe.train("vae", "trainvae.py")
    recipe.forget(ROUNDS + 1, "mdrnn", "ctrl")  # what they see means something else now
    recipe.train("mdrnn", "trainmdrnn.py")
    data, logdir = ["--dataset", recipe.dataset], ["--logdir", recipe.logdir]
    recipe.once("check", recipe.run, "-m studies.end_head", *logdir, *data)
    recipe.train("ctrl", "traincontroller.py")
    for name in ("side-by-side", "dream"):
        film = ["--record", recipe.logdir / f"{name}.mp4"]
        recipe.once(name, recipe.run, "play.py", *logdir, f"--{name}", *film)
    recipe.score()


if __name__ == "__main__":
    run_script(partial(main, None))
