"""Reads damaged files by the thousand: rollouts, kept latents, checkpoints in both of PyTorch's formats.

    python tests/fuzz_readers.py --files 2000

A file is a whole one with random damage. It must load to equal values, or be refused by one line that names it. Where
the damage hides behind right checksums, or the format has none, other values are no mistake. No file may run code, or
take a gigabyte of memory. File i depends on --seed and i alone.
"""

import argparse
import io
import os
import random
import re
import resource
import struct
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.loaders import load_rollout
from data.rollouts import Rollout, pack_rollout
from envs.dream import DreamSettings
from evolution.cma import CmaEvolution
from evolution.gradient import PolicyGradient
from evolution.run import EvolutionRun
from evolution.search import Search
from evolution.standardised import InputSpread
from models.controller import Controller
from models.mdrnn import MDRNN
from models.sizes import SIGNED, Sizes
from models.vae import VAE
from utils.archives import DamagedFile, read_arrays
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.commandline import UserError
from utils.dreams import Dreams
from utils.run_folder import load_controller, load_dreams

FORBIDDEN = ("os.system", "os.exec", "os.mkdir", "os.posix_spawn", "subprocess.Popen", "socket.connect")
LARGEST = 1 << 30  # bytes of memory
SIZES = Sizes(latent=4, hidden=16, mixtures=2, joint_mixture=False, outputs=(SIGNED,))
HUGE = (0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 1 << 40, 0)
LEAVES: tuple[Any, ...] = (
    *(None, -1, 0, 10**9, 10**30, float("nan"), float("inf"), True, "x", "takecover", [], {}, [1, 2], {"a": 1}, 3.5),
    *(torch.zeros(0), torch.zeros(3, 5), torch.full((4,), torch.nan), torch.zeros(1).expand(10**9), torch.arange(5)),
)


class Subject(NamedTuple):
    """A kind of file."""

    name: str
    path: Path
    whole: bytes
    read: Callable[[Path], Any]
    damages: tuple[Callable[["Subject", random.Random], bytes], ...]
    checked: bool = True  # the format has checksums


class Hostile:
    """Unpickling it would make a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("a stranger's code ran",)


def spoil(content: bytes, chance: random.Random) -> bytes:
    """Bytes with one random damage, or a few."""
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 3, 10])):
        place, length = chance.randrange(len(damaged)), chance.randrange(1, 200)
        span = slice(place, place + length)
        match chance.randrange(8):
            case 0 | 1 | 2:
                damaged[place] ^= 1 << chance.randrange(8)
            case 3:
                del damaged[place:]
            case 4:
                del damaged[span]
            case 5:
                damaged[span] = bytes(len(damaged[span]))
            case 6:
                damaged[place:place] = damaged[span] if chance.random() < 0.5 else chance.randbytes(length)
            case 7:
                number = struct.pack("<Q", chance.choice(HUGE))[: chance.choice([4, 8])]
                damaged[place : place + len(number)] = number
        if not damaged:
            return b""
    return bytes(damaged)


def damaged_bytes(subject: Subject, chance: random.Random) -> bytes:
    return spoil(subject.whole, chance)


def damaged_member(subject: Subject, chance: random.Random) -> bytes:
    """A zip file with damage inside, behind right checksums; in half of the arrays the shape lies."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(subject.whole)) as whole, zipfile.ZipFile(file, "w") as archive:
        chosen = chance.choice(whole.namelist())
        for name in whole.namelist():
            content = whole.read(name)
            if name == chosen and content:
                lie = str(chance.choice([0, 1, 10**6, 10**9, 10**18, -1])).encode()
                lying = re.sub(rb"'shape': \(\d+", b"'shape': (" + lie, content)
                content = lying if lying != content and chance.random() < 0.5 else spoil(content, chance)
            archive.writestr(name, content)
    return file.getvalue()


def damaged_state(subject: Subject, chance: random.Random) -> bytes:
    """A checkpoint that has something else at one place."""
    state = torch.load(io.BytesIO(subject.whole), weights_only=True)
    inner: Any = state
    while True:
        key = chance.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if isinstance(inner[key], dict | list) and inner[key] and chance.random() < 0.8:
            inner = inner[key]
            continue
        if chance.random() < 0.2 and isinstance(inner, dict):
            del inner[key]
        else:
            inner[key] = chance.choice(LEAVES)
        return saved(state)


