"""Copies a trained driver into a folder small enough to be shipped: weights without the state of their optimisers.

    python -m utils.shipping --logdir reproduce --out pretrained

V and M are stored in half precision (V has 4.35 million numbers, 8.7 MB; rounding changes them less than computing in
bfloat16 does), C in float32. The evolution goes along, so that traincontroller.py can go on from there.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.commandline import ScriptParser, run_script
from utils.run_folder import fingerprint

OPTIMISATION = ("optimizer", "scheduler", "earlystopping")


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="run folder of the driver")
    parser.add_argument("--out", type=Path, default=Path("pretrained"), help="folder to copy it to")
    args = parser.parse_args(argv)
    for stage, name, dtype in (
        ("vae", "best.tar", torch.float16),
        ("mdrnn", "best.tar", torch.float16),
        ("ctrl", "best.tar", torch.float32),
        ("ctrl", "checkpoint.tar", torch.float32),
    ):
        state = load_checkpoint(args.logdir / stage / name, "train it first")
        state = {key: value for key, value in state.items() if key not in OPTIMISATION}
        state["state_dict"] = {key: weight.to(dtype) for key, weight in state["state_dict"].items()}
        if "measure" in state:  # names V and M by their files, which are others now
            measured_with = fingerprint(args.logdir, "vae", "mdrnn"), fingerprint(args.out, "vae", "mdrnn")
            state["measure"] = state["measure"].replace(*measured_with)
        path = args.out / stage / name
        save_checkpoint(path, state)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_script(main)
