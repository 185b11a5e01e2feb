"""Take Cover with real engines, some of which really die."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, assert_one_line_error, drive_all, launch, run, succeed, wait_until, workers_of
from gymnasium.utils.env_checker import check_env

from data.loaders import find_rollouts, load_rollout
from data.policies import held, pace, roam
from data.rollouts import PolicyRunner, Rollout
from envs import doom_engine, make_env
from envs.games import TAKECOVER
from envs.takecover import TakeCover, shrink
from models.sizes import RANGES
from utils.commandline import UserError
from utils.rollouts import Outcome

SHARED_MEMORY = Path("/dev/shm")
USE = "import sys; sys.path.insert(0, '.'); from envs import make_env; env = make_env('vizdoom'); env.reset(seed=0); "


@pytest.fixture
def env():
    environment = make_env("vizdoom", "rgb_array")
    yield environment
    environment.close()


def drive(environment: TakeCover, seed: int, actions: Iterable[float]) -> np.ndarray:
    """The frames of an episode."""
    frames = [environment.reset(seed=seed)[0]]
    for action in actions:
        frame, _, terminated, *_ = environment.step(np.array([action], np.float32))
        frames.append(frame)
        if terminated:
            break
    return np.array(frames)


def random_actions(steps: int, seed: int = 0) -> np.ndarray:
    return held(np.random.default_rng(seed), TAKECOVER.sizes, steps)[:, 0]


def engines_in(folder: Path) -> list[int]:
    """The processes that work in a folder or below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")).is_relative_to(folder.resolve()):
                found.append(int(process.name))
        except OSError:
            continue  # it has just ended
    return found


def kill_engine(environment: TakeCover) -> None:
    (engine,) = engines_in(environment._engine._folder)
    os.kill(engine, signal.SIGKILL)


def shared_files(folder: Path) -> list[Path]:
    """The files in /dev/shm of the engines that have worked in a folder."""
    texts = []
    for path, _, names in os.walk(folder):  # which leaves out what a keeper removes in the meantime
        if "arguments" in names:
            with contextlib.suppress(FileNotFoundError):
                texts.append(Path(path, "arguments").read_text())
    names = re.findall(r"^\+viz_instance_id\n(\w+)$", "".join(texts), re.M)
    return [file for name in names for file in SHARED_MEMORY.glob(f"ViZDoom*{name}")]


def is_clean(temporary: Path, files: list[Path]) -> bool:
    """Whether neither engines nor their folders nor these files are left."""
    return not engines_in(temporary) and not any(f.exists() for f in [*files, *temporary.glob("takecover_*")])


def test_spaces_and_conventions(env):
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    (output,) = TAKECOVER.sizes.outputs
    assert env.action_space == gymnasium.spaces.Box(*RANGES[output], (TAKECOVER.sizes.action,), np.float32)
    check_env(gymnasium.make("TakeCover-v0").unwrapped, skip_render_check=True)


def test_an_episode_depends_on_seed_and_actions_alone(env):
    actions = random_actions(120)
    first = drive(env, 5, actions)
    drive(env, 6, actions[:40])  # left in its midst
    assert len(first) > 40 and (drive(env, 5, actions) == first).all()
    other = make_env("vizdoom")
    drive(other, 7, actions)
    assert (drive(other, 5, actions) == first).all()
    other.close()
    different = drive(env, 8, actions)
    assert (different[: len(first)] != first[: len(different)]).any()


def test_frames_show_the_room_and_neither_panel_nor_weapon(env):
    drive(env, 0, random_actions(60))
    screen = env.render()
    assert screen.shape == (240, 320, 3)
    frame = shrink(screen)
    grey = np.ptp(frame.astype(int), axis=2) < 12
    assert grey[:22].all() and grey[44:].all()  # ceiling, and floor where the weapon would be
    wall = frame[26:34].reshape(-1, 3).mean(axis=0)
    assert wall[0] > wall[1] > wall[2]  # brown
    fine = np.repeat(screen[:200].astype(float), 8, axis=0)  # eighths of a row: 25 of them for each row of the frame
    assert np.abs(fine.reshape(64, 25, 64, 5, 3).mean(axis=(1, 3)) - frame).max() <= 0.5


