"""Games are data: one entry more in the registry, and the scripts train V, M and C on another game."""

import json
import shutil

import pytest
import torch
from conftest import assert_one_line_error, run, succeed
from toy_game import SIZES, TOY

from envs.games import GAMES
from models.sizes import CARRACING_SIZES, Sizes
from utils.run_folder import load_controller, load_game, load_mdrnn, load_vae


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(GAMES, "toy", TOY)


def test_a_third_game_needs_one_entry(toy, tiny_dataset, tmp_path, monkeypatch):
    data, logdir = tmp_path / "data", tmp_path / "run"
    made = run("data/generation_script.py", "--game", "toy", "--rollouts", 20, "--rootdir", data, "--policy", "white")
    assert "20 rollouts, 800 frames" in succeed(made)
    common = ["--logdir", logdir, "--dataset", data]
    succeed(run("trainvae.py", *common, "--epochs", 2, "--kl-weight", 0.01, "--batch-size", 32))
    succeed(run("trainmdrnn.py", *common, "--epochs", 2, "--include_reward"))
    train = ["traincontroller.py", "--logdir", logdir, "--pop-size", 16, "--n-samples", 2, "--sigma", 0.1]
    trained = succeed(run(*train, "--generations", 10, "--eval-episodes", 16))
    score = succeed(run("test_controller.py", "--logdir", logdir, "--episodes", 16, "--json", tmp_path / "score.json"))
    assert score.splitlines()[-1].startswith("score -") and "over 16 tracks" in score
    kept = json.loads((tmp_path / "score.json").read_text())
    assert kept["env"] == "plain" and kept["env_version"].startswith("Lamp-v0, numpy ") and kept["lengths"] == [40] * 16
    # Not to move costs 20 in the mean, and the way to the middle 2.5: that needs V.
    assert kept["mean"] > -5, trained

    for model in (load_vae(logdir), load_mdrnn(logdir), load_controller(logdir)):
        assert model.sizes == SIZES
    assert load_controller(logdir).fc.weight.shape == (1, 4 + 16 + 16)
    assert load_game(logdir) == (TOY, SIZES)

    # Later rollouts come from the controller, the film from the same loop.
    again = ["--policy", "controller", "--logdir", logdir, "--rootdir", tmp_path / "round_1", "--rollouts", 2]
    assert_one_line_error(run("data/generation_script.py", *again), "--game toy")
    assert "2 rollouts, 80 frames" in succeed(run("data/generation_script.py", "--game", "toy", *again))
    film = tmp_path / "film.gif"
    succeed(run("test_controller.py", "--logdir", logdir, "--episodes", 1, "--record", film))
    assert film.stat().st_size > 100

    # A dataset of one game is not for a V of another, nor is a folder of two games a dataset.
    other = tmp_path / "carracing"
    shutil.copytree(tiny_dataset, other / "a")
    assert_one_line_error(run("trainmdrnn.py", "--logdir", logdir, "--dataset", other), "rollouts of carracing", "toy")
    succeed(run("data/generation_script.py", "--game", "toy", "--rollouts", 1, "--rootdir", other / "b"))
    assert_one_line_error(run("trainvae.py", "--logdir", logdir, "--dataset", other), "several games")
    assert_one_line_error(run("traincontroller.py", "--logdir", logdir, "--env", "fast"), "--env fast", "plain")

    monkeypatch.delitem(GAMES, "toy")
    assert_one_line_error(run("traincontroller.py", "--logdir", logdir), logdir / "vae" / "best.tar", "'toy'")


def test_commands_are_recorded_beside_their_results(trained, tmp_path):
    (entry,) = json.loads((trained / "vae" / "args.json").read_text())
    assert entry["script"] == "trainvae.py" and entry["arguments"]["epochs"] == 1 and entry["presets"] == []
    assert entry["versions"]["torch"] == torch.__version__.split("+")[0] and entry["seconds"] > 0
    assert entry["processor"] and (entry["commit"] is None or len(entry["commit"]) >= 40)


def test_sizes_survive_a_checkpoint():
    for sizes in (CARRACING_SIZES, SIZES):
        assert Sizes.from_dict(json.loads(json.dumps(sizes.to_dict()))) == sizes
    assert Sizes.from_dict({}) == CARRACING_SIZES
    for damaged in ({"latent": 3}, SIZES.to_dict() | {"inputs": "c"}, SIZES.to_dict() | {"wings": 2}):
        with pytest.raises((KeyError, ValueError, TypeError)):
            Sizes.from_dict(damaged)
