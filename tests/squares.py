"""Runners for the tests of the pools. Without PyTorch, which would take the processes of a pool seconds to import."""

import os
import signal
import sys
import time
from pathlib import Path

from utils.commandline import UserError


class Squares:
    """A Runner that squares numbers, and has the accidents it is asked to have."""

    def __init__(self, folder: Path, accident: str = ""):
        self._folder = folder
        self._jobs: list[tuple[int, int]] = []
        if accident == "start":
            raise RuntimeError("no luck at the start")
        if accident == "user":
            raise UserError("nothing that another worker could mend")
        if accident == "stop at the start":
            self._once("start", signal.SIGSTOP)

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def submit(self, number: int, job: int) -> None:
        self._jobs.append((number, job))

    def _once(self, name: object, sent: signal.Signals) -> None:
        """The first process that comes here has an accident."""
        once = self._folder / f"once_{name}"
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), sent)

    def advance(self) -> list[tuple[int, int]]:
        number, job = self._jobs.pop(0)
        once = self._folder / f"once_{job}"
        if job == 7:
            self._once(job, signal.SIGKILL)
        if job == 88:
            self._once(job, signal.SIGSTOP)
        if job == 99:
            time.sleep(1000)
        if job == 11 and not once.exists():
            once.touch()
            raise ValueError("eleven is too much")
        if job == 666:
            raise ValueError("always too much")
        return [(number, job**2)]


class Lengths(Squares):
    """Measures texts, which may be longer than a pipe holds."""

    def submit(self, number: int, job: str) -> None:  # type: ignore[override]
        self._jobs.append((number, len(job)))


class Large(Squares):
    """Has an argument that is longer than a pipe holds."""

    def __init__(self, folder: Path, text: str):
        super().__init__(folder)


class Imported(Squares):
    """Tells which modules are there, by name."""

    def advance(self) -> list[tuple[int, bool]]:
        number, name = self._jobs.pop(0)
        return [(number, name in sys.modules)]


class Echo(Squares):
    """Returns its jobs, and more of them than a connection takes before they are read."""

    def advance(self) -> list[tuple[int, bytes]]:
        number, job = self._jobs.pop(0)
        return [(number, job * 10)]
