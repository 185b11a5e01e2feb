"""Where the time of a controller step goes, and how it changes with the number of cars in lockstep.

    python benchmarks/profile_step.py --logdir exp_dir

Drives the run folder's controller on one core. A step is one car's: environment, V, M and C.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script's own folder is there, not the project's

from envs.fast_carracing import FastCarRacing  # noqa: E402
from envs.games import CARRACING  # noqa: E402
from models.world_model import WorldModel  # noqa: E402
from utils.commandline import ScriptParser, run_script  # noqa: E402
from utils.precision import fast_dtype  # noqa: E402
from utils.rollouts import Episode, EpisodeRunner  # noqa: E402
from utils.run_folder import load_controller, load_world_weights  # noqa: E402

WARM_UP = 60  # steps: past the zooming frames
STEPS = 6000  # of single cars, for every row


class Stopwatch:
    """Adds up the time spent in one method of a class, from outside."""

    def __init__(self, owner: type, name: str):
        method = getattr(owner, name)
        self.seconds = 0.0

        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = method(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            return result

        setattr(owner, name, timed)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder with V, M and C")
    args = parser.parse_args(argv)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    controller = load_controller(args.logdir)
    vector = controller.to_vector().numpy()
    weights = load_world_weights(args.logdir, controller.sizes)

    parts = {
        "drawing": Stopwatch(FastCarRacing, "_render"),
        "environment": Stopwatch(FastCarRacing, "step"),
        "encoder": Stopwatch(WorldModel, "_encode"),
        "models": Stopwatch(WorldModel, "step"),
    }
    print("microseconds a step\n")
    print("| cars in lockstep | physics | drawing | V | M and C | the loop | in all | steps/s |")
    print("|---|---|---|---|---|---|---|---|")
    for cars in (1, 4, 8, 16, 32, 64):
        dtype = fast_dtype(torch.device("cpu"))
        runner = EpisodeRunner(CARRACING, "fast", weights, cars, "cpu", dtype)
        for number in range(cars):
            runner.submit(number, Episode(vector, number))
        for _ in range(WARM_UP):
            runner.advance()
        for part in parts.values():
            part.seconds = 0.0
        rounds = max(50, min(500, STEPS // cars))
        start = time.perf_counter()
        for _ in range(rounds):
            runner.advance()
        microsecond = 1e-6 * rounds * cars
        total = (time.perf_counter() - start) / microsecond
        drawing, environment, encoder, models = (part.seconds / microsecond for part in parts.values())
        row = np.array([environment - drawing, drawing, encoder, models - encoder, total - environment - models, total])
        print(f"| {cars} | {' | '.join(f'{value:.0f}' for value in row)} | {1e6 / total:,.0f} |", flush=True)


if __name__ == "__main__":
    run_script(main)
