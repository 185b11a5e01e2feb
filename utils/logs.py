"""TensorBoard event files of one stage, written by tensorboardX."""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from utils.commandline import UserError

EVENT_FILES = "events.out.tfevents.*"
History = list[dict[str, float]]  # the figures of every step, by tag


class CurveWriter:
    """Writes the curves of a stage whose `history` is what its checkpoint knows: step i is its row i - 1.

    Steps that an interrupted run logged beyond the checkpoint are purged, so that no curve doubles back, and points
    that are missing are written from the history. With an empty history the stage starts over, and its old event files
    are removed.

    Events go straight to tensorboardX's EventsWriter. Its SummaryWriter hands them to a thread through a queue between
    processes, which `flush` does not drain: kill -9 loses what is in it, and after a failed write (a full disk) the
    thread is gone without a word. Here a write that fails raises UserError.
    """

    def __init__(self, folder: Path, history: History):
        folder.mkdir(parents=True, exist_ok=True)
        if not history:
            for old in folder.glob(EVENT_FILES):
                old.unlink()
        logged = logged_steps(folder)
        self._folder = folder
        # Its files are named by the second; the suffix keeps two runs within one second apart, and in their order.
        self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}.{os.getpid()}")
        self._write(Event(step=len(history) + 1, session_log=SessionLog(status=SessionLog.START)))  # purges
        for step, row in enumerate(history, 1):
            self.add_figures({tag: value for tag, value in row.items() if step not in logged.get(tag, ())}, step)

    def __enter__(self) -> "CurveWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # all is written; what a full disk did not take was reported
            self._file.close()

    def add_figures(self, figures: Mapping[str, float], step: int) -> None:
        """Write one step's figures by tag; to be called before the step's checkpoint is written."""
        for tag, value in figures.items():
            self._write(Event(step=step, summary=summary.scalar(tag, value)))

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Write an image (3, H, W) with numbers in [0, 1]."""
        self._write(Event(step=step, summary=summary.image(tag, image)))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        try:
            self._file.write_event(event)
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._folder}: its curves cannot be written ({error}); free some space") from error


def logged_steps(folder: Path) -> dict[str, set[int]]:
    """The steps that TensorBoard shows, by tag."""
    steps: dict[str, set[int]] = {}
    for path in sorted(folder.glob(EVENT_FILES)):
        for event in EventFileLoader(str(path)).Load():
            if event.HasField("session_log"):
                for shown in steps.values():
                    shown -= {step for step in shown if step >= event.step}
            for value in event.summary.value:
                steps.setdefault(value.tag, set()).add(event.step)
    return steps