def test_a_frame_is_not_overwritten_by_the_next_step(env):
    frame, _ = env.reset(seed=0)
    screen, copies = env.render(), (frame.copy(), env.render().copy())
    for _ in range(3):
        env.step(np.ones(1, np.float32))
    assert (frame == copies[0]).all() and (screen == copies[1]).all()


def test_thresholds_of_the_action(env):
    def place(action: float) -> float:
        drive(env, 0, [action] * 8)
        return env._engine.game.get_game_variable(env._vizdoom.GameVariable.POSITION_Y)

    left, stay, right = ({place(action) for action in group} for group in ((-1, -0.34), (-0.33, 0, 0.33), (0.34, 1)))
    assert len(left) == len(stay) == len(right) == 1
    positions = left.pop(), stay.pop(), right.pop()
    assert positions in (tuple(sorted(positions)), tuple(sorted(positions)[::-1])) and len(set(positions)) == 3


def test_death_terminates_and_2100_steps_truncate(env):
    env.reset(seed=0)
    steps, terminated = 0, False
    while not terminated:
        frame, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        steps += 1
        assert reward == 1 and not truncated and frame.shape == (64, 64, 3)
    assert 20 < steps < 2000
    env.reset(seed=0)
    env._engine.game.send_game_command("god")
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(2100)]
    assert ends == [(False, False)] * 2099 + [(False, True)]


def test_a_dead_engine_is_replaced_and_its_episode_goes_on(env):
    actions = random_actions(90)
    expected = drive(env, 3, actions)
    assert len(expected) > 60
    frames = [env.reset(seed=3)[0]]
    for step, action in enumerate(actions[: len(expected) - 1]):
        if step in (0, 50):
            kill_engine(env)
        frames.append(env.step(np.array([action], np.float32))[0])
    assert (np.array(frames) == expected).all()
    kill_engine(env)
    assert (drive(env, 3, actions) == expected).all()


@pytest.mark.parametrize("victim", ["process", "group"])
def test_a_killed_process_leaves_nothing(tmp_path, victim):
    code = USE + "print('ready', flush=True); import time; time.sleep(600)"
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    options = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-c", code], **options)
    assert process.stdout.readline() == "ready\n"
    files = shared_files(tmp_path)
    assert len(engines_in(tmp_path)) == 1 and len(files) == 3
    (os.killpg if victim == "group" else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: is_clean(tmp_path, files), seconds=10)


@pytest.mark.slow
def test_killed_workers_and_a_killed_generation_leave_nothing(tmp_path, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("t")  # the path of a socket in it has at most 107 characters
    arguments = ["--game", "takecover", "--rollouts", 1000, "--rootdir", tmp_path / "data", "--threads", 2]
    environment = ENVIRONMENT | {"TMPDIR": str(temporary)}
    process = launch("data/generation_script.py", *arguments, env=environment)
    try:
        wait_until(lambda: len(list((tmp_path / "data").rglob("rollout_*.npz"))) >= 4)
        before = set(engines_in(temporary))
        worker = workers_of(process.pid)[0]
        files = shared_files(temporary)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: set(engines_in(temporary)) - before and not all(file.exists() for file in files))
        files += shared_files(temporary)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "a new worker takes its place" in errors
    wait_until(lambda: is_clean(temporary, files), seconds=10)


def test_the_current_folder_may_be_read_only_and_stays_clean(tmp_path):
    code = USE.replace("'.'", repr(str(ROOT))) + "import os; print(os.getcwd())"
    command = [sys.executable, "-c", code]
    # Not even root may write to /proc.
    for folder in (Path("/proc"), tmp_path):
        done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.stdout == f"{folder}\n", done.stderr
    assert not list(tmp_path.iterdir())


def test_vizdoom_missing_or_too_old_is_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError, match="vizdoom .* pip install -r requirements.txt"):
        patch.setitem(sys.modules, "vizdoom", None)
        make_env("vizdoom")

    old = tmp_path / "old" / "vizdoom-1.2.4.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: vizdoom\nVersion: 1.2.4\n")
    command = ["data/generation_script.py", "--rollouts", 1, "--rootdir", tmp_path / "data", "--game"]
    with monkeypatch.context() as patch:
        patch.syspath_prepend(old.parent)
        result = run(*command, "takecover")
    assert_one_line_error(result, "vizdoom 1.2.4 is older than 1.3", "pip install -r requirements.txt")
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    succeed(run(*command, "carracing"))


