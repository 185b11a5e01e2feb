"""One writer at a time in a folder: a second command is refused, and a lock never outlives its process."""

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.commandline import UserError
from utils.files import UNFINISHED

try:
    import fcntl
except ImportError:  # Windows has none of it: there, nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"  # the file's name; it stays, because to remove it would let two processes lock two files of one name
HOUR = 3600  # seconds


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes from `locked(folder)` until the block is left.

    The kernel holds the lock for the open file. It goes with the process, however that ends, so that no lock is ever
    stale. Workers do not inherit it: Python closes its files in every program that it starts. What a killed process has
    left unfinished is removed. Raises UserError, which names the process, if another one is in there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "ab", buffering=0) as file:
        _lock(file.fileno(), folder)
        with suppress(OSError):  # a full disk: the lock is held all the same
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} ({shlex.join(sys.argv)})".encode())
        remove_unfinished(folder)
        yield


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_atomically` has left below a folder where it was killed: files that nobody has written to for
    an hour. (A folder below may have a lock and a writer of its own.)"""
    for path in folder.rglob(f".*{UNFINISHED}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > HOUR:
                path.unlink()


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = (folder / LOCK).read_text(errors="replace") or "another process"
        raise UserError(
            f"{folder}: {holder} writes there; wait until it is done, end it, or choose another folder"
        ) from None
    except OSError as error:
        print(f"warning: {folder}: cannot be locked ({error.strerror}): start no second command on it", file=sys.stderr)
