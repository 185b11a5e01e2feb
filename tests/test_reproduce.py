"""reproduce.sh does its steps in order, each once, and goes on after a failure."""

import os
import re
import shutil
import subprocess

from conftest import ROOT, run

# Stands in for Python: writes down what it is asked to run, and fails if a file called `fail` names that script. Of
# what the scripts make it leaves the stages' folders, in which it counts the trainings.
RECORDER = """#!/usr/bin/env bash
echo "$*" >> commands
[ -e fail ] && [[ "$1" == "$(cat fail)" ]] && exit 1
declare -A stages=([trainvae.py]=vae [trainmdrnn.py]=mdrnn [traincontroller.py]=ctrl)
stage=${stages[$1]}
[ -n "$stage" ] && mkdir -p "$4/$stage" && echo >> "$4/$stage/trainings"
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
        status = subprocess.run(["./reproduce.sh", "runs/one/"], cwd=tmp_path, env=environment, capture_output=True)
        return status.returncode, (tmp_path / "commands").read_text().splitlines()

    (tmp_path / "fail").write_text("traincontroller.py")
    status, commands = reproduce()
    scripts = [command.split()[0] for command in commands]
    assert status == 1
    assert scripts == ["data/generation_script.py", "trainvae.py", "trainmdrnn.py", "traincontroller.py"]
    (tmp_path / "fail").unlink()
    status, commands = reproduce()
    assert status == 0
    assert commands[0].startswith("traincontroller.py @presets/shipped --logdir runs/one")
    made = [command for command in commands if "--policy controller" in command]
    assert all(f"--rootdir datasets/runs_one/round_{i} --rollouts 400 --seed {i}" in made[i - 1] for i in (1, 2))
    assert len(made) == 2 and all(command.endswith("--logdir runs/one") for command in made)
    round_ = ["data/generation_script.py", "trainvae.py", "trainmdrnn.py", "traincontroller.py"]
    last = ["traincontroller.py", "test_controller.py"]
    assert [command.split()[0] for command in commands[1:]] == 2 * round_ + last
    assert [command for command in commands if "--warm-start runs/one/round_1" in command] == [commands[8]]
    folder = tmp_path / "runs" / "one"
    trainings = {str(path.parent.relative_to(folder)): len(path.read_text()) for path in folder.rglob("trainings")}
    assert trainings == {
        "round_0/vae": 1,
        "round_0/mdrnn": 1,
        "round_0/ctrl": 1,
        "round_1/vae": 2,
        "round_1/mdrnn": 2,
        "round_1/ctrl": 1,
        "vae": 3,
        "mdrnn": 3,
        "ctrl": 2,  # each C begins anew, and the last goes on once
    }
    shutil.rmtree(folder / "round_0")  # its user needs them no more
    shutil.rmtree(folder / "round_1")
    assert [command.split()[0] for command in reproduce()[1]] == ["test_controller.py"]
    assert (folder / "ctrl").exists() and not list(folder.glob("round_*"))
    # A recipe that has changed since is not gone on with.
    stamp = folder / "done" / "mdrnn_1"
    stamp.write_text(stamp.read_text().replace("--epochs 30", "--epochs 31"))
    assert reproduce() == (1, [])


def test_the_recipe_gives_options_that_exist():
    recipe = (ROOT / "reproduce.sh").read_text()
    calls = re.findall(r'"\$python" (\S+\.py) ((?:.*\\\n)*.*)', recipe)
    calls += re.findall(r"^(round) \d.*?(--[^)\n]*)", recipe, re.M)
    assert len(calls) == 8
    for script, words in calls:
        options = run("traincontroller.py" if script == "round" else script, "--help").stdout
        assert all(f"{option} " in options for option in re.findall(r"--[a-z-]+", words))


def test_its_help_says_what_it_does_and_does_nothing():
    result = subprocess.run(["./reproduce.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "[RUN FOLDER]" in result.stdout and not (ROOT / "--help").exists()
