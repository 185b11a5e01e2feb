"""The recipes do their steps in order, each once, and go on after a failure."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
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


def recorded(recipe: str, folder: Path) -> Callable[[], tuple[int, list[str]]]:
    """Runs a recipe in a folder; returns its status and the commands."""
    for name in (recipe, "recipe.sh"):
        shutil.copy(ROOT / name, folder)
    recorder = folder / "recorder"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)

    def follow() -> tuple[int, list[str]]:
        (folder / "commands").write_text("")
        environment = os.environ | {"PYTHON": str(recorder)}
        status = subprocess.run([f"./{recipe}", "runs/one/"], cwd=folder, env=environment, capture_output=True)
        return status.returncode, (folder / "commands").read_text().splitlines()

    return follow


def test_steps_are_done_once_and_in_order(tmp_path):
    reproduce = recorded("reproduce.sh", tmp_path)
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


def test_the_dreamers_rounds_are_small(tmp_path):
    dream = recorded("dream.sh", tmp_path)
    (tmp_path / "fail").write_text("trainmdrnn.py")
    status, commands = dream()
    assert status == 1
    assert [command.split()[0] for command in commands] == ["data/generation_script.py", "trainvae.py", "trainmdrnn.py"]
    (tmp_path / "fail").unlink()
    status, commands = dream()
    assert status == 0
    round_ = ["trainmdrnn.py", "traincontroller.py", "data/generation_script.py"]
    phase = ["trainvae.py", *25 * round_]
    assert [command.split()[0] for command in commands] == [*25 * round_, *phase, *phase, "test_controller.py"]
    assert all("@presets/dream" in command for command in commands)
    generations = [re.search(r"--generations (\d+)", command) for command in commands]
    assert [int(match[1]) for match in generations if match] == [*range(16, 209, 8), *2 * list(range(80, 273, 8))]
    epochs = [int(command.split()[-1]) for command in commands if command.startswith("trainmdrnn.py")]
    assert epochs == sorted(epochs) and len(set(epochs)) == len(epochs) == 75
    made = [command for command in commands if "--policy controller" in command]
    assert all(f"/round_{i} --rollouts 10 --seed {i} " in made[i - 1] for i in range(1, 76))
    # C begins anew in every phase, and goes on from round to round in it.
    assert len((tmp_path / "runs" / "one" / "ctrl" / "trainings").read_text()) == 25
    assert [command.split()[0] for command in dream()[1]] == ["test_controller.py"]


@pytest.mark.parametrize(("recipe", "count"), [("reproduce.sh", 7), ("dream.sh", 5), ("recipe.sh", 1)])
def test_recipes_give_options_that_exist(recipe, count):
    text = (ROOT / recipe).read_text()
    calls = re.findall(r'"\$python" (\S+\.py) ((?:.*\\\n)*.*)', text)
    calls += re.findall(r"^(round) \d.*?(--[^)\n]*)", text, re.M)
    assert len(calls) == count
    for script, words in calls:
        options = run("traincontroller.py" if script == "round" else script, "--help").stdout
        assert all(f"{option} " in options for option in re.findall(r"--[a-z-]+", words))


@pytest.mark.parametrize("recipe", ["reproduce.sh", "dream.sh"])
def test_its_help_says_what_it_does_and_does_nothing(recipe):
    result = subprocess.run([f"./{recipe}", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "[RUN FOLDER]" in result.stdout and not (ROOT / "--help").exists()
