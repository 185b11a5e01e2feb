"""Drive CarRacing and store the rollouts that V and M learn from.

    python data/generation_script.py --rollouts 1000 --rootdir datasets/carracing --threads 8
    python data/generation_script.py --rootdir datasets/carracing/round_1 --seed 1 --policy controller --logdir exp_dir

Rollout j is <rootdir>/thread_<j modulo threads>/rollout_<j>.npz. What it holds depends on --seed, --policy, --env and
j alone, and with --policy controller on the driver in --logdir and on --noise. The same command again goes on where it
stopped; with a larger --rollouts it adds the missing ones.
"""

import argparse
import json
import re
import sys
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script's own folder is there, not the project's

from data.carracing import POLICIES, PolicyRunner, Rollout  # noqa: E402
from data.controller_rollouts import ControllerRunner  # noqa: E402
from envs import make_env  # noqa: E402
from utils.checkpoints import (  # noqa: E402
    fingerprint,
    load_controller,
    load_driver,
    write_json,
)
from utils.commandline import (  # noqa: E402
    UserError,
    add_device_argument,
    natural_float,
    natural_int,
    pick_device,
    positive_int,
    run_script,
    script_parser,
)
from utils.precision import fast_dtype  # noqa: E402
from utils.rollouts import worker_devices  # noqa: E402
from utils.workers import WorkerPool, cores  # noqa: E402

CONTROLLER = "controller"  # the policy that is no noise
NOISE = 0.3


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--rollouts", type=positive_int, default=1000, help="rollouts to have in the end, in all")
    parser.add_argument("--rootdir", type=Path, default=Path("datasets/carracing"), help="folder to put them in")
    parser.add_argument(
        "--threads", type=positive_int, default=8, help="folders to spread them over, and most processes to use"
    )
    parser.add_argument(
        "--policy", choices=[*POLICIES, CONTROLLER], default="brown", help="noise that drives the car, or a driver"
    )
    parser.add_argument("--logdir", type=Path, help="run folder of the driver for --policy controller")
    parser.add_argument(
        "--noise",
        type=natural_float,
        default=argparse.SUPPRESS,
        help=f"largest deviation of what is added to a driver's actions (default: {NOISE})",
    )
    parser.add_argument("--seed", type=natural_int, default=0, help="decides all tracks and actions")
    parser.add_argument("--env", choices=["fast", "gymnasium"], default="fast", help="fast drawing, or Gymnasium's own")
    add_device_argument(parser)
    args = parser.parse_args()
    if args.policy == CONTROLLER and args.logdir is None:
        parser.error("--policy controller needs the --logdir of a trained driver")
    if args.policy != CONTROLLER and (args.logdir or "noise" in args):
        parser.error("--logdir and --noise belong to --policy controller")

    settings = {
        "policy": args.policy,
        "seed": args.seed,
        "env": args.env,
        "gymnasium": version("gymnasium"),
    }
    if args.policy == CONTROLLER:
        noise = getattr(args, "noise", NOISE)
        architecture = load_controller(args.logdir).architecture
        load_driver(args.logdir, architecture, torch.device("cpu"), torch.float32)  # fail here, with one line
        settings |= {"driver": fingerprint(args.logdir, "vae", "mdrnn", "ctrl"), "noise": noise}
    present = existing_rollouts(args.rootdir)
    claim(args.rootdir, settings, present)
    jobs = [
        (number, present.get(number, args.rootdir / f"thread_{number % args.threads}" / f"rollout_{number}.npz"))
        for number in range(args.rollouts)
        if number not in present or not intact(present[number])
    ]
    if not jobs:
        print(f"nothing to do: {len(present)} rollouts are in {args.rootdir} already")
        return
    make_env(args.env).reset(seed=0)  # compiles the drawing once, rather than in every worker
    for folder in {path.parent for _, path in jobs}:
        folder.mkdir(parents=True, exist_ok=True)

    frames = 0
    start = time.perf_counter()
    workers = min(args.threads, cores(), len(jobs))
    logs = args.rootdir / "logs"
    if args.policy == CONTROLLER:
        device = pick_device(args.device)
        dtype = fast_dtype(device)
        arguments = [(args.env, args.logdir, noise, args.seed, name, dtype) for name in worker_devices(device, workers)]
        pool = WorkerPool(ControllerRunner, arguments, ControllerRunner.batch, logs)
    else:
        pool = WorkerPool(PolicyRunner, [(args.env, args.policy, args.seed)] * workers, 2, logs)
    with pool, tqdm(total=args.rollouts, initial=args.rollouts - len(jobs), unit="rollout", disable=None) as progress:
        for _, length in pool.run(jobs):
            frames += length
            progress.update()
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in existing_rollouts(args.rootdir).values())
    print(
        f"{len(jobs)} rollouts, {frames} frames, {frames / seconds:.0f} frames/s with {workers} processes; "
        f"{size / 1e6:.0f} MB in {args.rootdir}"
    )


def existing_rollouts(rootdir: Path) -> dict[int, Path]:
    """The rollouts in a folder by number, whatever --threads they were made with."""
    found = {}
    for path in sorted(rootdir.glob("thread_*/rollout_*.npz")):
        if match := re.fullmatch(r"rollout_(\d+)\.npz", path.name):
            found[int(match[1])] = path
    return found


def claim(rootdir: Path, settings: dict[str, str | int | float], present: dict[int, Path]) -> None:
    """Write the settings into the folder; raises UserError if its rollouts were made with others."""
    record = rootdir / "generation.json"
    remedy = "choose another --rootdir, or move that folder away"
    if record.exists():
        try:
            recorded = json.loads(record.read_text())
        except ValueError:
            raise UserError(f"{record}: damaged; {remedy}") from None
        if recorded != settings:
            raise UserError(f"{record}: rollouts made with {recorded} lie here, not with {settings}; {remedy}")
    elif present:
        raise UserError(f"{record}: missing, so {min(present.values())} is of an unknown kind; {remedy}")
    else:
        write_json(record, settings)


def intact(path: Path) -> bool:
    """Whether a file is whole; says so if it is not. Raises UserError if it is whole but no rollout."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, EOFError):
        print(f"{path}: damaged; it is made again", file=sys.stderr)
        return False
    if not names >= {f"{key}.npy" for key in Rollout._fields}:
        raise UserError(f"{path}: not a rollout of this script; move it away and run the same command again")
    return True


if __name__ == "__main__":
    run_script(main)
