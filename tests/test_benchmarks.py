"""The studies and measurements behind docs/RESULTS.md, at the smallest scale, in the real environment."""

import json
import re

import imageio.v3 as imageio
import pytest
from conftest import run, succeed

from benchmarks.studies import STUDIES


def test_a_study_trains_scores_and_keeps_its_runs(trained, tiny_dataset, tmp_path):
    arguments = ["ablations", "--logdir", trained, "--dataset", tiny_dataset, "--out", tmp_path, "--seeds", 1]
    arguments += ["--episodes", 128, "--tracks", 2, "--only", "untrained M"]
    output = succeed(run("-m", "benchmarks.studies", *arguments))
    (path,) = (tmp_path / "ablations").glob("*.json")
    kept = json.loads(path.read_text())
    assert kept["setting"] == "untrained M" and kept["seed"] == 0 and len(kept["returns"]) == 2
    assert kept["env"] == "gymnasium" and kept["history"][-1]["episodes"] == 128
    assert kept["mean"] == pytest.approx(sum(kept["returns"]) / 2)
    row = f"| untrained M | 1 | 128 | {kept['mean']:.0f} | - |"
    assert row in output
    modified = path.stat().st_mtime_ns
    assert row in succeed(run("-m", "benchmarks.studies", *arguments))  # and does not do it again
    assert path.stat().st_mtime_ns == modified
    assert run("-m", "benchmarks.studies", *arguments[:-1], "no such").returncode == 2


def test_the_settings_of_the_studies_are_options_that_exist():
    options = run("traincontroller.py", "--help").stdout
    for settings in STUDIES.values():
        for setting in settings.values():
            assert all(f"--{name} " in options for name in setting.options)


def test_memory_is_measured_on_held_out_rollouts(trained, tiny_dataset, tmp_path):
    arguments = ["--logdir", trained, "--dataset", tiny_dataset, "--out", tmp_path]
    output = succeed(run("-m", "benchmarks.memory_quality", *arguments))
    result = json.loads((tmp_path / "memory.json").read_text())
    assert result["windows"] == 1 and f"{result['nll'][0]:.2f} nats" in output
    for name in ("latent_m", "latent_copy"):
        assert len(result[name]) == 50 and min(result[name]) > 0
    # V alone is the best that M can do in pixels; the copied frame is right for one step and wrong for fifty.
    assert result["pixel_copy"][0] < result["pixel_copy"][-1]
    assert len(result["history"]) == 1 and (tmp_path / "memory.png").stat().st_size > 10_000
    assert "reward" not in output


def test_the_worst_tracks_are_driven_again_as_they_were_scored(tmp_path):
    score, picture = tmp_path / "score.json", tmp_path / "worst.png"
    succeed(run("test_controller.py", "--logdir", "pretrained", "--env", "fast", "--episodes", 2, "--json", score))
    returns = json.loads(score.read_text())["returns"]
    arguments = ["--logdir", "pretrained", "--score", score, "--tracks", 1, "--out", picture]
    (line,) = succeed(run("-m", "benchmarks.worst_tracks", *arguments)).splitlines()
    worst = returns.index(min(returns))
    assert line.startswith(f"track {worst}: return {min(returns):.1f} (scored {min(returns):.1f})")
    # A tile is worth 1000 / their number, and a step costs 0.1.
    steps, missed, tiles = map(int, re.search(r"(\d+) steps, (\d+) of (\d+) tiles missed", line).groups())
    assert 1000 * (tiles - missed) / tiles - 0.1 * steps == pytest.approx(min(returns), abs=0.1)
    assert imageio.imread(picture).std() > 10


def test_a_score_becomes_a_histogram_and_a_line(tmp_path):
    lines = succeed(run("-m", "benchmarks.plot_results", "--out", tmp_path)).splitlines()
    assert any(re.match(r"\| \d+ \| \d+ \| \d+\.\d\d \| \d+\.\d \|", line) for line in lines)
    assert re.fullmatch(r"\d+\.\d \+- \d+\.\d \(standard error \d+\.\d\) over \d+ tracks.*", lines[-1])
    for name in ("learning_curve.png", "scores.png"):
        assert imageio.imread(tmp_path / name).std() > 10
