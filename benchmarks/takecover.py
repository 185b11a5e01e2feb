"""Measure Take Cover, and M's dream of it, beside their plain forms. Rows as those of throughput.py.

python -m benchmarks.takecover
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import limits, reference
from benchmarks.ours import CPU, dream_rate, drive_random, one_core, some_dreams
from benchmarks.table import Table, rate
from envs import make_env
from envs.games import TAKECOVER
from models.mdrnn import MDRNN
from utils.commandline import ScriptParser, run_script
from utils.dreams import MAX_DREAMS
from utils.precision import fast_dtype
from utils.provenance import processor


def main(argv: Sequence[str] | None = None) -> None:
    ScriptParser(__file__, __doc__).parse_args(argv)
    one_core()
    print(f"{processor()}, {TAKECOVER.versions}\n")
    table = Table("plain")
    ours, theirs = make_env(TAKECOVER.training_kind), reference.PlainTakeCover()
    drive_random(TAKECOVER, ours, 10)  # compiles
    table.row(
        "Take Cover: environment steps",
        lambda: rate(lambda: drive_random(TAKECOVER, ours, 3000)),
        lambda: rate(lambda: theirs.drive(1000)),
        "–",
    )
    mdrnn = MDRNN(TAKECOVER.sizes)
    with tempfile.TemporaryDirectory() as folder:
        dreams = some_dreams(TAKECOVER, mdrnn)
        table.row(
            f"Take Cover: dream steps, {MAX_DREAMS} at once",
            lambda: dream_rate(dreams, 1, Path(folder)),
            lambda: rate(lambda: reference.dream_steps(mdrnn, 1000)),
            "8,000 /s",
            lambda: limits.peak(fast_dtype(CPU)) / limits.predicting(TAKECOVER.sizes),
        )


if __name__ == "__main__":
    run_script(main)
