"""The paper's second experiment (section 4): C learns Take Cover inside M's dream of it, and is then scored in the real
game. C learns by a policy gradient, which earns more than the paper's CMA-ES.

    python -m recipes.doom [RUN FOLDER]

The rollouts go to datasets/<path of the run folder, / as _>. Before C begins, M is compared with the real game
(studies/end_head.py). Stopped at any time, the same command goes on where it was.
"""

from collections.abc import Sequence

from recipes.steps import open_recipe
from utils.commandline import run_script


def main(argv: Sequence[str] | None = None) -> None:
    recipe = open_recipe("recipes.doom", __doc__, argv, "doom", ["takecover", "gradient"])
    recipe.generate(0, 8000)
    recipe.train("vae", "trainvae.py")
    recipe.train("mdrnn", "trainmdrnn.py")
    data, logdir = ["--dataset", recipe.dataset], ["--logdir", recipe.logdir]
    recipe.once("check", recipe.run, "-m studies.end_head", *logdir, *data)
    recipe.train("ctrl", "traincontroller.py")
    for name in ("side-by-side", "dream"):
        film = ["--record", recipe.logdir / f"{name}.mp4"]
        recipe.once(name, recipe.run, "play.py", *logdir, f"--{name}", *film)
    recipe.score()


if __name__ == "__main__":
    run_script(main)
