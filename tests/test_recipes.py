"""The recipes do their steps in order, each once, and go on after a failure."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, run

from recipes import steps
from utils.commandline import UserError

STAGES = {"trainvae.py": "vae", "trainmdrnn.py": "mdrnn", "traincontroller.py": "ctrl"}
ROUND = ["trainmdrnn.py", "traincontroller.py", "data/generation_script.py"]


class Scripts:
    """Stand in for the scripts: they write down what they are asked to do, and leave the stages' folders, in which they
    count the trainings. `fails` names one that fails."""

    def __init__(self):
        self.commands: list[list[str]] = []
        self.fails = ""

    def script(self, name: str) -> Callable[[list[str]], None]:
        def main(words: list[str]) -> None:
            self.commands.append([name, *words])
            if name == self.fails:
                raise UserError("it fails")
            if stage := STAGES.get(name):
                folder = Path(words[words.index("--logdir") + 1], stage)
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / "trainings").open("a") as file:
                    file.write("another\n")

        return main

    def follow(self, recipe: str, logdir: str = "runs/one/", *options: object) -> tuple[int, list[list[str]]]:
        """Run the recipe in a folder; returns its status and the commands."""
        self.commands = []
        return run("-m", f"recipes.{recipe}", logdir, *options).returncode, self.commands


@pytest.fixture
def scripts(monkeypatch, tmp_path) -> Scripts:
    monkeypatch.chdir(tmp_path)
    recorder = Scripts()
    for name in steps.SCRIPTS:
        monkeypatch.setitem(steps.SCRIPTS, name, recorder.script(name))
    return recorder


def names(commands: list[list[str]]) -> list[str]:
    return [name for name, *_ in commands]


def value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_steps_are_done_once_and_in_order(scripts, tmp_path):
    scripts.fails = "traincontroller.py"
    status, commands = scripts.follow("reproduce")
    assert status == 1
    assert names(commands) == ["data/generation_script.py", "trainvae.py", "trainmdrnn.py", "traincontroller.py"]
    scripts.fails = ""
    status, commands = scripts.follow("reproduce")
    assert status == 0
    assert commands[0][:4] == ["traincontroller.py", "@presets/shipped", "--logdir", "runs/one"]
    round_ = ["data/generation_script.py", "trainvae.py", "trainmdrnn.py", "traincontroller.py"]
    assert names(commands[1:]) == 2 * round_ + ["traincontroller.py", "test_controller.py"]
    for number, command in enumerate((commands[1], commands[5]), 1):
        options = f"--rootdir datasets/runs_one/round_{number} --rollouts 400 --seed {number} --policy controller"
        assert " ".join(command[2:]) == f"{options} --logdir runs/one"
    assert [command for command in commands if "runs/one/round_1" in command] == [commands[8]]
    assert value(commands[8], "--warm-start") == "runs/one/round_1"
    folder = tmp_path / "runs" / "one"
    trainings = {str(path.parent.relative_to(folder)): len(path.read_text().split()) for path in folder.rglob("train*")}
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
    assert names(scripts.follow("reproduce")[1]) == ["test_controller.py"]
    assert (folder / "ctrl").exists() and not list(folder.glob("round_*"))
    # A recipe that has changed since is not gone on with.
    stamp = folder / "done" / "mdrnn_1"
    stamp.write_text(stamp.read_text().replace("--epochs 30", "--epochs 31"))
    assert scripts.follow("reproduce") == (1, [])


def test_the_dreamers_rounds_are_small(scripts, tmp_path):
    scripts.fails = "trainmdrnn.py"
    status, commands = scripts.follow("dream")
    assert status == 1
    assert names(commands) == ["data/generation_script.py", "trainvae.py", "trainmdrnn.py"]
    scripts.fails = ""
    status, commands = scripts.follow("dream")
    assert status == 0
    assert names(commands) == [*14 * ROUND, "trainvae.py", *36 * ROUND, "test_controller.py"]
    assert all(command[1] == "@presets/dream" for command in commands)
    generations = [int(value(command, "--generations")) for command in commands if "--generations" in command]
    assert generations == [*range(16, 121, 8), *range(40, 73, 8), *range(40, 281, 8)]
    epochs = [int(value(command, "--epochs")) for command in commands if command[0] == "trainmdrnn.py"]
    for since in (epochs[:14], epochs[14:]):  # M begins anew with the second V
        assert since == sorted(set(since))
    assert len(epochs) == 50 and epochs[0] == 41 and epochs[14] == 129
    made = [command for command in commands if "--policy" in command]
    assert [value(command, "--seed") for command in made] == [str(number) for number in range(1, 51)]
    assert all(value(command, "--rootdir").endswith(f"/round_{value(command, '--seed')}") for command in made)
    # C begins anew twice and M once; they go on from round to round in between.
    counts = [len((tmp_path / "runs" / "one" / stage / "trainings").read_text().split()) for stage in ("mdrnn", "ctrl")]
    assert counts == [36, 31]
    assert names(scripts.follow("dream")[1]) == ["test_controller.py"]


def test_reality_comes_last(scripts, tmp_path):
    scripts.fails = "test_controller.py"
    status, commands = scripts.follow("dream_first")
    assert status == 1
    last = ["trainmdrnn.py", "traincontroller.py", "traincontroller.py", "test_controller.py"]
    first = ["data/generation_script.py", "trainvae.py"]
    assert names(commands) == [*first, *10 * ROUND, "trainvae.py", *10 * ROUND, *last]
    *dreamed, driven = [command for command in commands if command[0] == "traincontroller.py"]
    assert not any("--env" in command for command in dreamed)  # the preset's, which is the dream
    assert value(driven, "--env") == "fast" and value(driven, "--generations") == "89"
    assert value(dreamed[-1], "--generations") == "80"
    # With its rollouts, less than 1,500 real episodes of 128 a generation.
    rollouts = sum(int(value(command, "--rollouts")) for command in commands if "--rollouts" in command)
    assert rollouts + 9 * 128 == 1452
    # The last C begins anew, and goes on from the dream into reality.
    assert len((tmp_path / "runs" / "one" / "ctrl" / "trainings").read_text().split()) == 2
    epochs = [int(value(command, "--epochs")) for command in commands if command[0] == "trainmdrnn.py"]
    assert epochs[10:] == sorted(set(epochs[10:])) and len(epochs) == 21
    assert names(scripts.follow("dream_first")[1]) == ["test_controller.py"]


def test_the_second_game_is_learned_in_a_dream_that_was_looked_at(scripts):
    scripts.fails = "-m studies.end_head"
    status, commands = scripts.follow("doom")
    assert status == 1
    assert names(commands) == ["data/generation_script.py", "trainvae.py", "trainmdrnn.py", "-m studies.end_head"]
    assert value(commands[0], "--rootdir") == "datasets/runs_one/round_0" and value(commands[0], "--rollouts") == "8000"
    scripts.fails = "play.py"
    status, commands = scripts.follow("doom")
    assert status == 1
    assert names(commands) == ["-m studies.end_head", "traincontroller.py", "play.py"]
    assert value(commands[0], "--dataset") == "datasets/runs_one"
    scripts.fails = ""
    status, commands = scripts.follow("doom")
    assert status == 0
    assert names(commands) == ["play.py", "play.py", "test_controller.py"]
    assert "--side-by-side" in commands[0] and "--dream" in commands[1]
    assert all(command[1:3] == ["@presets/takecover", "@presets/gradient"] for command in commands)
    assert all(value(command, "--logdir") == "runs/one" for command in commands)
    assert names(scripts.follow("doom")[1]) == ["test_controller.py"]
    # A folder of other presets is not gone on with.
    stamp = Path("runs", "one", "done", "ctrl")
    stamp.write_text(stamp.read_text().replace("@presets/gradient ", ""))
    assert scripts.follow("doom") == (1, [])


def test_another_seed_is_another_run(scripts):
    for seed in (0, 3):
        _, commands = scripts.follow("dream", f"run_{seed}", "--seed", seed)
        seeds = {int(value(command, "--seed")) for command in commands[:-1]}
        assert seeds == {seed, *range(1000 * seed, 1000 * seed + 51)}


@pytest.mark.parametrize("recipe", ["reproduce", "dream", "dream_first", "doom"])
def test_recipes_give_options_that_exist(scripts, recipe):
    used = {(name, word) for name, *words in scripts.follow(recipe)[1] for word in words if word.startswith("--")}
    helps = {name: run(*name.split(), "--help").stdout for name, _ in used}
    assert len(used) > 15 and all(re.search(rf"^  (-\w.*, )?{option}\b", helps[name], re.M) for name, option in used)


@pytest.mark.parametrize("recipe", ["reproduce", "dream", "dream_first", "doom"])
def test_its_help_says_what_it_does_and_does_nothing(scripts, recipe):
    result = run("-m", f"recipes.{recipe}", "--help")
    assert result.returncode == 0 and "[RUN FOLDER]" in result.stdout and not scripts.commands
    assert f"python -m recipes.{recipe}" in (ROOT / "recipes" / f"{recipe}.py").read_text()
