"""ViZDoom's engine, a program that a DoomGame starts and speaks with, as a guest that leaves nothing behind.

By itself it goes on for ever when the process that started it is killed, and leaves its files in /dev/shm; and it
writes into the current folder. Here every engine runs in a temporary folder of its own (doom_engine.sh), and every
process with engines has a keeper (doom_keeper.py), which outlives the process and clears up after it.
"""

import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from envs.errors import UserError

OLDEST = (1, 3)  # earlier ones take Ctrl-C and SIGTERM for themselves, and draw other monsters
SHARED_MEMORY = Path("/dev/shm")
SPACE = 1 << 20  # bytes there: an engine takes a quarter, and others may start at the same moment
STARTER = Path(__file__).with_name("doom_engine.sh")
KEEPER = Path(__file__).with_name("doom_keeper.py")


def load_vizdoom() -> Any:
    """The package. Raises UserError if it is missing or too old."""
    mend = "python -m pip install -r requirements.txt"
    try:
        installed = version("vizdoom")
        package = importlib.import_module("vizdoom")
    except (PackageNotFoundError, ImportError) as error:
        raise UserError(f"vizdoom cannot be imported ({error}): {mend}") from None
    if tuple(map(int, re.findall(r"\d+", installed)[:2])) < OLDEST:
        raise UserError(f"vizdoom {installed} is older than {'.'.join(map(str, OLDEST))}: {mend}")
    return package


def folder_of_vizdoom() -> Path:
    """Where the package keeps its engine, its games and its scenarios."""
    return Path(load_vizdoom().__file__).parent


class DoomEngine:
    """An engine that runs, of a DoomGame whose settings are made. It ends with `close` or with this process.

    Raises UserError if there is no room for it in /dev/shm, or it may not be started. (If it dies before it answers,
    ViZDoom takes this process with it: a pool's worker is replaced then.)
    """

    def __init__(self, game: Any):
        self.game = game
        if not os.access(STARTER, os.X_OK):
            raise UserError(f"{STARTER}: may not be executed: chmod +x it, on a file system without noexec")
        if SHARED_MEMORY.exists():
            # The engine and this process would be killed by the first write that finds no room.
            status = os.statvfs(SHARED_MEMORY)
            if status.f_bavail * status.f_frsize < SPACE:
                raise UserError(f"{SHARED_MEMORY}: full; remove files there, or in a container raise --shm-size")
        self._folder = Path(tempfile.mkdtemp(dir=_kept_folder(os.getpid())[0]))
        (self._folder / "vizdoom").symlink_to(folder_of_vizdoom() / "vizdoom")
        (self._folder / "start").symlink_to(STARTER)
        game.set_vizdoom_path(str(self._folder / "start"))
        try:
            game.init()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the engine, if it has not died, and remove its folder."""
        self.game.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def _kept_folder(process: int) -> tuple[Path, subprocess.Popen]:
    """The folder of this process's engines, and its keeper, whose standard input ends with the process."""
    folder = Path(tempfile.mkdtemp(prefix="takecover_")).resolve()
    command = [sys.executable, "-I", "-S", str(KEEPER), str(folder)]
    # A session of its own: neither Ctrl-C nor the end of the process's whole group reaches it.
    return folder, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
