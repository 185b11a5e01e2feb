"""traincontroller.py and test_controller.py as a user runs them.

V and M are as they are born here: how well the car drives does not matter to these tests. What only concerns the search
and its files is tried in a game with short episodes (toy_game.py), the rest in CarRacing.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import (
    ROOT,
    a_worker_killed_when,
    assert_one_line_error,
    drive_all,
    episode_runner,
    largest_file,
    launch_short,
    run,
    run_process,
    wait_until,
    workers_of,
)
from short_carracing import GYMNASIUM_STEPS, RUN_SHORT, SHORT_CARRACING, STEPS
from toy_game import TOY

from envs.games import CARRACING, GAMES
from evolution.cma import CmaEvolution
from evolution.mirrored import MirroredEvolution
from evolution.run import EvolutionRun, open_run
from evolution.search import CMA, CMA_DIAGONAL, MIRRORED, SearchSettings, search_scales, starting_point
from evolution.train import evolve
from models.controller import Controller
from models.mdrnn import MDRNN
from models.sizes import CARRACING_SIZES, Sizes
from models.vae import VAE
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.commandline import UserError
from utils.files import write_json
from utils.precision import fast_dtype
from utils.rollouts import Episode, drive_episode, rollout_pool
from utils.run_folder import load_driver, load_game, load_world_weights
from utils.tracks import evolution_tracks

SHORT = ["--n-samples", "2", "--pop-size", "4", "--eval-episodes", "1"]
FEW = SearchSettings(population=4, samples=2, eval_episodes=2, eval_every=2, patience=30)
CPU = torch.device("cpu")


@pytest.fixture
def logdir(untrained_run, tmp_path):
    """A copy of the run folder for a test to write to."""
    return Path(shutil.copytree(untrained_run, tmp_path / "run"))


@pytest.fixture
def lamp(tmp_path, monkeypatch):
    """A run folder of the toy game, for a test to write to."""
    monkeypatch.setitem(GAMES, TOY.name, TOY)
    torch.manual_seed(0)
    for stage, model in (("vae", VAE(TOY.sizes)), ("mdrnn", MDRNN(TOY.sizes))):
        save_model(tmp_path / "lamp" / stage / "best.tar", model)
    return tmp_path / "lamp"


def save_model(path: Path, model: VAE | MDRNN) -> None:
    save_checkpoint(path, {"state_dict": model.state_dict(), "game": TOY.name, "sizes": TOY.sizes.to_dict()})


def start(script: str, *arguments: object) -> subprocess.Popen:
    """Start a script as a terminal does, in a process group of its own, with all its output in one stream; with short
    episodes."""
    return launch_short(script, *arguments, stderr=subprocess.STDOUT, start_new_session=True)


def wait_for(process: subprocess.Popen, pattern: str) -> None:
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(f"{pattern!r} never came")


def checkpoint(logdir: Path, name: str = "checkpoint.tar") -> dict:
    return torch.load(logdir / "ctrl" / name, weights_only=True)


def train(logdir: Path, settings: SearchSettings, generations: int, sizes: Sizes = CARRACING_SIZES) -> EvolutionRun:
    """Train C as the studies do, with settings that are no options of the script."""
    game, _ = load_game(logdir)
    search = open_run(logdir, game, game.training_kind, sizes, settings, None, reload=True)
    weights = load_world_weights(logdir, sizes)
    with rollout_pool(game, game.training_kind, weights, CPU, 1, settings.episodes, logdir / "tmp") as pool:
        evolve(search, settings, pool, generations=generations)
    return search


@pytest.mark.parametrize(
    ("search", "folder", "half"), [("cma", "logdir", 1), ("mirrored", "lamp", 2), ("cma-diagonal", "lamp", 2)]
)
@pytest.mark.usefixtures("short_episodes")
def test_two_runs_equal_one(search, folder, half, request, tmp_path):
    options = [*SHORT, "--search", search]
    logdir = request.getfixturevalue(folder)
    other = Path(shutil.copytree(logdir, tmp_path / "other"))
    straight = run("traincontroller.py", "--logdir", logdir, *options, "--generations", 2 * half)
    assert straight.returncode == 0, straight.stderr
    # Another number of workers, too: it must not matter.
    for generations, workers in ((half, 1), (2 * half, 2)):
        limits = ["--generations", generations, "--max-workers", workers]
        part = run("traincontroller.py", "--logdir", other, *options, *limits)
        assert part.returncode == 0, part.stderr
    assert f"continuing after generation {half}" in part.stdout
    one, two = checkpoint(logdir), checkpoint(other)
    assert one["epoch"] == two["epoch"] == 2 * half
    assert torch.equal(one["state_dict"]["fc.weight"], two["state_dict"]["fc.weight"])
    assert torch.equal(one["evolution"]["mean"], two["evolution"]["mean"])
    assert two["reward"] == max(row["return/mean"] for row in two["history"] if "return/mean" in row)
    assert one["history"][-1]["return/mean"] == two["history"][-1]["return/mean"]
    assert [row["episodes"] for row in two["history"]] == [8, 16, 24, 32][: 2 * half]


@pytest.mark.parametrize("search", ["cma", "mirrored"])
def test_a_search_goes_on_with_what_it_can(search, lamp):
    other, options = lamp, [*SHORT, "--search", search]
    for _ in range(2):  # the second time there is nothing to do
        done = run("traincontroller.py", "--logdir", other, *options, "--generations", 4)
        assert done.returncode == 0 and "4 generations done" in done.stdout

    for wrong in (["--seed", 1], ["--search", "cma" if search == "mirrored" else "mirrored"]):
        refused = run("traincontroller.py", "--logdir", other, *options, *wrong, "--generations", 5)
        assert_one_line_error(refused, "--noreload")
    assert "another --search" in refused.stderr

    changed = [*options, "--pop-size", 6, "--eval-episodes", 3]
    larger = run("traincontroller.py", "--logdir", other, *changed, "--generations", 5)
    assert larger.returncode == 0 and "does not count any more" in larger.stdout, larger.stderr
    assert [row["episodes"] for row in checkpoint(other)["history"]] == [8, 16, 24, 32, 44]

    fresh = run("traincontroller.py", "--logdir", other, *options, "--generations", 1, "--noreload")
    assert fresh.returncode == 0, fresh.stderr
    assert checkpoint(other)["epoch"] == 1


def test_a_controller_of_another_kind(lamp):
    logdir = lamp
    (logdir / "mdrnn" / "best.tar").unlink()  # C does without M, then so do the scripts
    sizes = replace(TOY.sizes, inputs="z", hidden_units=5)
    settings = replace(FEW, search=CMA, population=8, tracks=4, weight_decay=3.0)
    train(logdir, settings, 2, sizes)
    weights = checkpoint(logdir, "best.tar")["state_dict"]
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "hidden.weight": (5, 4),
        "hidden.bias": (5,),
        "fc.weight": (1, 5),
        "fc.bias": (1,),
    }
    scored = run("test_controller.py", "--logdir", logdir, "--episodes", 2)
    assert scored.returncode == 0 and scored.stdout.splitlines()[-1].startswith("score "), scored.stderr
    assert train(logdir, settings, 3, sizes).evolution.generation == 3
    with pytest.raises(UserError, match="--noreload"):
        train(logdir, settings, 4, replace(sizes, hidden_units=0))
    with pytest.raises(UserError, match="another --search"):
        train(logdir, replace(settings, search=MIRRORED), 4, sizes)


def test_a_warm_start_begins_with_the_other_run(lamp, untrained_run, tmp_path):
    other = Path(shutil.copytree(lamp, tmp_path / "other"))
    first = run("traincontroller.py", "--logdir", lamp, *SHORT, "--generations", 2)
    assert first.returncode == 0, first.stderr
    warm = ["--logdir", other, *SHORT, "--warm-start", lamp, "--sigma", 1e-6]
    second = run("traincontroller.py", *warm, "--generations", 1)
    assert second.returncode == 0, second.stderr
    expected = checkpoint(lamp, "best.tar")["state_dict"]["fc.weight"]
    assert torch.allclose(checkpoint(other)["state_dict"]["fc.weight"], expected, atol=1e-4)
    resumed = run("traincontroller.py", "--logdir", other, *SHORT, "--sigma", 1e-6, "--generations", 2)
    assert resumed.returncode == 0 and "continuing after generation 1" in resumed.stdout, resumed.stderr

    small = Controller(replace(CARRACING_SIZES, inputs="z"))
    save_checkpoint(tmp_path / "z" / "ctrl" / "best.tar", {"state_dict": small.state_dict()})
    for wrong in (tmp_path / "none", tmp_path / "z"):
        refused = run("traincontroller.py", "--logdir", untrained_run, *SHORT, "--warm-start", wrong)
        assert_one_line_error(refused, wrong / "ctrl" / "best.tar")


def test_the_best_is_forgotten_when_v_and_m_change(lamp):
    logdir = lamp
    arguments = ["--logdir", logdir, *SHORT]
    first = run("traincontroller.py", *arguments, "--generations", 2)
    assert first.returncode == 0, first.stderr
    state = checkpoint(logdir)
    state["reward"] = 1e6
    torch.save(state, logdir / "ctrl" / "checkpoint.tar")
    torch.manual_seed(7)
    save_model(logdir / "mdrnn" / "best.tar", MDRNN(TOY.sizes))
    kept = (logdir / "ctrl" / "best.tar").read_bytes()
    again = run("traincontroller.py", *arguments, "--generations", 2)
    assert again.returncode == 0 and "2 generations done; the mean has no score yet" in again.stdout, again.stderr
    assert (logdir / "ctrl" / "best.tar").read_bytes() == kept
    second = run("traincontroller.py", *arguments, "--generations", 4)
    assert second.returncode == 0 and "does not count any more" in second.stdout, second.stderr
    best = checkpoint(logdir, "best.tar")
    assert best["epoch"] == 4 and best["reward"] == best["history"][-1]["return/mean"]


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_a_search_begins_at_a_controller_that_came_without_one(logdir):
    """As those of the 2018 implementation do: it is where the search starts, and stays until a
    mean is scored."""
    torch.manual_seed(3)  # it soon leaves the field
    path = logdir / "ctrl" / "best.tar"
    save_checkpoint(path, {"state_dict": Controller().state_dict(), "epoch": 77, "reward": 5.0})
    weights = checkpoint(logdir, "best.tar")["state_dict"]["fc.weight"]
    with pytest.raises(UserError, match=str(path)):
        train(logdir, FEW, 1, replace(CARRACING_SIZES, inputs="z"))
    arguments = ["--logdir", logdir, *SHORT, "--sigma", 1e-6]
    process = start("traincontroller.py", *arguments)
    wait_for(process, "generation 1:")
    process.terminate()
    assert process.wait(timeout=20) == 130
    assert torch.allclose(checkpoint(logdir)["state_dict"]["fc.weight"], weights, atol=1e-4)
    assert checkpoint(logdir, "best.tar")["epoch"] == 77
    done = checkpoint(logdir)["epoch"]
    resumed = run("traincontroller.py", *arguments, "--generations", done + 1)
    assert resumed.returncode == 0 and "continuing after generation" in resumed.stdout, resumed.stderr
    assert checkpoint(logdir, "best.tar")["epoch"] == done + 1

    (logdir / "ctrl" / "checkpoint.tar").unlink()  # what is in best.tar is a search now
    again = run("traincontroller.py", *arguments, "--generations", done + 1)
    assert again.returncode == 0 and f"continuing after generation {done + 1}" in again.stdout, again.stderr


@pytest.mark.parametrize(
    "settings",
    [
        SearchSettings(MIRRORED, tracks=4),
        SearchSettings("mirrored-by-size"),
        SearchSettings(CMA_DIAGONAL),
        SearchSettings(CMA, tracks=4, weight_decay=100.0),
    ],
)
@pytest.mark.usefixtures("short_episodes")
def test_a_generation_moves_the_mean_as_its_episodes_say(settings, tmp_path):
    """A generation done again by hand: which candidate drives which tracks, what counts, and which way is up. With the
    shipped V and M, so that every candidate drives differently."""
    logdir = Path(shutil.copytree(ROOT / "pretrained", tmp_path / "run", ignore=lambda *_: {"ctrl"}))
    settings = replace(settings, population=4, samples=2, sigma=0.1, memory_sigma=0.4, seed=5, patience=50)
    train(logdir, replace(settings, eval_episodes=1), 1)

    start, scales = starting_point(None, CARRACING_SIZES, 5), search_scales(CARRACING_SIZES, 4)
    cma = settings.search in (CMA_DIAGONAL, CMA)
    evolution = (
        CmaEvolution(start, scales, 4, 0.1, 5, diagonal=settings.search == CMA_DIAGONAL)
        if cma
        else MirroredEvolution(start, scales, 4, 0.1, 5, by_size=settings.search == "mirrored-by-size")
    )
    candidates = evolution.ask()
    count = settings.tracks or (2 if cma else 4)
    tracks = evolution_tracks(5, 1, count)
    # The first candidate drives on tracks 0 and 1, the second on the next two, ...
    episodes = [Episode(candidates[number // 2], tracks[number % count], patience=50) for number in range(8)]
    outcomes = drive_all(episode_runner(logdir, dtype=fast_dtype(CPU), game=SHORT_CARRACING), episodes)
    returns = [outcome.total_return for outcome in outcomes]
    on_track = [np.mean(returns[track::count]) for track in range(count)]
    fitness = np.array(
        [
            np.mean([returns[number] - on_track[number % count] for number in (2 * i, 2 * i + 1)])
            - settings.weight_decay * np.mean(candidate**2)
            for i, candidate in enumerate(candidates)
        ]
    )
    ranked = fitness if cma else np.abs(fitness[:2] - fitness[2:])
    assert np.diff(np.sort(ranked)).min() > 0.01  # no rank is a matter of rounding
    evolution.tell(fitness)
    moved = checkpoint(logdir)["evolution"]["mean"].numpy()
    assert np.abs(moved - start).max() > 0.01
    np.testing.assert_allclose(moved, evolution.mean, atol=1e-5)


def test_only_a_scored_mean_takes_the_place_of_the_best(tmp_path):
    evolution = MirroredEvolution(np.zeros(867), np.ones(867), 4, 0.1, seed=0)
    kept = []
    for score, measure in ((None, "a"), (5.0, "a"), (None, "b"), (4.0, "b")):
        search = EvolutionRun(tmp_path, "carracing", CARRACING_SIZES, evolution, measure)
        search.resume()
        evolution.ask()
        evolution.tell(np.arange(4.0))
        scored = {} if score is None else {"return/mean": score}
        search.finish_generation({"episodes": 4.0, "seconds": 1.0} | scored)
        assert load_checkpoint(tmp_path / "checkpoint.tar", "")["epoch"] == evolution.generation
        kept.append(load_checkpoint(tmp_path / "best.tar", "")["epoch"])
    assert kept == [1, 2, 2, 4]


def test_a_search_is_not_taken_for_one_of_another_kind_and_the_same_size(tmp_path):
    other = replace(CARRACING_SIZES, inputs="z", hidden_units=24)
    assert other.controller == CARRACING_SIZES.controller == 867
    evolution = MirroredEvolution(np.zeros(867), np.ones(867), 4, 0.1, seed=0)
    row = {"episodes": 4.0, "seconds": 1.0}
    EvolutionRun(tmp_path, "carracing", CARRACING_SIZES, evolution, "a").finish_generation(row)
    assert EvolutionRun(tmp_path, "carracing", CARRACING_SIZES, evolution, "a").resume()
    with pytest.raises(UserError, match="another kind of controller"):
        EvolutionRun(tmp_path, "carracing", other, evolution, "a").resume()


@pytest.mark.parametrize("units", [0, 5])
def test_the_search_begins_at_a_controller_that_goes_straight_on(units):
    sizes = replace(CARRACING_SIZES, hidden_units=units)
    start = torch.from_numpy(starting_point(None, sizes, seed=1))
    seen = torch.randn(7, 32), torch.randn(7, 256), torch.randn(7, 256)
    actions = Controller.from_vector(sizes, start)(*seen)
    torch.testing.assert_close(actions, torch.tensor([0, 0.5, 0]).expand(7, 3))
    # Were its hidden units zeros, it would be the same to move its weights one way or the other.
    step = 0.1 * torch.randn(len(start), generator=torch.Generator().manual_seed(2))
    step[-3:] = 0  # the biases of the actions
    there, back = (Controller.from_vector(sizes, start + sign * step)(*seen) for sign in (1, -1))
    assert (there - back)[:, 0].abs().mean() > 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_stopped_at_any_moment_it_continues(logdir):
    """By Ctrl-C. SIGTERM: in the test of a search without one; SIGKILL: in test_dream.py."""
    arguments = ["--logdir", logdir, *SHORT]
    process = start("traincontroller.py", *arguments)
    wait_for(process, "generation 1:")
    workers = workers_of(process.pid)
    assert workers
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the workers, too
    assert process.wait(timeout=20) == 130
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=10)
    done = checkpoint(logdir)["epoch"]
    assert done >= 1
    resumed = run("traincontroller.py", *arguments, "--generations", done + 1)
    assert resumed.returncode == 0, resumed.stderr
    assert checkpoint(logdir)["epoch"] == done + 1
    assert f"generation {done}:" not in resumed.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_a_killed_worker_costs_nothing(logdir):
    arguments = ["--logdir", logdir, *SHORT, "--max-workers", 2]
    with a_worker_killed_when((logdir / "ctrl" / "checkpoint.tar").exists):  # after the first generation
        killed = run("traincontroller.py", *arguments, "--generations", 2)
    assert killed.returncode == 0, killed.stderr
    assert "SIGKILL" in killed.stderr and "a new worker takes its place" in killed.stderr
    disturbed = checkpoint(logdir)["evolution"]["mean"]
    undisturbed = run("traincontroller.py", *arguments, "--generations", 2, "--noreload")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert torch.equal(disturbed, checkpoint(logdir)["evolution"]["mean"])


def test_the_target_is_judged_on_the_selection_episodes(lamp):
    result = run("traincontroller.py", "--logdir", lamp, *SHORT, "--target-return", -1000, "--display")
    assert result.returncode == 0, result.stderr
    assert "target reached in generation 10" in result.stdout and "scoring the mean" in result.stderr
    assert (lamp / "ctrl" / "curve.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_scoring_is_repeatable_and_filmed(logdir, tmp_path):
    straight_on = Controller.from_vector(CARRACING_SIZES, torch.from_numpy(starting_point(None, CARRACING_SIZES, 1)))
    save_checkpoint(logdir / "ctrl" / "best.tar", {"state_dict": straight_on.state_dict()})
    scores = []
    options = ["--logdir", logdir, "--episodes", 2, "--seed", 95, "--env", "fast"]
    in_a_process = partial(run_process, "-c", RUN_SHORT, env=os.environ)  # with as many threads as a user would have
    for start_script, workers, film in ((run, 1, "a.gif"), (in_a_process, 2, "a.mp4")):
        path = tmp_path / f"score_{workers}.json"
        outputs = ["--json", path, "--record", tmp_path / film]
        result = start_script("test_controller.py", *options, "--max-workers", workers, *outputs)
        assert result.returncode == 0, result.stderr
        scores.append(json.loads(path.read_text()))
        frames = imageio.imread(tmp_path / film)
        assert len(frames) >= scores[-1]["lengths"][0] / 4  # a GIF shows every fourth
        assert np.ptp(frames) > 100  # it shows something
        recorded = float(re.search(r"recorded: seed 95, return ([-\d.]+)", result.stdout)[1])
        assert recorded == pytest.approx(scores[-1]["returns"][0], abs=0.051)
    assert scores[0] == scores[1]
    score = scores[0]
    assert set(score) == set(
        ["env", "env_version", "seed", "episodes", "mean", "std", "sem", "min", "max", "returns", "lengths", "logdir"]
    )
    assert score["mean"] == pytest.approx(np.mean(score["returns"]))
    last_line = result.stdout.splitlines()[-1]
    assert last_line == f"score {score['mean']:.1f} +- {score['std']:.1f} over 2 tracks"


def write_on_a_full_disk(path: Path, value: object) -> None:
    with largest_file(100):
        write_json(path, value)


def test_scores_come_from_gymnasiums_renderer_unless_told_otherwise(tmp_path, monkeypatch):
    assert CARRACING.scoring_kind == "gymnasium"
    game = replace(SHORT_CARRACING, scoring_kind="gymnasium")
    monkeypatch.setitem(GAMES, game.name, game)
    world, controller = load_driver(ROOT / "pretrained")
    lengths = []
    for options, kind in (([], "gymnasium"), (["--env", "fast"], "fast")):
        command = ["--logdir", "pretrained", "--seed", 1840, "--episodes", 1, "--json", tmp_path / "s.json", *options]
        result = run("test_controller.py", *command)
        assert result.returncode == 0, result.stderr
        score = json.loads((tmp_path / "s.json").read_text())
        expected = drive_episode(world, game, kind, Episode(controller, 1840))
        assert score["env"] == kind and score["returns"] == [expected.total_return]
        lengths += score["lengths"]
    assert lengths == [GYMNASIUM_STEPS, STEPS]
    # The disk is full at the end: what the episodes cost is not lost.
    score_line = result.stdout.splitlines()[-1]
    (tmp_path / "s.json").unlink()
    monkeypatch.setattr("test_controller.write_json", write_on_a_full_disk)
    result = run("test_controller.py", *command)
    assert_one_line_error(result, "s.json", "cannot be written")
    assert result.stdout.splitlines()[-1] == score_line and not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "status", "words"),
    [
        ("traincontroller.py", ["--pop-size", "1"], 2, "--pop-size"),
        ("traincontroller.py", ["--n-samples", "-3"], 2, "--n-samples"),
        ("traincontroller.py", ["--sigma", "-1"], 2, "--sigma"),
        ("traincontroller.py", ["--search", "mirrored", "--pop-size", "5"], 2, "even"),
        ("traincontroller.py", ["--sigma", "1", "2", "3"], 2, "at most two"),
        ("traincontroller.py", ["--temperature", "1.5"], 2, "--env dream"),
        ("traincontroller.py", ["--beginnings", "0.5"], 2, "--env dream"),
        ("traincontroller.py", ["--env", "dream", "--beginnings", "1.5"], 2, "more than 1"),
        ("test_controller.py", ["--episodes", "0"], 2, "--episodes"),
        ("test_controller.py", ["--record", "film.avi"], 2, ".gif"),
        ("test_controller.py", ["--json", "docs"], 2, "is a folder"),
        ("test_controller.py", ["--json", "README.md/score.json"], 2, "cannot be written"),
        ("test_controller.py", ["--seed", "99990"], 2, "only seeds 0 to 99999"),
        ("traincontroller.py", ["--seed", "5000000000"], 2, "is more than 4294967295"),
        ("traincontroller.py", ["--eval-episodes", "100001"], 2, "there are 100000"),
        ("test_controller.py", [], 1, "ctrl/best.tar: no such file; train C first: python traincontroller.py"),
    ],
)
def test_wrong_use_is_one_line(logdir, script, arguments, status, words):
    result = run(script, "--logdir", logdir, *arguments)
    assert result.returncode == status
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("stage", "command"), [("vae", "trainvae.py"), ("mdrnn", "trainmdrnn.py")])
def test_a_missing_or_damaged_model_is_named_with_its_remedy(logdir, stage, command):
    path = logdir / stage / "best.tar"
    path.write_bytes(path.read_bytes()[:1000])
    damaged = run("traincontroller.py", "--logdir", logdir)
    path.unlink()
    missing = run("traincontroller.py", "--logdir", logdir)
    for result in (damaged, missing):
        assert result.returncode == 1
        assert len(result.stderr.strip().splitlines()) == 1
        assert str(path) in result.stderr and f"python {command} --logdir {logdir}" in result.stderr


@pytest.mark.slow
def test_a_failed_write_keeps_the_old_file(lamp):
    """No file may grow as large as a checkpoint, then none as large as the curve's picture, which comes after it."""
    # Over two episodes the second mean scores better, so that best.tar is the first that is to be written.
    arguments = ["--logdir", lamp, *SHORT, "--eval-episodes", 2, "--generations"]
    first = run("traincontroller.py", *arguments, 1)
    assert first.returncode == 0, first.stderr
    saved, picture = ((lamp / "ctrl" / name) for name in ("checkpoint.tar", "curve.png"))
    for size, failed, kept in ((3_000, lamp / "ctrl" / "best.tar", saved), (20_000, picture, picture)):
        before = kept.read_bytes()
        with largest_file(size):
            result = run("traincontroller.py", *arguments, 2)
        assert_one_line_error(result, failed, "cannot be written")
        assert kept.read_bytes() == before
    assert not list((lamp / "ctrl").glob(".*"))
