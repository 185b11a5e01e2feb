"""Disturbs the real pipeline at small scale, at random moments, and compares what it ends with: the weights of all
checkpoints must be those of an undisturbed run.

    nice python tests/chaos.py --faults 300 --folder /tmp/chaos    # hours; stopped, the same command goes on
    python tests/chaos.py --faults 0 --folder /tmp/chaos           # prints the table

A pass is generation, V, M and C in a folder of its own. Every command suffers up to three faults; then it is given
again until it is done, in this script's process, which saves the imports. If it refuses a damaged file, what its one
line advises is done. A disk is filled with a ballast file if --folder is on one with less than a gigabyte of space (a
small tmpfs); elsewhere no file of the command may grow beyond a random size.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import ROOT, heed_ctrl_c, launch, run

from utils.checkpoints import load_checkpoint
from utils.commandline import UserError
from utils.files import write_json
from utils.locks import LOCK

STAGES = ("data", "vae", "mdrnn", "ctrl")
KINDS = ("SIGKILL", "SIGTERM", "Ctrl-C", "SIGSTOP", "full disk", "truncated file", "flipped bit", "second command")
ROLLOUTS, EPOCHS, GENERATIONS = 5, 3, 3  # of a pass
STOPS = (1, 1, 3, 3, 10, 60)  # seconds
SMALL_DISK = 1 << 30  # bytes
LONGEST = 1800  # seconds; a command that takes longer waits for something that never comes
ENDS = {0: "went on", 1: "one clear line", 130: "stopped", -signal.SIGKILL: "stopped", -signal.SIGTERM: "stopped"}
ADVICE_LIMIT = 8  # lines that one command may refuse with, one after the other
Record = dict[str, Any]


class Mistake(Exception):
    """What must not happen."""


class Pipeline:
    """The commands of a pass, in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.data, self.logdir = folder, folder / "data", folder / "run"

    def command(self, stage: str) -> list[object]:
        """A stage's script and options."""
        logdir, data = ["--logdir", self.logdir], ["--dataset", self.data]
        return {
            "data": ["data/generation_script.py", "--rollouts", ROLLOUTS, "--patience", 30, "--threads", 2,
                     "--rootdir", self.data],
            "vae": ["trainvae.py", *logdir, *data, "--epochs", EPOCHS, "--batch-size", 32],
            "mdrnn": ["trainmdrnn.py", *logdir, *data, "--epochs", EPOCHS, "--batch-size", 4],
            "ctrl": ["traincontroller.py", *logdir, "--pop-size", 4, "--n-samples", 1, "--generations", GENERATIONS,
                     "--eval-episodes", 2, "--max-workers", 2],
        }[stage]  # fmt: skip

    def stage_folder(self, stage: str) -> Path:
        return self.data if stage == "data" else self.logdir / stage

    def finish(self, stage: str) -> str:
        """Give a stage's command until it is done, in this process; returns the line that it refused with at first, if
        it did. Raises Mistake if it cannot be done."""
        first, options = "", []
        for _ in range(ADVICE_LIMIT):
            script, *words = self.command(stage)
            result = run(str(script), *words, *options)
            if result.returncode == 0:
                return first
            line = refusal(result.returncode, result.stderr)
            first, options = first or line, self.follow(line, stage)
        raise Mistake(f"{stage} is refused for ever: {line}")

    def follow(self, line: str, stage: str) -> list[str]:
        """Do what a line advises about a damaged file; returns the options to give the command again with. Raises
        Mistake if it advises nothing that helps."""
        path = Path(re.sub(r"^error: (.*?): .*", r"\1", line))
        if "move that folder away" in line:
            shutil.rmtree(self.data)
            self.finish("data")
        elif "remove it and repeat" in line or "move it away" in line:
            path.unlink(missing_ok=True)
            self.finish("data")
        elif "--noreload" in line:
            owner = path.parent.name
            if owner == stage:
                return ["--noreload"]
            path.unlink()
            self.finish(owner)
        else:
            raise Mistake(f"no advice: {line}")
        return []

    def weights(self) -> dict[str, Any]:
        """The weights of all checkpoints of a pass. Raises Mistake if a command cannot be done."""
        found = {}
        for stage in STAGES[1:]:
            for name in ("best.tar", "checkpoint.tar"):
                path = self.logdir / stage / name
                try:
                    state = load_checkpoint(path, "")
                except UserError:  # a later stage would say so
                    path.unlink()
                    self.finish(stage)
                    state = load_checkpoint(path, "")
                found[f"{stage}/{name}"] = state["state_dict"]
        return found


def refusal(status: int, errors: str) -> str:
    """The one line of a command that failed. Raises Mistake if it is none."""
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if status != 1 or len(lines) != 1 or "Traceback" in errors:
        raise Mistake(f"status {status}: {errors[-2000:]}")
    return lines[0]


