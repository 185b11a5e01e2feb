"""What a command ran with, kept beside its results in args.json."""

import argparse
import contextlib
import json
import platform
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.checkpoints import write_json
from utils.commandline import UserError

PACKAGES = ("torch", "torchvision", "gymnasium", "cma", "numpy", "numba", "tensorboardX")
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
        "versions": {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES},
        "commit": _commit(),
        "processor": processor(),
        "began": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": None,
    }
    start = time.monotonic()
    commands = [*_earlier(path), entry]
    write_json(path, commands)
    try:
        yield
    finally:
        entry["seconds"] = round(time.monotonic() - start, 1)
        with contextlib.suppress(UserError):  # what went wrong before matters more
            write_json(path, commands)


def processor() -> str:
    """The processor's name, and what of it decides how fast V is."""
    name, flags = platform.processor() or platform.machine(), ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags = value if key.strip() == "flags" else flags
    units = [unit for flag, unit in VECTOR_UNITS.items() if flag in flags.split()]
    return f"{name} ({units[0]})" if units else name


def _earlier(path: Path) -> list[Any]:
    try:
        earlier = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return earlier if isinstance(earlier, list) else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the project, with a + if files differ from it; None where there is no git."""
    root = Path(__file__).parent.parent
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes.stdout.strip() else "")
