"""What Take Cover gives to those who do not look: the bars that a driver's score is measured by.

    python -m studies.blind_driving

Prints a table and keeps every length in <--out>/blind_driving.json. The episodes are those of test_controller.py.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from data.policies import Policy, held, stay, sweep, white
from envs.games import TAKECOVER
from studies.scores import policy_lengths
from utils.commandline import ScriptParser, positive_int, run_script
from utils.files import write_json
from utils.tracks import TEST_TRACKS

OUT = Path(__file__).parent.parent / "docs" / "results"
POLICIES: dict[str, Policy] = {
    "stay": stay,
    "uniform, anew every step": white,
    "uniform, held for 1 to 10 steps": held,
    "from wall to wall, 90 steps each way": sweep,
    "from wall to wall, 125 steps": partial(sweep, turn=125),  # the best of 60, 75, 90, 100, 110, 125, 150, 180
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--episodes", type=positive_int, default=1000, help="episodes of each policy")
    parser.add_argument("--out", type=Path, default=OUT, help="where the lengths are kept")
    args = parser.parse_args(argv)
    seeds = list(TEST_TRACKS[: args.episodes])
    with tempfile.TemporaryDirectory() as logs:
        lengths = {name: policy_lengths(TAKECOVER, policy, seeds, Path(logs)) for name, policy in POLICIES.items()}
    write_json(args.out / "blind_driving.json", {name: steps.tolist() for name, steps in lengths.items()})
    print_table(lengths)


def print_table(lengths: dict[str, np.ndarray]) -> None:
    print("| driving | episodes | score | standard error | median | the whole time |\n|---|---|---|---|---|---|")
    for name, steps in lengths.items():
        error, survived = steps.std() / len(steps) ** 0.5, (steps >= TAKECOVER.max_steps).mean()
        score = f"{steps.mean():.0f} ± {steps.std():.0f}"
        print(f"| {name} | {len(steps)} | {score} | {error:.1f} | {np.median(steps):.0f} | {survived:.1%} |")


if __name__ == "__main__":
    run_script(main)
