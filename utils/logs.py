"""TensorBoard event files of one stage.

With PyTorch's writer rather than tensorboardX's: that one's `flush` leaves points in a queue between processes, so that
kill -9 loses them, and once a write has failed (a full disk) it loses all others without a word; this one raises.
"""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


def open_writer(folder: Path, done: int) -> SummaryWriter:
    """A writer for a stage's folder whose steps go on after `done`.

    Steps that an interrupted run logged beyond its last checkpoint are purged, so that no curve doubles back;
    with `done` 0 the stage starts over and its old event files are removed.
    """
    if done == 0:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
    return SummaryWriter(str(folder), purge_step=done + 1, flush_secs=10)


def log_figures(writer: SummaryWriter, figures: dict[str, float], step: int) -> None:
    """Write one step's figures by tag, onto the disk.

    To be called before the step's checkpoint is written: figures of a step that is not in the checkpoint are purged
    when the step is done again, but nothing would write those that are missing.
    """
    for tag, value in figures.items():
        writer.add_scalar(tag, value, step)
    writer.flush()
