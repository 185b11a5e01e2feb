"""The studies and measurements behind docs/RESULTS.md, at the smallest scale, in the real environment."""

import json

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