def suffer(pipeline: Pipeline, stage: str, kind: str, seconds: float, chance: random.Random) -> Record | None:
    """Give a stage's command and disturb it after a random part of so many seconds of work; None if it was done before
    that. Raises Mistake on an end that must not be."""
    ballast = limit = None
    if kind == "full disk":
        room = int(10 ** chance.uniform(3, 7.3))  # bytes
        if shutil.disk_usage(pipeline.folder).free < SMALL_DISK:
            ballast = fill_disk(pipeline.folder, room)
        else:
            limit = room
    script, *words = map(str, pipeline.command(stage))
    options: dict[str, Any] = {"start_new_session": True}
    if limit is not None:
        options["preexec_fn"] = lambda: (heed_ctrl_c(), resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    lock = pipeline.stage_folder(stage) / LOCK
    lock.unlink(missing_ok=True)  # nobody is in there now
    process = launch(script, *words, **options)
    begun = wait_for_work(process, lock) if chance.random() < 0.9 else False
    time.sleep(chance.uniform(0, seconds))
    victim, struck = "command", time.monotonic()
    if process.poll() is None:
        if kind in ("SIGKILL", "SIGTERM", "SIGSTOP"):
            victim = send(process.pid, getattr(signal, kind), chance)
        elif kind == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        elif kind == "second command":
            victim = second_command(pipeline, stage)
    elif kind != "full disk":
        process.communicate()
        return None
    try:
        _, errors = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        raise Mistake(f"{kind} of {victim}: no end after {LONGEST} s") from None
    finally:
        left = wait_for_end(process.pid)
        if ballast:
            ballast.unlink()
    if left:
        raise Mistake(f"{kind} of {victim}: processes are left: {left}")
    status = process.returncode
    line = refusal(status, errors) if status == 1 else ""
    starting = not begun and kind == "Ctrl-C"  # Python itself answers before the script does
    if (
        status not in ENDS
        and not (starting and status in (-signal.SIGINT, 1))
        or ("Traceback" in errors and not starting)
    ):
        raise Mistake(f"{kind} of {victim}: status {status}: {errors[-2000:]}")
    end = ENDS.get(status, "stopped")
    lasted = round(time.monotonic() - struck, 1)  # from the fault to the end
    return {"stage": stage, "kind": kind, "victim": victim, "end": end, "line": line, "seconds": lasted}


def wait_for_work(process: subprocess.Popen, lock: Path) -> bool:
    """Wait until the command has begun to work, or has ended; returns whether it works."""
    while process.poll() is None:
        if lock.exists():
            return True
        time.sleep(0.05)
    return False


def fill_disk(folder: Path, room: int) -> Path:
    """Write a file that leaves so many bytes on the disk."""
    path = folder / "ballast"
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(folder).free - room))
    return path


def send(session: int, number: signal.Signals, chance: random.Random) -> str:
    """Send a signal to a random process of the session, to each kind of them equally often; a stopped one is woken
    later. Returns what it is."""
    roles = processes_of(session)
    role = chance.choice(sorted(set(roles.values())))
    pid = chance.choice([pid for pid, its_role in roles.items() if its_role == role])
    try:
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(chance.choice(STOPS))
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return f"{role} at its end"
    return role


def processes_of(session: int) -> dict[int, str]:
    """The processes of a session that are alive, and what each is."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, its_session = (path / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if int(its_session) == session and state != "Z":
            role = "worker" if b"forkserver" in words else "helper"
            if int(parent) == session:
                role = "fork server" if b"forkserver" in words else "helper"
            found[int(path.name)] = "command" if int(path.name) == session else role
    return found


def wait_for_end(session: int) -> dict[int, str]:
    """Processes that outlive their command by more than 30 seconds; they are killed."""
    end = time.monotonic() + 30
    while (left := processes_of(session)) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


def second_command(pipeline: Pipeline, stage: str) -> str:
    """Give the same command while it runs; it must be refused, if the first is not done by then."""
    script, *words = pipeline.command(stage)
    result = run(str(script), *words)
    if result.returncode != 0 and " writes there" not in refusal(result.returncode, result.stderr):
        raise Mistake(f"a second command: {result.stderr}")
    return "refused" if result.returncode else "came too late"


def damage(pipeline: Pipeline, stage: str, kind: str, chance: random.Random) -> Record | None:
    """Cut or change a random file that is there, and give the stage's command; None if there is no file."""
    files = sorted(path for path in pipeline.folder.rglob("*") if path.is_file() and path.stat().st_size)
    if not files:
        return None
    path = chance.choice(files)
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    if kind == "truncated file":
        del content[place:]
    else:
        content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    line = pipeline.finish(stage)
    name = re.sub(r"\d+", "N", "/".join(path.relative_to(pipeline.folder).parts[-2:]))
    name = "rollout" if "rollout" in name else "latents" if "latents" in str(path) else path.name.split(".out.")[0]
    return {
        "stage": stage,
        "kind": kind,
        "victim": name,
        "end": "refused, then mended" if line else "went on",
        "line": line,
    }


