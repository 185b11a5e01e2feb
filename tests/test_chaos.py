"""The short form of tests/chaos.py: one pass, with short episodes, and one fault of each command.

The name of the pass is its seed. This one brings a full disk, Ctrl-C, a flipped bit and SIGKILL.
"""

import chaos
import pytest
from conftest import launch_short

from envs.games import CARRACING


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_a_disturbed_pipeline_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos, "STOPS", (1,))  # seconds
    for name, number in (("ROLLOUTS", 3), ("EPOCHS", 2), ("GENERATIONS", 2)):
        monkeypatch.setattr(chaos, name, number)
    monkeypatch.setattr(chaos, "launch", launch_short)
    CARRACING.make("fast").reset(seed=0)  # compiles, and that is no part of the work that is disturbed
    work, expected = chaos.run_undisturbed(tmp_path / "undisturbed")
    *faults, end = chaos.run_pass(tmp_path / "disturbed", work, expected, "i", faults=4, most=1)
    assert faults and end == {"pass": "i", "different": []}, (faults, end)
