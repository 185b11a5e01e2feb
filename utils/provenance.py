"""What a command ran with, kept beside its results in args.json."""

import argparse
import contextlib
import hashlib
import json
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.commandline import UserError
from utils.files import write_json

PACKAGES = ("torch", "torchvision", "gymnasium", "cma", "numpy", "numba", "tensorboardX", "vizdoom")
ROOT = Path(__file__).resolve().parents[1]
VECTOR_UNITS = {"amx_tile": "AMX", "avx512_bf16": "AVX512-BF16", "avx2": "AVX2"}  # the best first


@contextlib.contextmanager
def recorded(folder: Path, args: argparse.Namespace, name: str = "args.json") -> Iterator[None]:
    """Append this command to the list in the folder's args.json, and its seconds when the block is left. A command that
    was killed has no seconds."""
    path = folder / name
    entry: dict[str, Any] = {
        "script": args.script,
        "presets": args.presets,
        "arguments": {key: value for key, value in vars(args).items() if key not in ("script", "presets")},
        "versions": _versions(),
        "commit": _commit(),
        "processor": processor(),
        "began": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": None,
    }
    start = time.monotonic()
    commands = []
    with contextlib.suppress(OSError, ValueError, TypeError):  # none yet, or damaged
        commands = list(json.loads(path.read_text()))
    commands.append(entry)
    write_json(path, commands)
    try:
        yield
    finally:
        entry["seconds"] = round(time.monotonic() - start, 1)
        with contextlib.suppress(UserError):  # what went wrong before matters more
            write_json(path, commands)


def processor() -> str:
    """The processor's name, and what of it decides how fast V is."""
    facts = {}
    with contextlib.suppress(OSError):
        facts = dict(re.findall(r"^(.+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    name = facts.get("model name", platform.processor() or platform.machine())
    units = [unit for flag, unit in VECTOR_UNITS.items() if flag in facts.get("flags", "").split()]
    return f"{name} ({units[0]})" if units else name


def identity() -> dict[str, str | None]:
    """What a result depends on beside its seed, of the machine that this is called on."""
    digest = hashlib.sha256()
    for folder in ("data", "envs", "models", "utils"):
        for path in sorted((ROOT / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return _versions() | {f"code in {ROOT}": digest.hexdigest()[:12], "processor": processor()}


def differences(ours: dict[str, str | None], theirs: dict[str, str | None]) -> str:
    """In what another machine's identity differs from ours, in words; empty if in nothing."""
    return ", ".join(
        f"{name} is {theirs.get(name)}, not {ours[name]}" for name in ours if theirs.get(name) != ours[name]
    )


def _versions() -> dict[str, str | None]:
    return {"python": platform.python_version()} | {package: _release(package) for package in PACKAGES}


def _release(package: str) -> str | None:
    """The installed one; None if there is none: not every game needs every package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the project, with a + if files differ from it; None where there is no git."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
