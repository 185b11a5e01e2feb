"""traincontroller.py and test_controller.py as a user runs them, in the real environment.

V and M are as they are born here: how well the car drives does not matter to these tests.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import ROOT, launch, run, workers_of

from envs import make_env
from models.controller import Architecture, Controller
from models.mdrnn import MDRNN
from traincontroller import search_scales, starting_point
from utils.checkpoints import load_checkpoint, load_controller, load_driver, save_checkpoint
from utils.cma_evolution import CmaEvolution
from utils.commandline import UserError
from utils.evolution_run import EvolutionRun
from utils.mirrored_evolution import MirroredEvolution
from utils.precision import fast_dtype
from utils.rollouts import Episode, LockstepRunner
from utils.tracks import evolution_tracks
from utils.video import drive_episode

SHORT = ["--n-samples", "2", "--pop-size", "4", "--eval-every", "2", "--eval-episodes", "3", "--patience", "30"]


@pytest.fixture
def logdir(untrained_run, tmp_path):
    """A copy of the run folder for a test to write to."""
    return Path(shutil.copytree(untrained_run, tmp_path / "run"))


def start(script: str, *arguments: object) -> subprocess.Popen:
    """Start a script as a terminal does, in a process group of its own, with all its output in one stream."""
    return launch(script, *arguments, stderr=subprocess.STDOUT, start_new_session=True)


def wait_for(process: subprocess.Popen, pattern: str) -> None:
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(f"{pattern!r} never came")


def checkpoint(logdir: Path, name: str = "checkpoint.tar") -> dict:
    return torch.load(logdir / "ctrl" / name, weights_only=True)


def test_two_runs_equal_one(logdir, untrained_run, tmp_path):
    straight = run("traincontroller.py", "--logdir", logdir, *SHORT, "--generations", 4)
    assert straight.returncode == 0, straight.stderr
    other = Path(shutil.copytree(untrained_run, tmp_path / "other"))
    # Another number of workers, too: it must not matter.
    for generations in (2, 4):
        part = run(
            "traincontroller.py",
            "--logdir",
            other,
            *SHORT,
            "--generations",
            generations,
            "--max-workers",
            generations // 2,
        )
        assert part.returncode == 0, part.stderr
    assert "continuing after generation 2" in part.stdout
    one, two = checkpoint(logdir), checkpoint(other)
    assert one["epoch"] == two["epoch"] == 4
    assert torch.equal(one["state_dict"]["fc.weight"], two["state_dict"]["fc.weight"])
    assert torch.equal(one["evolution"]["mean"], two["evolution"]["mean"])
    assert one["reward"] == two["reward"] == max(row["return/mean"] for row in two["history"] if "return/mean" in row)
    assert [row["episodes"] for row in two["history"]] == [8, 16, 24, 32]

    again = run("traincontroller.py", "--logdir", other, *SHORT, "--generations", 4)
    assert again.returncode == 0 and "4 generations done" in again.stdout

    refused = run("traincontroller.py", "--logdir", other, *SHORT, "--seed", 1, "--generations", 5)
    assert refused.returncode == 1 and "--noreload" in refused.stderr

    changed = ["--pop-size", 6, "--eval-episodes", 2]
    larger = run("traincontroller.py", "--logdir", other, *SHORT, *changed, "--generations", 5)
    assert larger.returncode == 0 and "does not count any more" in larger.stdout, larger.stderr
    assert [row["episodes"] for row in checkpoint(other)["history"]] == [8, 16, 24, 32, 44]

    fresh = run("traincontroller.py", "--logdir", other, *SHORT, "--pop-size", 6, "--generations", 1, "--noreload")
    assert fresh.returncode == 0, fresh.stderr
    assert checkpoint(other)["epoch"] == 1


def test_a_controller_of_another_kind(logdir):
    (logdir / "mdrnn" / "best.tar").unlink()  # C does without M, then so do the scripts
    options = [
        "--inputs",
        "z",
        "--hidden-units",
        5,
        "--search",
        "cma",
        "--diagonal-generations",
        2,
        "--weight-decay",
        3,
        "--tracks",
        4,
        "--pop-size",
        8,
    ]
    done = run("traincontroller.py", "--logdir", logdir, *SHORT, *options, "--generations", 2)
    assert done.returncode == 0, done.stderr
    weights = checkpoint(logdir, "best.tar")["state_dict"]
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "hidden.weight": (5, 32),
        "hidden.bias": (5,),
        "fc.weight": (3, 5),
        "fc.bias": (3,),
    }
    scored = run("test_controller.py", "--logdir", logdir, "--env", "fast", "--episodes", 2)
    assert scored.returncode == 0 and scored.stdout.splitlines()[-1].startswith("score "), scored.stderr

    resumed = run("traincontroller.py", "--logdir", logdir, *SHORT, *options, "--generations", 3)
    assert resumed.returncode == 0 and "continuing after generation 2" in resumed.stdout, resumed.stderr

    for other in (["--inputs", "z", "--search", "cma"], ["--inputs", "z", "--hidden-units", 5]):
        refused = run("traincontroller.py", "--logdir", logdir, *SHORT, "--pop-size", 8, *other, "--generations", 4)
        assert refused.returncode == 1 and "--noreload" in refused.stderr
    assert "another --search" in refused.stderr


def test_a_warm_start_begins_with_the_other_run(logdir, untrained_run, tmp_path):
    first = run("traincontroller.py", "--logdir", logdir, *SHORT, "--generations", 2)
    assert first.returncode == 0, first.stderr
    other = Path(shutil.copytree(untrained_run, tmp_path / "other"))
    warm = ["--logdir", other, *SHORT, "--warm-start", logdir, "--sigma", 1e-6]
    second = run("traincontroller.py", *warm, "--generations", 1)
    assert second.returncode == 0, second.stderr
    expected = checkpoint(logdir, "best.tar")["state_dict"]["fc.weight"]
    assert torch.allclose(checkpoint(other)["state_dict"]["fc.weight"], expected, atol=1e-4)
    resumed = run("traincontroller.py", "--logdir", other, *SHORT, "--sigma", 1e-6, "--generations", 2)
    assert resumed.returncode == 0 and "continuing after generation 1" in resumed.stdout, resumed.stderr

    for wrong in (["--warm-start", tmp_path / "none"], ["--warm-start", logdir, "--inputs", "z"]):
        refused = run("traincontroller.py", "--logdir", untrained_run, *SHORT, *wrong, "--generations", 1)
        assert refused.returncode == 1 and refused.stderr.startswith("\nerror: "), refused.stderr


def test_the_best_is_forgotten_when_v_and_m_change(logdir):
    arguments = ["--logdir", logdir, *SHORT]
    first = run("traincontroller.py", *arguments, "--generations", 2)
    assert first.returncode == 0, first.stderr
    state = checkpoint(logdir)
    state["reward"] = 1e6
    torch.save(state, logdir / "ctrl" / "checkpoint.tar")
    torch.manual_seed(7)
    torch.save({"state_dict": MDRNN().state_dict()}, logdir / "mdrnn" / "best.tar")
    kept = (logdir / "ctrl" / "best.tar").read_bytes()
    again = run("traincontroller.py", *arguments, "--generations", 2)
    assert again.returncode == 0 and "2 generations done; the mean has no score yet" in again.stdout, again.stderr
    assert (logdir / "ctrl" / "best.tar").read_bytes() == kept
    second = run("traincontroller.py", *arguments, "--generations", 4)
    assert second.returncode == 0 and "does not count any more" in second.stdout, second.stderr
    best = checkpoint(logdir, "best.tar")
    assert best["epoch"] == 4 and best["reward"] == best["history"][-1]["return/mean"]


def test_a_search_begins_at_a_controller_that_came_without_one(logdir):
    """As those of the 2018 implementation do: it is where the search starts, and stays until a
    mean is scored."""
    torch.manual_seed(1)
    path = logdir / "ctrl" / "best.tar"
    save_checkpoint(path, {"state_dict": Controller().state_dict(), "epoch": 77, "reward": 5.0})
    weights = checkpoint(logdir, "best.tar")["state_dict"]["fc.weight"]
    other_kind = run("traincontroller.py", "--logdir", logdir, *SHORT, "--inputs", "z", "--generations", 1)
    assert other_kind.returncode == 1 and str(path) in other_kind.stderr
    arguments = ["--logdir", logdir, *SHORT, "--sigma", 1e-6, "--eval-every", 3]
    process = start("traincontroller.py", *arguments)
    wait_for(process, "generation 1:")
    process.terminate()
    process.wait(timeout=20)
    assert torch.allclose(checkpoint(logdir)["state_dict"]["fc.weight"], weights, atol=1e-4)
    assert checkpoint(logdir, "best.tar")["epoch"] == 77
    resumed = run("traincontroller.py", *arguments, "--generations", 3)
    assert resumed.returncode == 0 and "continuing after generation" in resumed.stdout, resumed.stderr
    assert checkpoint(logdir, "best.tar")["epoch"] == 3

    (logdir / "ctrl" / "checkpoint.tar").unlink()  # what is in best.tar is a search now
    again = run("traincontroller.py", *arguments, "--generations", 3)
    assert again.returncode == 0 and "continuing after generation 3" in again.stdout, again.stderr


@pytest.mark.parametrize(
    "options", [["--tracks", 4], ["--count-by", "size"], ["--search", "cma", "--weight-decay", 100, "--tracks", 4]]
)
def test_a_generation_moves_the_mean_as_its_episodes_say(options, tmp_path):
    """A generation done again by hand: which candidate drives which tracks, what counts, and which way is up. With the
    shipped V and M, so that every candidate drives differently."""
    logdir = Path(shutil.copytree(ROOT / "pretrained", tmp_path / "run", ignore=lambda *_: {"ctrl"}))
    size = ["--pop-size", 8, "--n-samples", 2, "--patience", 50, "--sigma", 0.1, "--memory-scale", 4, "--seed", 5]
    done = run("traincontroller.py", "--logdir", logdir, *size, *options, "--float32", "--generations", 1,
               "--eval-episodes", 1)  # fmt: skip
    assert done.returncode == 0, done.stderr

    start, scales = starting_point(None, Architecture(), 5), search_scales(Architecture(), 4)
    cma = "cma" in options
    by_size = {"by_size": True} if "--count-by" in options else {}
    evolution = (CmaEvolution if cma else MirroredEvolution)(start, scales, 8, 0.1, 5, **by_size)
    candidates = evolution.ask()
    count = options[-1] if "--tracks" in options else 2 if cma else 8
    tracks = evolution_tracks(5, 1, count)
    runner = LockstepRunner(logdir, Architecture(), "fast", 16, "cpu", torch.float32)
    for number in range(16):  # the first candidate drives on tracks 0 and 1, the second on the next two, ...
        runner.submit(number, Episode(candidates[number // 2], tracks[number % count], patience=50))
    returns = {}
    while runner.busy:
        returns |= {number: outcome.total_return for number, outcome in runner.advance()}
    on_track = {t: np.mean([returns[number] for number in range(16) if number % count == t]) for t in range(count)}
    decay = 100 if "--weight-decay" in options else 0
    fitness = np.array(
        [
            np.mean([returns[number] - on_track[number % count] for number in (2 * i, 2 * i + 1)])
            - decay * np.mean(candidate**2)
            for i, candidate in enumerate(candidates)
        ]
    )
    ranked = fitness if cma else np.abs(fitness[:4] - fitness[4:])
    assert np.diff(np.sort(ranked)).min() > 0.1  # no rank is a matter of rounding
    evolution.tell(fitness)
    moved = checkpoint(logdir)["evolution"]["mean"].numpy()
    assert np.abs(moved - start).max() > 0.01
    np.testing.assert_allclose(moved, evolution.mean, atol=1e-5)


def test_only_a_scored_mean_takes_the_place_of_the_best(tmp_path):
    evolution = MirroredEvolution(np.zeros(867), np.ones(867), 4, 0.1, seed=0)
    kept = []
    for row, measure in (({}, "a"), ({"return/mean": 5.0}, "a"), ({}, "b"), ({"return/mean": 4.0}, "b")):
        search = EvolutionRun(tmp_path, Architecture(), evolution, measure)
        search.resume()
        evolution.ask()
        evolution.tell(np.arange(4.0))
        search.finish_generation(row)
        assert load_checkpoint(tmp_path / "checkpoint.tar", "")["epoch"] == evolution.generation
        kept.append(load_checkpoint(tmp_path / "best.tar", "")["epoch"])
    assert kept == [1, 2, 2, 4]


def test_a_search_is_not_taken_for_one_of_another_kind_and_the_same_size(tmp_path):
    other = Architecture(sees_memory=False, hidden_units=24)
    assert other.size == Architecture().size == 867
    evolution = MirroredEvolution(np.zeros(867), np.ones(867), 4, 0.1, seed=0)
    EvolutionRun(tmp_path, Architecture(), evolution, "a").finish_generation({})
    assert EvolutionRun(tmp_path, Architecture(), evolution, "a").resume()
    with pytest.raises(UserError, match="another kind of controller"):
        EvolutionRun(tmp_path, other, evolution, "a").resume()


@pytest.mark.parametrize("units", [0, 5])
def test_the_search_begins_at_a_controller_that_goes_straight_on(units):
    start = torch.from_numpy(starting_point(None, Architecture(hidden_units=units), seed=1))
    controller = Controller.from_vector(Architecture(hidden_units=units), start)
    actions = controller(torch.randn(7, 32), torch.randn(7, 256))
    torch.testing.assert_close(actions, torch.tensor([0, 0.5, 0]).expand(7, 3))
    # Were its hidden units zeros, it would be the same to move its weights one way or the other.
    step = 0.1 * torch.randn(len(start), generator=torch.Generator().manual_seed(2))
    step[-3:] = 0  # the biases of the actions
    frames, hidden = torch.randn(7, 32), torch.randn(7, 256)
    there, back = (Controller.from_vector(Architecture(hidden_units=units), start + sign * step)(frames, hidden)
                   for sign in (1, -1))  # fmt: skip
    assert (there - back)[:, 0].abs().mean() > 0.05


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_at_any_moment_it_continues(logdir, sent):
    arguments = ["--logdir", logdir, *SHORT]
    process = start("traincontroller.py", *arguments)
    wait_for(process, "generation 1:")
    workers = workers_of(process.pid)
    assert workers
    time.sleep(0.3)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # Ctrl-C reaches the workers, too
    else:
        process.send_signal(sent)
    assert process.wait(timeout=20) == (-9 if sent == signal.SIGKILL else 130)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    done = checkpoint(logdir)["epoch"]
    assert done >= 1
    resumed = run("traincontroller.py", *arguments, "--generations", done + 1)
    assert resumed.returncode == 0, resumed.stderr
    assert checkpoint(logdir)["epoch"] == done + 1
    assert f"generation {done}:" not in resumed.stdout


def test_a_killed_worker_costs_nothing(logdir):
    arguments = ["--logdir", logdir, *SHORT, "--max-workers", 2]
    process = start("traincontroller.py", *arguments, "--generations", 5)
    wait_for(process, "generation 1:")
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    console = process.communicate(timeout=120)[0]
    assert process.returncode == 0, console
    assert "SIGKILL" in console and "a new worker takes its place" in console
    disturbed = checkpoint(logdir)["evolution"]["mean"]
    undisturbed = run("traincontroller.py", *arguments, "--generations", 5, "--noreload")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert torch.equal(disturbed, checkpoint(logdir)["evolution"]["mean"])


def test_the_target_is_judged_on_the_selection_tracks(logdir):
    result = run("traincontroller.py", "--logdir", logdir, *SHORT, "--target-return", -1000, "--display")
    assert result.returncode == 0, result.stderr
    assert "target reached in generation 2" in result.stdout
    assert (logdir / "ctrl" / "curve.png").stat().st_size > 0


def test_scoring_is_repeatable_and_filmed(logdir, tmp_path):
    assert run("traincontroller.py", "--logdir", logdir, *SHORT, "--generations", 1).returncode == 0
    scores = []
    for workers, film in ((1, "a.gif"), (2, "a.mp4")):
        path = tmp_path / f"score_{workers}.json"
        result = run(
            "test_controller.py", "--logdir", logdir, "--episodes", 2, "--seed", 5, "--max-workers", workers,
            "--json", path, "--record", tmp_path / film, "--env", "fast",
            env=os.environ,  # with as many threads as a user would have
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        scores.append(json.loads(path.read_text()))
        frames = imageio.imread(tmp_path / film)
        assert len(frames) > 50
        assert np.ptp(frames) > 100  # it shows something
        recorded = float(re.search(r"recorded: track 5, return ([-\d.]+)", result.stdout)[1])
        assert recorded == pytest.approx(scores[-1]["returns"][0], abs=0.051)
    assert scores[0] == scores[1]
    score = scores[0]
    assert set(score) == set(
        ["env", "env_version", "seed", "episodes", "mean", "std", "sem", "min", "max", "returns", "lengths", "logdir"]
    )
    assert score["mean"] == pytest.approx(np.mean(score["returns"]))
    last_line = result.stdout.splitlines()[-1]
    assert last_line == f"score {score['mean']:.1f} +- {score['std']:.1f} over 2 tracks"


def test_scores_come_from_gymnasiums_renderer_unless_told_otherwise(tmp_path):
    """The shipped driver sees enough to drive a little differently in the fast one."""
    result = run("test_controller.py", "--logdir", "pretrained", "--episodes", 1, "--json", tmp_path / "s.json")
    assert result.returncode == 0, result.stderr
    score = json.loads((tmp_path / "s.json").read_text())
    assert score["env"] == "gymnasium"
    controller = load_controller(ROOT / "pretrained")
    device = torch.device("cpu")
    driver = load_driver(ROOT / "pretrained", controller.architecture, device, fast_dtype(device))
    vector = controller.to_vector().numpy()
    expected, fast = ([*drive_episode(driver, vector, make_env(kind), 0)] for kind in ("gymnasium", "fast"))
    assert score["returns"] == [pytest.approx(expected[-1])] and score["lengths"] == [len(expected)]
    assert expected[-1] != pytest.approx(fast[-1])


@pytest.mark.parametrize(
    ("script", "arguments", "status", "words"),
    [
        ("traincontroller.py", ["--pop-size", "1"], 2, "--pop-size"),
        ("traincontroller.py", ["--n-samples", "-3"], 2, "--n-samples"),
        ("traincontroller.py", ["--sigma", "-1"], 2, "--sigma"),
        ("traincontroller.py", ["--pop-size", "5"], 2, "even"),
        ("traincontroller.py", ["--pop-size", "8", "--tracks", "3"], 2, "divisor of 4"),
        ("traincontroller.py", ["--diagonal-generations", "3"], 2, "only with --search cma"),
        ("traincontroller.py", ["--search", "cma", "--count-by", "size"], 2, "only with --search mirrored"),
        ("test_controller.py", ["--episodes", "0"], 2, "--episodes"),
        ("test_controller.py", ["--record", "film.avi"], 2, ".gif"),
        ("test_controller.py", ["--json", "docs"], 2, "is a folder"),
        ("test_controller.py", ["--json", "README.md/score.json"], 2, "cannot be written"),
        ("test_controller.py", ["--seed", "99990"], 2, "only tracks 0 to 99999"),
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


def test_a_failed_write_keeps_the_old_checkpoint(logdir):
    """No file may grow over 20 kB, so the checkpoint of the second part cannot be written."""
    first = run("traincontroller.py", "--logdir", logdir, *SHORT, "--generations", 1)
    assert first.returncode == 0, first.stderr
    before = (logdir / "ctrl" / "checkpoint.tar").read_bytes()
    limited = (
        f"ulimit -f 4; exec {sys.executable} traincontroller.py --logdir {logdir} {' '.join(SHORT)} --generations 2"
    )
    result = subprocess.run(["bash", "-c", limited], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "cannot be written" in result.stderr and "Traceback" not in result.stderr
    assert (logdir / "ctrl" / "checkpoint.tar").read_bytes() == before
    assert not list((logdir / "ctrl").glob(".*"))