def subjects(folder: Path) -> list[Subject]:
    """The kinds of files; whole ones, which others need, are written to the folder."""
    chance = np.random.default_rng(0)
    torch.manual_seed(0)
    steps = 30
    rollout = Rollout(
        chance.integers(0, 255, (steps, 64, 64, 3), np.uint8) // 16,
        chance.uniform(-1, 1, (steps, 3)).astype(np.float32),
        chance.normal(size=steps).astype(np.float32),
        np.arange(steps) == steps - 1,
    )
    latents = io.BytesIO()
    np.savez(latents, latents=chance.normal(size=(2, steps, 32)).astype(np.float16))

    controller = Controller(SIZES)
    search = evolve(folder / "search")
    for score in (1.0, 2.0):
        advance(search.evolution)
        search.finish_generation({"return/mean": score, "episodes": 4.0, "seconds": 1.0})
    searched = (search.folder / "checkpoint.tar").read_bytes()

    dreaming = folder / "dreaming"
    facts = {"game": "takecover", "sizes": SIZES.to_dict()}
    save_checkpoint(dreaming / "vae" / "best.tar", {"state_dict": VAE(SIZES).state_dict()} | facts)
    starts = {
        name: torch.randn(5, width).half() for name, width in (("mu", 4), ("logsigma", 4), ("hidden", 16), ("cell", 16))
    }
    dreamer = {"state_dict": MDRNN(SIZES).state_dict(), "starts": starts | {"steps": torch.arange(5)}} | facts
    save_checkpoint(dreaming / "mdrnn" / "best.tar", dreamer)

    practise = partial(practise_in, load_dreams(dreaming, DreamSettings()))
    practised = practise(folder / "practised")
    advance(practised.evolution)
    practised.finish_generation({"return/mean": 1.0, "episodes": 4.0, "seconds": 1.0})
    go_on, go_on_learning = partial(resume, evolve), partial(resume, practise)
    learned = (practised.folder / "checkpoint.tar").read_bytes()

    old = saved({"state_dict": controller.state_dict(), "epoch": 3, "reward": np.float64(2)}, zipped=False)
    bytes_only, both, all_three = (
        (damaged_bytes,),
        (damaged_bytes, damaged_member),
        (damaged_bytes, damaged_member, damaged_state),
    )
    hostile = {"state_dict": controller.state_dict(), "reward": Hostile()}
    older = saved(hostile, zipped=False)
    plain = folder / "plain" / "ctrl" / "best.tar"
    return [
        Subject("rollout", folder / "rollout.npz", pack_rollout(rollout), read_rollout, both),
        Subject("latents", folder / "latents.npz", latents.getvalue(), read_latents, both),
        Subject("search", search.folder / "checkpoint.tar", searched, read_checkpoint, all_three),
        Subject("search, resumed", search.folder / "checkpoint.tar", searched, go_on, (damaged_state,)),
        Subject("gradient, resumed", practised.folder / "checkpoint.tar", learned, go_on_learning, (damaged_state,)),
        Subject("controller", plain, searched, read_controller, (damaged_state,)),
        Subject("M and its dreams", dreaming / "mdrnn" / "best.tar", saved(dreamer), read_dreams, (damaged_state,)),
        Subject("older format", folder / "old.tar", old, read_checkpoint, bytes_only, checked=False),
        Subject("hostile", folder / "hostile.tar", saved(hostile), read_checkpoint, both),
        Subject("hostile, older", folder / "hostile.tar", older, read_checkpoint, bytes_only, checked=False),
    ]  # fmt: skip