def test_what_cannot_be_started_or_shown_is_one_line(monkeypatch):
    with pytest.raises(UserError, match="play.py"):
        make_env("vizdoom", "human")
    monkeypatch.setattr(doom_engine, "STARTER", ROOT / "README.md")
    with pytest.raises(UserError, match="README.md: may not be executed: chmod"):
        make_env("vizdoom").reset(seed=0)


def test_no_space_in_shared_memory_is_one_line():
    small = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if shutil.which("unshare") is None or subprocess.run([*small, mount], capture_output=True).returncode:
        pytest.skip("needs a mount of its own on /dev/shm")
    command = [*small, f'{mount} && exec "$0" "$@"', sys.executable, "-c", USE]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].startswith("envs.errors.UserError: /dev/shm: full")


def test_held_actions():
    actions = held(np.random.default_rng(0), TAKECOVER.sizes, 20_000)
    assert actions.dtype == np.float32 and actions.shape == (20_000, 1)
    assert (held(np.random.default_rng(0), TAKECOVER.sizes, 20_000) == actions).all()
    changes = np.flatnonzero(np.diff(actions[:, 0])) + 1
    holds = np.diff(changes)
    assert set(holds) == set(range(1, 11)) and holds.mean() == pytest.approx(5.5, abs=0.2)
    assert actions[changes].mean() == pytest.approx(0, abs=0.05) and np.abs(actions).max() <= 1


def longest_hold(actions):
    turns = np.flatnonzero(np.diff(actions[:, 0])) + 1
    return np.diff(turns).max()


def test_pacing_goes_to_the_ends_in_turn():
    actions = pace(np.random.default_rng(0), TAKECOVER.sizes, 20_000)
    assert actions.dtype == np.float32 and actions.shape == (20_000, 1) and set(actions.flatten()) == {-1, 1}
    holds = np.diff(np.flatnonzero(np.diff(actions[:, 0])))
    assert holds.min() >= 10 and 140 < holds.max() <= 150


def test_roaming_holds_actions_briefly_or_long_or_paces():
    driven = [roam(np.random.default_rng(seed), TAKECOVER.sizes, 5000) for seed in range(300)]
    assert (roam(np.random.default_rng(7), TAKECOVER.sizes, 5000) == driven[7]).all()
    assert all(actions.dtype == np.float32 and actions.shape == (5000, 1) for actions in driven)
    pacing = [set(actions.flatten()) == {-1, 1} for actions in driven]
    longest = [longest_hold(actions) for actions, paces in zip(driven, pacing, strict=True) if not paces]
    assert 0.25 < np.mean(pacing) < 0.42
    assert 0.25 < np.mean([hold == 10 for hold in longest]) < 0.75 and min(longest) < 5 and 80 < max(longest) <= 100


def test_another_episode_takes_the_place_of_a_short_rollout():
    def rollouts(shortest: int) -> list[Outcome]:
        runner = PolicyRunner(replace(TAKECOVER, shortest_rollout=shortest), "vizdoom", held)
        return drive_all(runner, [(seed, [seed]) for seed in range(4)])

    first, long = rollouts(0), rollouts(250)
    assert any(outcome.length < 250 for outcome in first)
    assert all(
        after == before if before.length >= 250 else after.length >= 250
        for before, after in zip(first, long, strict=True)
    )


def test_generation_drives_the_game_its_own_way(tmp_path):
    arguments = ["data/generation_script.py", "--game", "takecover", "--rollouts", 5]
    succeed(run(*arguments, "--rootdir", tmp_path / "a"))
    succeed(run(*arguments, "--rootdir", tmp_path / "b", "--threads", 1))
    settings = json.loads((tmp_path / "a" / "generation.json").read_text())
    assert settings["game"] == "takecover" and settings["policy"] == "held" and settings["vizdoom"]
    files, again = find_rollouts(tmp_path / "a"), find_rollouts(tmp_path / "b")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    for file in files:
        frames, actions, rewards, terminals = load_rollout(file, Rollout._fields, TAKECOVER.sizes)
        assert len(frames) > 100 and (rewards == 1).all() and terminals[-1] and not terminals[:-1].any()
        assert np.ptp(actions) > 1