def run_pass(
    folder: Path, work: dict[str, float], expected: dict[str, Any], name: str, faults: int, most: int = 3
) -> list[Record]:
    """One pass, with at most so many faults in all, and `most` of a command; returns them, and the comparison as the
    last record."""
    chance = random.Random(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pipeline = Pipeline(folder)
    records: list[Record] = []
    try:
        for stage in STAGES:
            for _ in range(min(chance.randint(1, most), faults - len(records))):
                kind = chance.choice(KINDS)
                if kind in ("truncated file", "flipped bit"):
                    record = damage(pipeline, stage, kind, chance)
                else:
                    record = suffer(pipeline, stage, kind, work[stage], chance)
                records += [record] if record else []
            pipeline.finish(stage)
        for stage in STAGES:  # what was damaged after it was used is found now
            pipeline.finish(stage)
        found = pipeline.weights()
        different = [name for name in expected if not equal_weights(found[name], expected[name])]
        return [*records, {"pass": name, "different": different}]
    except Mistake as mistake:
        return [*records, {"pass": name, "mistake": str(mistake)}]


def equal_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def run_undisturbed(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """The run to compare with: seconds of each stage, and the weights of all checkpoints."""
    pipeline, done = Pipeline(folder), folder / "seconds.json"
    seconds: dict[str, float] = json.loads(done.read_text()) if done.exists() else {}
    for stage in STAGES:
        if stage not in seconds:
            start = time.monotonic()
            pipeline.finish(stage)
            seconds[stage] = time.monotonic() - start
            write_json(done, seconds)
    return seconds, pipeline.weights()


def target(record: Record) -> str:
    """What a fault hit, in a few kinds."""
    victim, kind = record["victim"].removesuffix(" at its end"), record["kind"]
    if kind == "second command":
        return "the second is refused" if victim == "refused" else "the second comes after the first"
    if "file" not in kind and "bit" not in kind:
        return victim
    kinds = {"best.tar": "checkpoint", "checkpoint.tar": "checkpoint", "rollout": "rollout", "latents": "kept latents"}
    return kinds.get(victim, victim if victim == "generation.json" else "picture, curve, args.json, lock or log")


def print_table(records: list[Record]) -> None:
    """What was hit and what came of it, as a table of Markdown."""
    faults = [record for record in records if "kind" in record]
    rows: dict[tuple[str, str], Counter] = {}
    for record in faults:
        rows.setdefault((record["kind"], target(record)), Counter())[record["end"]] += 1
    ends = ("went on", "stopped", "one clear line", "refused, then mended")
    print("| fault | what it hit | times |", " | ".join(ends), "|\n|---|---|---|" + "---|" * len(ends))
    for kind in KINDS:
        for (_, hit), counts in sorted(row for row in rows.items() if row[0][0] == kind):
            print(f"| {kind} | {hit} | {counts.total()} |", " | ".join(str(counts[end] or "") for end in ends), "|")
    passes = [record for record in records if "pass" in record]
    mistakes = [record for record in passes if "mistake" in record]
    different = [record for record in passes if record.get("different")]
    equal = len(passes) - len(mistakes) - len(different)
    print(
        f"\n{len(faults)} faults in {len(passes)} passes. {equal} ended with the weights of the undisturbed run, "
        f"{len(different)} with others, {len(mistakes)} with a mistake."
    )
    for record in mistakes + different:
        print(record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300, help="in all")
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/chaos"), help="for the runs, and the record of faults"
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    log = args.folder / "faults.jsonl"
    args.folder.mkdir(parents=True, exist_ok=True)
    records: list[Record] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if args.faults:
        work, expected = run_undisturbed(args.folder / "undisturbed")
        print("seconds of work", {stage: round(seconds, 1) for stage, seconds in work.items()}, flush=True)
    while (left := args.faults - sum("kind" in record for record in records)) > 0:
        name = f"pass {sum('pass' in record for record in records)}"
        new = run_pass(args.folder / "disturbed", work, expected, name, left)
        with open(log, "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in new)
        records += new
        print(f"{name}: {len(new) - 1} faults, {new[-1]}", flush=True)
    print_table(records)
    sys.exit(any(record.get("different") or "mistake" in record for record in records))


if __name__ == "__main__":
    main()
