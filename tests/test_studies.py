"""The studies and measurements behind docs/RESULTS.md, at the smallest scale, in the real environment."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_line_error, run, succeed
from short_carracing import LONGER_CARRACING, PATIENCE, SHORT_CARRACING, STEPS

from data.loaders import find_rollouts
from envs import make_env
from envs.carracing_truth import QUANTITIES, true_state
from models.controller import Controller
from models.sizes import CARRACING_SIZES
from studies import begin_in_dream, dream_levers, dream_memories, readout, worst_tracks
from studies.compare import STUDIES, Setting
from studies.dreaming import as_preset
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.dreams import dream_pool
from utils.logs import logged_steps
from utils.rollouts import Episode
from utils.run_folder import fingerprint, load_dreams


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_a_study_trains_and_keeps_its_runs(trained, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(STUDIES["ablations"], "untrained M", Setting({"population": 16}, untrained=("mdrnn",)))
    arguments = ["ablations", "--logdir", trained, "--dataset", tiny_dataset, "--out", tmp_path, "--seeds", 1]
    arguments += ["--episodes", 16, "--tracks", 2, "--only", "untrained M"]
    output = succeed(run("-m", "studies.compare", *arguments))
    (path,) = (tmp_path / "ablations").glob("*.json")
    kept = json.loads(path.read_text())
    assert kept["setting"] == "untrained M" and kept["seed"] == 0
    last = kept["history"][-1]
    assert last["episodes"] == 16
    mean, spread, minutes = last["return/mean"], last["return/mean_spread"], last["seconds"] / 60
    row = f"| untrained M | 1 | 16 | {mean:.0f} | {mean:.0f} | {mean:.0f} | ± {spread:.0f} | {minutes:.1f} |"
    assert row in output
    assert imageio.imread(tmp_path / "ablations.png").std() > 10
    modified = path.stat().st_mtime_ns
    assert row in succeed(run("-m", "studies.compare", *arguments))  # and does not do it again
    assert path.stat().st_mtime_ns == modified
    other_budget = run("-m", "studies.compare", *arguments, "--episodes", 32)
    assert other_budget.returncode == 1 and "'episodes': 16" in other_budget.stderr
    too_few = run("-m", "studies.compare", *arguments, "--episodes", 10, "--out", tmp_path / "empty")
    assert_one_line_error(too_few, "--episodes 10")
    # What is kept can be shown without the models.
    assert row in succeed(run("-m", "studies.compare", "ablations", "--out", tmp_path))
    (tmp_path / "ablations" / "damaged.json").write_text('{"setting": ')
    assert_one_line_error(run("-m", "studies.compare", "ablations", "--out", tmp_path), "damaged.json: damaged")
    assert_one_line_error(run("-m", "studies.compare", "levers", "--out", tmp_path), "levers", "--logdir")
    assert run("-m", "studies.compare", *arguments[:-1], "no such").returncode == 2


def test_a_study_that_lacks_the_first_driver_says_so_before_it_begins(trained, tmp_path):
    arguments = ["levers", "--logdir", trained, "--episodes", 1280, "--out", tmp_path]
    result = run("-m", "studies.compare", *arguments)
    assert_one_line_error(result, str(trained.parent / "round_0"), "make reproduce")


def test_the_settings_of_the_studies_can_be():
    for settings in STUDIES.values():
        for setting in settings.values():
            setting.settings(episodes=2560, tracks=100, seed=0).check()
            assert setting.generations(2560) >= 10
            replace(CARRACING_SIZES, **setting.sizes)


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_the_fidelity_of_a_dream_is_measured(dreamer, tmp_path):
    logdir = Path(shutil.copytree(dreamer, tmp_path / "run"))
    sizes = replace(CARRACING_SIZES, inputs="z")
    torch.manual_seed(0)
    state = {"state_dict": Controller(sizes).state_dict(), "sizes": sizes.to_dict()}
    save_checkpoint(logdir / "ctrl" / "best.tar", state)
    state = load_checkpoint(logdir / "mdrnn" / "best.tar", "")
    save_checkpoint(logdir / "mdrnn" / "best.tar", state | {"history": state["history"][:1]})  # the best of 3 epochs
    output = succeed(run("-m", "studies.dream_fidelity", "--logdir", logdir, "--episodes", 1))
    result = json.loads((logdir / "mdrnn" / "fidelity.json").read_text())
    real, dreamed = (result[name]["returns"]["1000"] for name in ("real", "where rollouts begin"))
    assert len(real) == len(dreamed) == 13 and f"| 0 of C | {real[0]:.0f} | {dreamed[0]:.0f} |" in output
    correlation = result["correlations"]["where rollouts begin"][-1]
    assert correlation == pytest.approx(np.corrcoef(real, dreamed)[0, 1]) and f" {correlation:.2f} |" in output
    # The controller of zeros drives straight on: here is what it earns until it is hopeless, and then by idling.
    environment, total, gained = make_env("fast"), 0.0, 0
    environment.reset(seed=100_000)
    for step in range(1, STEPS + 1):
        reward = environment.step(np.array([0, 0.5, 0], np.float32))[1] if step - gained <= PATIENCE else -0.1
        gained = step if reward > 0 else gained
        total += reward
    assert real[0] == pytest.approx(total, abs=0.11)
    assert (logdir / "mdrnn" / "fidelity.png").stat().st_size > 10_000
    strip = imageio.imread(logdir / "mdrnn" / "strip.png")
    assert strip.shape == (230, 3 * 90, 4)  # every 25 steps
    assert strip[20:80, 150:200, :3].std() > 3 and strip[115:175, 150:200, :3].std() > 3  # of both second frames
    steps = logged_steps(logdir / "mdrnn")
    assert steps["fidelity/anywhere"] == {3} and steps["loss/test"] == {1, 2, 3}


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_c_begins_in_the_dream_and_goes_on_in_reality(dreamer, tmp_path, monkeypatch):
    logdir = Path(shutil.copytree(dreamer, tmp_path / "run"))
    monkeypatch.setitem(begin_in_dream.SETTINGS, "both", begin_in_dream.Setting(first=2, between=1))
    monkeypatch.setattr(begin_in_dream, "as_preset", lambda *options: as_preset(*options, "--pop-size", 16))
    arguments = ["--logdir", logdir, "--out", tmp_path, "--seeds", 1, "--generations", 2, "--tracks", 2]
    output = succeed(run("-m", "studies.begin_in_dream", *arguments, "--only", "both"))
    kept = json.loads((tmp_path / "begin_in_dream" / "both_0.json").read_text())
    assert [row["episodes"] for row in kept["scores"]] == [16, 32]  # real ones alone
    assert [f"generation {number}: " in output for number in range(1, 7)] == [True] * 5 + [False]
    last = re.search(r"generation 5: .* mean of the distribution (\S+) ", output)
    assert last and f"{kept['scores'][-1]['mean']:.1f}" == last[1]
    best = max(row["mean"] for row in kept["scores"])
    row = f"| both | 1 | (not in 32) | (not in 32) | (not in 32) | {best:.0f} |"
    assert row in output and row in succeed(run("-m", "studies.begin_in_dream", "--out", tmp_path))
    assert imageio.imread(tmp_path / "begin_in_dream.png").std() > 10
    assert not (logdir / "studies" / "begin_in_dream" / "both_0").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_what_makes_a_dreamt_driver_good_is_compared(dreamer, tmp_path):
    logdir = Path(shutil.copytree(dreamer, tmp_path / "run"))
    name = "dreams of 100 steps"
    arguments = ["--logdir", logdir, "--out", tmp_path, "--seeds", 1, "--generations", 3, "--tracks", 2]
    output = succeed(run("-m", "studies.dream_levers", *arguments, "--only", name))
    kept = json.loads((tmp_path / "dream_levers" / "dreams_of_100_steps_0.json").read_text())
    half, last = kept["scores"]
    assert [half["generations"], last["generations"]] == [1, 3] and len(half["real"]) == len(last["real"]) == 2
    assert last["dreamed"] < 200  # in a hundred steps nobody gets further
    row = f"| {name} | 1 | {last['dreamed']:.0f} | {np.mean(half['real']):.0f} | {np.mean(last['real']):.0f} |"
    assert row in output and row in succeed(run("-m", "studies.dream_levers", "--out", tmp_path))
    assert imageio.imread(tmp_path / "dream_levers.png").std() > 10
    assert not any((logdir / "studies" / "dream_levers").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_c_dreams_in_several_memories(dreamer, tiny_dataset, tmp_path):
    logdir = Path(shutil.copytree(dreamer, tmp_path / "run"))
    arguments = ["--logdir", logdir, "--dataset", tiny_dataset, "--random", tiny_dataset, "--out", tmp_path]
    arguments += ["--epochs", 1, "--seeds", 2, "--generations", 2, "--tracks", 2, "--only", "several M"]
    output = succeed(run("-m", "studies.dream_memories", *arguments))
    kept = [json.loads((tmp_path / "dream_memories" / f"several_M_{seed}.json").read_text()) for seed in range(2)]
    real = [np.mean(one["real"]) for one in kept]
    row = f"| {real[0]:.0f} {real[1]:.0f} |"
    assert row in output and row in succeed(run("-m", "studies.dream_memories", "--out", tmp_path))
    assert kept[0]["dreamed"] != kept[1]["dreamed"]
    assert run("-m", "studies.dream_memories", *arguments[:4]).returncode == 2  # without --random

    worlds = [logdir / "studies" / "memories" / f"own_{seed}" for seed in range(2)]
    assert fingerprint(worlds[0], "mdrnn") != fingerprint(worlds[1], "mdrnn")
    game, sizes, settings, dreaming = as_preset(logdir)
    episodes = [Episode(np.zeros(sizes.controller, np.float32), seed, 50) for seed in (3, 4, 6, 8, 11)]
    pools = [dream_pool(load_dreams(world, dreaming), sizes, 1, 5, tmp_path / "tmp") for world in worlds]
    with pools[0], pools[1]:
        alone = [dict(pool.run(episodes)) for pool in pools]
        together = dict(dream_memories.DreamsOfMany(pools).run(episodes))
    assert alone[0] != alone[1]
    assert together == {number: alone[episode.seed % 2][number] for number, episode in enumerate(episodes)}


def test_the_settings_of_dreams_can_be():
    for setting in dream_levers.SETTINGS.values():
        _, _, settings, _ = as_preset(ROOT / "pretrained" / "dream", *setting.options)
        settings.check()
        assert settings.episodes == 128  # of a generation, in all of them


def test_memory_is_measured_on_held_out_rollouts(trained, tiny_dataset, tmp_path):
    arguments = ["--logdir", trained, "--dataset", tiny_dataset, "--out", tmp_path]
    output = succeed(run("-m", "studies.memory_quality", *arguments))
    result = json.loads((tmp_path / "memory.json").read_text())
    assert result["windows"] == 1 and f"{result['nll'][0]:.2f} nats" in output
    for name in ("latent_m", "latent_copy"):
        assert len(result[name]) == 50 and min(result[name]) > 0
    # V alone is the best that M can do in pixels; the copied frame is right for one step and wrong for fifty.
    assert result["pixel_copy"][0] < result["pixel_copy"][-1]
    assert len(result["history"]) == 1 and (tmp_path / "memory.png").stat().st_size > 10_000
    assert "reward" not in output

    short = tmp_path / "short"
    shutil.copytree(tiny_dataset, short)
    find_rollouts(short)[-1].unlink()  # the one after it, of 60 steps, is held out now
    refused = run("-m", "studies.memory_quality", "--logdir", trained, "--dataset", short, "--out", tmp_path)
    assert_one_line_error(refused, short, "longer than 110 steps")


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_the_worst_tracks_are_driven_again_as_they_were_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(worst_tracks, "CARRACING", SHORT_CARRACING)
    score, picture = tmp_path / "score.json", tmp_path / "worst.png"
    options = ["--env", "fast", "--seed", 1839, "--episodes", 2]
    succeed(run("test_controller.py", "--logdir", "pretrained", *options, "--json", score))
    returns = json.loads(score.read_text())["returns"]
    arguments = ["--logdir", "pretrained", "--score", score, "--tracks", 1, "--out", picture]
    (line,) = succeed(run("-m", "studies.worst_tracks", *arguments)).splitlines()
    worst = 1839 + returns.index(min(returns))
    assert line.startswith(f"track {worst}: return {min(returns):.1f} (scored {min(returns):.1f})")
    # A tile is worth 1000 / their number, and a step costs 0.1.
    steps, missed, tiles = map(int, re.search(r"(\d+) steps, (\d+) of (\d+) tiles missed", line).groups())
    assert 1000 * (tiles - missed) / tiles - 0.1 * steps == pytest.approx(min(returns), abs=0.1)
    assert imageio.imread(picture).std() > 10


def test_true_states_mean_what_they_are_called():
    environment = make_env("fast")
    environment.reset(seed=0)
    start = dict(zip(QUANTITIES, true_state(environment.unwrapped), strict=True))
    assert start["speed"] < 1 and abs(start["offset"]) < 1 and abs(start["heading"]) < 0.2
    for _ in range(30):
        environment.step(np.array([0, 0.5, 0], dtype=np.float32))
    for _ in range(10):
        environment.step(np.array([1, 0, 0], dtype=np.float32))
    right = dict(zip(QUANTITIES, true_state(environment.unwrapped), strict=True))
    assert right["speed"] > 10 and abs(right["sideways"]) < right["speed"]
    assert right["wheels"] < 0 and right["rotation"] < 0 and right["heading"] < start["heading"]  # clockwise
    for _ in range(20):
        environment.step(np.array([0, 0, 0], dtype=np.float32))
    later = dict(zip(QUANTITIES, true_state(environment.unwrapped), strict=True))
    assert later["offset"] > right["offset"]  # to the right of the road


def test_what_is_plain_to_see_can_be_read_out(monkeypatch):
    monkeypatch.setattr(readout, "CARRACING", LONGER_CARRACING)
    output = succeed(run("-m", "studies.readout", "--logdir", "pretrained", "--tracks", 4))
    names = output.splitlines()[0].strip("| ").split(" | ")
    latent, both = (row.strip("| ").split(" | ") for row in output.splitlines()[2:])
    assert latent[3] == "z" and both[3] == "z, h" and len(latent) == len(names)
    assert 0 < int(latent[2]) <= 32 and 2 < float(latent[1]) < 10
    shown = dict(zip(names, both, strict=True))
    assert float(shown["wheels"]) > 0.9  # an indicator in the frame is nothing else
    assert all(float(shown[name]) <= 1 for name in QUANTITIES)


def test_a_score_becomes_a_histogram_and_a_line(tmp_path):
    lines = succeed(run("-m", "studies.plot_results", "--out", tmp_path)).splitlines()
    assert any(re.match(r"\| \d \| \d+ \| \d+ \| \d+\.\d\d \| \d+\.\d \|", line) for line in lines)
    for driver, line in zip(("pretrained", "pretrained/dream"), lines[-2:], strict=True):
        assert re.fullmatch(driver + r": \d+\.\d \+- \d+\.\d \(standard error \d+\.\d\) over \d+ tracks.*", line)
    for name in ("learning_curve.png", "scores.png"):
        assert imageio.imread(tmp_path / name).std() > 10


def test_a_round_counts_on_from_those_before(tmp_path):
    logdir, results = tmp_path / "run", tmp_path / "results"
    results.mkdir()
    for name in ("driver_score.json", "dream_score.json", "paper_learning_curve.csv"):
        shutil.copy(ROOT / "docs" / "results" / name, results)
    for folder in (logdir / "round_0", logdir):
        (folder / "ctrl").mkdir(parents=True)
        shutil.copy(ROOT / "pretrained" / "ctrl" / "checkpoint.tar", folder / "ctrl")
    output = succeed(run("-m", "studies.plot_results", "--logdir", logdir, "--results", results, "--out", tmp_path))
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if re.match(r"\| \d ", line)]
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    history = torch.load(logdir / "ctrl" / "checkpoint.tar", weights_only=True)["history"]
    assert [row[0] for row in rows] == ["0"] * len(first) + ["1"] * len(first)
    assert [int(b[2]) - int(a[2]) for a, b in zip(first, second, strict=True)] == [history[-1]["episodes"]] * len(first)
    assert [row[4] for row in first] == [row[4] for row in second]  # the means are what they were
    assert json.loads((results / "evolution.json").read_text()) == [history, history]
