"""reproduce.sh does its steps in order, each once, and goes on after a failure."""

import os
import shutil
import subprocess
from pathlib import Path

from conftest import ROOT

# Stands in for Python: writes down what it is asked to run, and fails if a file called `fail` names that script. Of
# what the scripts make it leaves C's folder, in which it counts C's trainings.
RECORDER = """#!/usr/bin/env bash
echo "$*" >> commands
[ -e fail ] && [[ "$1" == "$(cat fail)" ]] && exit 1
[ "$1" == traincontroller.py ] && mkdir -p "$3/ctrl" && echo >> "$3/ctrl/trainings"
exit 0
"""


def test_steps_are_done_once_and_in_order(tmp_path):
    shutil.copy(ROOT / "reproduce.sh", tmp_path)
    recorder = tmp_path / "recorder"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)

    def reproduce() -> tuple[int, list[str]]:
        (tmp_path / "commands").write_text("")
        environment = os.environ | {"PYTHON": str(recorder)}
        status = subprocess.run(["./reproduce.sh", "runs/one"], cwd=tmp_path, env=environment, capture_output=True)
        return status.returncode, (tmp_path / "commands").read_text().splitlines()

    (tmp_path / "fail").write_text("traincontroller.py")
    status, commands = reproduce()
    scripts = [command.split()[0] for command in commands]
    assert status == 1
    assert scripts == ["data/generation_script.py", "trainvae.py", "trainmdrnn.py", "traincontroller.py"]
    (tmp_path / "fail").unlink()
    status, commands = reproduce()
    assert status == 0
    assert commands[0].startswith("traincontroller.py --logdir runs/one")
    (made,) = [command for command in commands if "--policy controller" in command]
    assert "--rootdir datasets/runs_one/round_1" in made and "--seed 1" in made and "--logdir runs/one" in made
    assert [command.split()[0] for command in commands[2:]] == [
        "trainvae.py",
        "trainmdrnn.py",
        "traincontroller.py",
        "traincontroller.py",
        "test_controller.py",
    ]
    trainings = {path.parent.name: len(path.read_text()) for path in (tmp_path / "runs" / "one").glob("*/trainings")}
    assert trainings == {"ctrl_round_0": 1, "ctrl": 2}  # the second C begins anew
    assert [command.split()[0] for command in reproduce()[1]] == ["test_controller.py"]
    for command in commands:
        assert (ROOT / Path(command.split()[0])).exists()
