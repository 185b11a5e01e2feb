"""NaN and infinity: one clear line, before any good file is replaced."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_one_line_error, run, succeed

import trainmdrnn
import trainvae
from data.loaders import find_rollouts, load_rollout
from data.rollouts import Rollout, pack_rollout, save_rollout
from envs import make_env
from evolution.mirrored import MirroredEvolution
from evolution.run import EvolutionRun
from evolution.train import drive
from models.controller import Controller
from models.mdrnn import MDRNN
from models.sizes import CARRACING_SIZES
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.commandline import UserError
from utils.rollouts import Episode, Outcome

BAD = [math.nan, math.inf, -math.inf]
STAGES = [("trainvae.py", "vae", trainvae.FrameObjective), ("trainmdrnn.py", "mdrnn", trainmdrnn.SequenceObjective)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


@pytest.mark.parametrize("kind", ["fast", "gymnasium", "vizdoom", "dream"])
def test_environments_refuse_actions_that_are_not_finite(kind, request):
    options = {"logdir": request.getfixturevalue("dreamer")} if kind == "dream" else {}
    env = make_env(kind, **options)
    env.reset(seed=1)
    numbers = env.action_space.shape[0]
    for number in range(numbers):
        for bad in BAD:
            action = np.zeros(numbers, np.float32)
            action[number] = bad
            with pytest.raises(UserError, match=r"action \[.*(nan|inf).*not all numbers are finite"):
                env.step(action)
    frame, *_ = env.step(np.zeros(numbers, np.float32))
    assert frame.shape == (64, 64, 3)
    env.close()


@pytest.mark.parametrize(("script", "stage", "objective"), STAGES)
def test_a_training_that_diverges_stops_and_replaces_nothing(
    script, stage, objective, tiny_run, tiny_dataset, monkeypatch
):
    before = files(tiny_run / stage)
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--nosamples", "--epochs", 2]
    loss = objective.loss
    monkeypatch.setattr(objective, "loss", lambda self, terms: loss(self, terms) * math.nan)
    result = run(script, *options)
    assert_one_line_error(result, tiny_run / stage, "diverged in epoch 2", "--learning-rate")
    assert files(tiny_run / stage) == before
    monkeypatch.undo()
    assert "epoch 2:" in succeed(run(script, *options))


@pytest.mark.parametrize("stage", ["vae", "mdrnn", "ctrl"])
def test_models_with_weights_that_are_not_finite_are_refused(stage, untrained_run, tmp_path):
    logdir = Path(shutil.copytree(untrained_run, tmp_path / "run"))
    save_checkpoint(logdir / "ctrl" / "best.tar", {"state_dict": Controller().state_dict()})
    path = logdir / stage / "best.tar"
    state = load_checkpoint(path, "")
    next(iter(state["state_dict"].values())).view(-1)[3] = math.nan
    save_checkpoint(path, state)
    result = run("test_controller.py", "--logdir", logdir, "--episodes", 1)
    assert_one_line_error(result, path, "NaN or infinite", f"--logdir {logdir} --noreload")


def test_rollouts_with_numbers_that_are_not_finite_are_refused(tiny_dataset, tmp_path):
    arrays = load_rollout(find_rollouts(tiny_dataset)[0], Rollout._fields)
    rollout = Rollout(*arrays)
    path = tmp_path / "thread_0" / "rollout_0.npz"
    for name in ("actions", "rewards"):
        damaged = getattr(rollout, name).copy()
        damaged[5] = math.inf
        save_rollout(path, pack_rollout(rollout._replace(**{name: damaged})))
        with pytest.raises(UserError, match=f"{path}: .*{name}"):
            load_rollout(path, Rollout._fields)


class OneReturn:
    """A pool whose episodes all have one return."""

    def __init__(self, total_return: float):
        self._return = total_return

    def run(self, jobs):
        return [(number, Outcome(self._return, 1)) for number, _ in enumerate(jobs)]


def test_a_return_that_is_not_finite_ends_the_search():
    episodes = [Episode(np.zeros(867, np.float32), seed) for seed in (7, 8)]
    for bad in BAD:
        with pytest.raises(UserError, match=f"seed 7 returned {bad}"):
            drive(OneReturn(bad), episodes, None)  # type: ignore[arg-type]


def test_a_search_that_diverges_replaces_nothing(tmp_path):
    evolution = MirroredEvolution(np.zeros(867), np.ones(867), 4, 0.1, seed=0)
    search = EvolutionRun(tmp_path, "carracing", CARRACING_SIZES, evolution, "a")
    evolution.ask()
    evolution.tell(np.arange(4.0))
    search.finish_generation({"return/mean": 5.0, "episodes": 4.0, "seconds": 1.0})
    before = files(tmp_path)
    evolution.ask()
    evolution.tell(np.full(4, math.nan))
    with pytest.raises(UserError, match=f"{tmp_path}: the search has diverged in generation 2"):
        search.finish_generation({"return/mean": 6.0, "episodes": 4.0, "seconds": 1.0})
    assert files(tmp_path) == before


def test_a_dream_of_an_m_that_explodes_ends_the_search(dreamer, tmp_path):
    """Its weights are finite, its rewards are not."""
    logdir = Path(shutil.copytree(dreamer, tmp_path / "run"))
    state = load_checkpoint(logdir / "mdrnn" / "best.tar", "")
    mdrnn = MDRNN()
    mdrnn.load_state_dict(state["state_dict"])
    with torch.no_grad():
        mdrnn.gmm_linear.weight[-2] = 3e38
    save_checkpoint(logdir / "mdrnn" / "best.tar", state | {"state_dict": mdrnn.state_dict()})
    options = ["--env", "dream", "--pop-size", 4, "--n-samples", 1, "--generations", 1, "--eval-episodes", 2]
    result = run("traincontroller.py", "--logdir", logdir, *options)
    assert_one_line_error(result, "returned", "diverged")
    assert not files(logdir / "ctrl")


def test_a_stage_that_is_done_but_has_lost_its_best_says_so(tiny_run, tiny_dataset):
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--epochs", 1]
    path = tiny_run / "vae" / "best.tar"
    best = path.read_bytes()
    path.unlink()
    assert_one_line_error(run("trainvae.py", *options), path, "--noreload")
    succeed(run("trainvae.py", *options, "--noreload"))
    assert path.read_bytes() == best
