"""Curves for TensorBoard: every point of the history is there, whatever became of the run or of its files."""

import pytest
from conftest import largest_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.commandline import UserError
from utils.logs import EVENT_FILES, CurveWriter, logged_steps


def history(steps: int) -> list[dict[str, float]]:
    return [{"loss/test": 1 / step, "sigma": step / 8} for step in range(1, steps + 1)]


def write(folder, known: int, until: int) -> None:
    """Log like a run whose checkpoint has `known` steps."""
    with CurveWriter(folder, history(known)) as curves:
        for step in range(known + 1, until + 1):
            curves.add_figures(history(step)[-1], step)


def shown(folder) -> list[tuple[int, float]]:
    """What TensorBoard itself reads."""
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars("sigma")]


def test_steps_beyond_the_checkpoint_are_purged(tmp_path):
    write(tmp_path, 0, 5)
    write(tmp_path, 3, 6)
    assert shown(tmp_path) == [(step, step / 8) for step in range(1, 7)]
    assert logged_steps(tmp_path) == {"loss/test": set(range(1, 7)), "sigma": set(range(1, 7))}
    write(tmp_path, 0, 1)  # starts over
    assert shown(tmp_path) == [(1, 1 / 8)]


def test_runs_within_one_second_keep_their_order(tmp_path, monkeypatch):
    for known, process in enumerate((30, 20, 10)):  # numbers of processes begin anew one day
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        write(tmp_path, known, known + 1)
    assert shown(tmp_path) == [(step, step / 8) for step in (1, 2, 3)]


def test_points_that_are_missing_are_written_from_the_history(tmp_path):
    write(tmp_path, 0, 4)
    (path,) = tmp_path.glob(EVENT_FILES)
    path.write_bytes(path.read_bytes()[:-30])  # as a power cut leaves it: step 4 lacks its last figure
    assert logged_steps(tmp_path)["sigma"] == {1, 2, 3}
    write(tmp_path, 4, 6)
    assert shown(tmp_path) == [(step, step / 8) for step in range(1, 7)]
    for path in tmp_path.glob(EVENT_FILES):
        path.unlink()
    write(tmp_path, 6, 7)
    assert shown(tmp_path) == [(step, step / 8) for step in range(1, 8)]


def test_a_full_disk_is_one_clear_line(tmp_path):
    message = f"{tmp_path}: its curves cannot be written"
    with pytest.raises(UserError, match=message), CurveWriter(tmp_path, []) as curves, largest_file(20_000):
        for step in range(10_000):
            curves.add_figures({"loss/test": 1.0}, step)
