"""Waits for the end of a process that runs ViZDoom's engines; then ends those it has left, and removes their files.

    python doom_keeper.py FOLDER

FOLDER has a folder for every engine. Standard input is a pipe that nobody else writes to: it ends with the process,
however that ends. See envs/doom_engine.py.
"""

import contextlib
import os
import re
import shutil
import signal
import sys
from pathlib import Path

PROCESSES = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")


def main(folder: Path) -> None:
    sys.stdin.buffer.read()
    engines = set()
    for arguments in folder.glob("*/arguments"):
        engines.update(re.findall(r"^\+viz_instance_id\n(\w+)$", arguments.read_text(), re.M))
    shutil.rmtree(folder, ignore_errors=True)  # from here on no engine can start in it
    for process in PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is not ours
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                os.kill(int(process.name), signal.SIGKILL)
    for engine in engines:
        for file in SHARED_MEMORY.glob(f"ViZDoom*{engine}"):
            file.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # an engine may have written in the meantime


if __name__ == "__main__":
    main(Path(sys.argv[1]))
