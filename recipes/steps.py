"""What the recipes share: the scripts, run one after the other in one process. Starting them one by one would take
longer than many of the steps."""

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import play
import test_controller
import traincontroller
import trainmdrnn
import trainvae
from data import generation_script
from studies import end_head
from utils.commandline import HelpFormatter, UserError, natural_int
from utils.files import write_atomically

SCRIPTS: dict[str, Callable[[Sequence[str]], None]] = {
    "data/generation_script.py": generation_script.main,
    "trainvae.py": trainvae.main,
    "trainmdrnn.py": trainmdrnn.main,
    "traincontroller.py": traincontroller.main,
    "-m studies.end_head": end_head.main,
    "play.py": play.main,
    "test_controller.py": test_controller.main,
}
ROUNDS_PER_SEED = 1000  # so that no two runs of a recipe have a round's rollouts in common


class Recipe:
    """The steps of a run folder. A step that is done is noted in its folder `done` and not repeated, because rollouts
    are those of the driver of their time."""

    def __init__(self, logdir: Path, presets: Sequence[str], seed: int = 0):
        """presets: what all steps have in common; a later one wins."""
        self.logdir = logdir
        self.dataset = Path("datasets", str(logdir).strip("/").replace("/", "_"))
        self.seed = seed
        self.presets = [f"@presets/{preset}" for preset in presets]

    def once(self, name: str, step: Callable[..., None], *arguments: object) -> None:
        """Do a step, if it is not done. Raises UserError if it was done otherwise, by another version of the recipe."""
        stamp = self.logdir / "done" / name
        command = " ".join(map(str, [step.__name__, *self.presets, *arguments]))
        if stamp.exists():
            if stamp.read_text() != command:
                raise UserError(f"{stamp}: done otherwise, by another version of the recipe; choose another run folder")
            return
        step(*arguments)
        write_atomically(stamp, lambda file: file.write(command.encode()))

    def run(self, script: str, *options: object) -> None:
        """Run a script with the presets and these options."""
        words = [*self.presets, *map(str, options)]
        print(f"== {time.strftime('%T')} python {script} {' '.join(words)} ==")
        SCRIPTS[script](words)

    def generate(self, number: int, rollouts: int, *options: object) -> None:
        """The rollouts of a round: random ones in round 0, then what the driver of the round before sees."""
        words = ["--rootdir", self.dataset / f"round_{number}", "--rollouts", rollouts]
        words += ["--seed", ROUNDS_PER_SEED * self.seed + number]
        words += ["--policy", "controller", "--logdir", self.logdir] if number else []
        self.once(f"data_{number}", self.run, "data/generation_script.py", *words, *options)

    def train(self, name: str, script: str, *options: object) -> None:
        """V or M learns on from all rollouts so far, or C evolves, as the step `name`."""
        data = ["--dataset", self.dataset] if script != "traincontroller.py" else []
        self.once(name, self.run, script, "--logdir", self.logdir, "--seed", self.seed, *data, *options)

    def forget(self, number: int, *stages: str) -> None:
        """These stages begin anew before round `number`."""
        for stage in stages:
            self.once(f"forget_{stage}_{number}", shutil.rmtree, self.logdir / stage, True)

    def score(self) -> None:
        """The score of the driver and a film of it."""
        results = ["--json", self.logdir / "score.json", "--record", self.logdir / "driver.gif"]
        self.run("test_controller.py", "--logdir", self.logdir, *results)


def open_recipe(
    module: str, description: str | None, argv: Sequence[str] | None, logdir: str, presets: Sequence[str]
) -> Recipe:
    """The recipe that a command line names; without one, in the folder `logdir`."""
    parser = argparse.ArgumentParser(f"python -m {module}", description=description, formatter_class=HelpFormatter)
    parser.add_argument("logdir", type=Path, nargs="?", default=Path(logdir), help="run folder")
    parser.add_argument("--seed", type=natural_int, default=0, help="decides all that is random")
    args = parser.parse_args(argv)
    return Recipe(args.logdir, presets, args.seed)