def saved(state: dict[str, Any], zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def read_rollout(path: Path) -> Any:
    return load_rollout(path, Rollout._fields)


def read_latents(path: Path) -> Any:
    try:
        return read_arrays(path, ("latents",))
    except (DamagedFile, KeyError) as error:  # M's training encodes the rollout again
        raise UserError(f"{path}: {str(error).strip()}") from None


def read_checkpoint(path: Path) -> Any:
    return load_checkpoint(path, "the remedy")


def read_controller(path: Path) -> Any:
    return load_controller(path.parents[1]).state_dict()


def read_dreams(path: Path) -> Any:
    return load_dreams(path.parents[1], DreamSettings()).weights.parameters


def evolve(folder: Path) -> EvolutionRun:
    """A search that begins in a folder."""
    size = SIZES.controller
    return EvolutionRun(folder, "carracing", SIZES, CmaEvolution(np.zeros(size), np.ones(size), 4, 0.1, 0), "")


def practise_in(dreams: Dreams, folder: Path) -> EvolutionRun:
    """The same by a policy gradient."""
    inputs, _ = SIZES.layers[0]
    spread = InputSpread(np.zeros(inputs), np.ones(inputs))
    return EvolutionRun(folder, "takecover", SIZES, PolicyGradient(dreams, SIZES, spread, 4, 1.0, 0), "")


def advance(search: Search) -> None:
    """A generation of a search."""
    if isinstance(search, PolicyGradient):
        search.practise()
    else:
        search.ask()
        search.tell(np.arange(4.0))


def resume(begin: Callable[[Path], EvolutionRun], path: Path) -> Any:
    """The mean with which a search goes on. What else is in the file must do for a generation."""
    search = begin(path.parent)
    search.resume()
    mean = search.evolution.mean
    advance(search.evolution)
    return mean


def equal(one: Any, two: Any) -> bool:
    """Whether two values are the same, arrays of any depth number by number."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    return bool(one == two)


def outcome(subject: Subject, damage: Callable, expected: Any) -> str:
    """What came of reading a file: "equal", "other values", "refused", or what went wrong."""
    try:
        value = subject.read(subject.path)
    except UserError as error:
        words = str(error)
        named = any(str(path) in words for path in (subject.path, subject.path.parent))
        return "refused" if named and "\n" not in words else f"mistake: not one line that names the file: {words}"
    except Exception as error:
        return f"mistake: {type(error).__name__}: {error}"
    if equal(value, expected):
        return "equal"
    return "mistake: other values" if subject.checked and damage is damaged_bytes else "other values"


class Report(NamedTuple):
    counts: Counter[tuple[str, str, str]]  # of subject, damage and outcome
    mistakes: list[str]
    memory: int  # bytes that reading took at most


def fuzz(folder: Path, files: int, seed: int) -> Report:
    """Read so many damaged files."""
    kinds = subjects(folder)
    expected = {}
    for subject in kinds:
        subject.path.parent.mkdir(parents=True, exist_ok=True)
        subject.path.write_bytes(subject.whole)
        expected[subject.name] = None if "hostile" in subject.name else subject.read(subject.path)
    cases = [(subject, damage) for subject in kinds for damage in subject.damages]
    code_that_ran: list[str] = []
    sys.addaudithook(lambda event, _: code_that_ran.append(event) if event in FORBIDDEN else None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts: Counter[tuple[str, str, str]] = Counter()
    mistakes = []
    for number in range(files):
        subject, damage = cases[number % len(cases)]
        subject.path.write_bytes(damage(subject, random.Random(f"{seed} {number}")))
        code_that_ran.clear()
        result = outcome(subject, damage, expected[subject.name])
        if code_that_ran or result.startswith("mistake"):
            mistakes.append(f"file {number} ({subject.name}, {damage.__name__}): {result} {code_that_ran or ''}")
        counts[subject.name, damage.__name__, result.split(":")[0]] += 1
        subject.path.write_bytes(subject.whole)
    return Report(counts, mistakes, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = fuzz(Path(folder), args.files, args.seed)
    for (subject, damage, result), count in sorted(report.counts.items()):
        print(f"{subject:18} {damage:16} {result:14} {count:5}")
    print(f"{args.files} files, {len(report.mistakes)} mistakes, {report.memory >> 20} MB of memory at most")
    sys.exit("\n".join(report.mistakes) if report.mistakes or report.memory > LARGEST else 0)


if __name__ == "__main__":
    main()
