"""Take Cover learned in M's dream: the scripts one after the other, small, with real engines and real training."""

import json
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import assert_one_line_error, drive_all, run, run_process, succeed
from torch import Tensor

from data.loaders import LatentDataset, Sequences, find_rollouts
from data.policies import sweep
from envs.dream import DreamBatch, DreamSettings, Starts
from envs.games import CARRACING, TAKECOVER, Game
from models.controller import Controller
from models.dream import dream_weights
from models.mdrnn import MDRNN
from models.vae import VAE
from studies.blind_driving import POLICIES as BLIND
from studies.survival import ends_by_phase
from trainmdrnn import SequenceObjective
from utils.checkpoints import save_checkpoint
from utils.dreams import DreamRunner, Dreams
from utils.rollouts import Episode
from utils.run_folder import load_controller, load_dreams, load_game, load_mdrnn

SIZES = TAKECOVER.sizes
PRESET = "@presets/takecover"
SMALL = ["--pop-size", 8, "--n-samples", 2, "--eval-episodes", 4]


def save(folder: Path, game: Game, stage: str, model: torch.nn.Module, **more) -> None:
    """A stage's checkpoint as if it were trained."""
    state = {"state_dict": model.state_dict(), "game": game.name, "sizes": model.sizes.to_dict()}
    save_checkpoint(folder / stage / "best.tar", state | more)


def some_starts(game: Game = TAKECOVER) -> Starts:
    """Dreams begin at one blank moment."""
    latent, state = np.zeros((1, game.sizes.latent), np.float32), np.zeros((1, game.sizes.hidden), np.float32)
    return Starts(latent, latent, state, state, np.zeros(1))


def some_mdrnn(game: Game = TAKECOVER, end: float = -9) -> MDRNN:
    """An untrained M, whose logit of the end is about this."""
    torch.manual_seed(0)
    mdrnn = MDRNN(game.sizes)
    mdrnn.gmm_linear.bias.data[-1] = end
    return mdrnn


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> tuple[Path, Path]:
    """A dataset, and a run folder with V, M and C that learned in its dream: the four scripts, small. Not to be
    changed, but by studies."""
    folder = tmp_path_factory.mktemp("doom")
    data, logdir = folder / "data", folder / "run"
    succeed(run("data/generation_script.py", PRESET, "--rollouts", 4, "--rootdir", data))
    common = [PRESET, "--logdir", logdir, "--dataset", data]
    succeed(run("trainvae.py", *common, "--epochs", 1))
    succeed(run("trainmdrnn.py", *common, "--epochs", 1, "--batch-size", 8))
    succeed(run("traincontroller.py", PRESET, "--logdir", logdir, *SMALL, "--generations", 1))
    return data, logdir


@pytest.fixture
def folder(learned, tmp_path) -> Path:
    """A copy of the run folder that the test may change."""
    return Path(shutil.copytree(learned[1], tmp_path / "run"))


@pytest.mark.slow
def test_v_m_and_c_are_the_papers(learned):
    data, logdir = learned
    assert load_game(logdir) == (TAKECOVER, SIZES) and (SIZES.latent, SIZES.hidden) == (64, 512)
    mdrnn, controller = load_mdrnn(logdir), load_controller(logdir)
    assert mdrnn.gmm_linear.weight.shape == (3 * 5 * 64 + 2, 512)  # five mixtures for each latent; reward and end
    assert controller.fc.weight.shape == (1, 64 + 512 + 512)
    starts = load_dreams(logdir, DreamSettings()).starts
    assert (starts.steps == 0).sum() == len(find_rollouts(data)) - 1  # all but the one that is held out


@pytest.mark.slow
def test_training_in_the_dream_goes_on_where_it_was(learned, folder, tmp_path):
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    shutil.rmtree(again / "ctrl")
    for logdir in (folder, again):
        output = succeed(run("traincontroller.py", PRESET, "--logdir", logdir, *SMALL, "--generations", 2))
    assert "2 generations done" in output
    one, two = (torch.load(path / "ctrl" / "checkpoint.tar", weights_only=True) for path in (folder, again))
    assert torch.equal(one["evolution"]["fitness"], two["evolution"]["fitness"])
    assert torch.equal(one["state_dict"]["fc.weight"], two["state_dict"]["fc.weight"])


@pytest.mark.slow
def test_c_learns_by_gradient_and_goes_on_where_it_was(folder, tmp_path):
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    gradient = [PRESET, "@presets/gradient", "--hidden-units", 5, *SMALL]
    for logdir, parts in ((folder, [2]), (again, [1, 2])):
        shutil.rmtree(logdir / "ctrl")
        for generations in parts:
            options = ["--logdir", logdir, *gradient, "--generations", generations, "--max-workers", 1]
            output = succeed(run("traincontroller.py", *options))
            assert re.search(r"generation \d: reward of a step 0\.\d\d, \d+\.\d\d ends in 1,000 steps, mean of", output)
    assert "continuing after generation 1" in output
    one, two = (torch.load(path / "ctrl" / "checkpoint.tar", weights_only=True) for path in (folder, again))
    assert all(torch.equal(weight, two["state_dict"][name]) for name, weight in one["state_dict"].items())
    assert load_controller(folder).hidden.weight.shape == (5, 64 + 512 + 512)
    assert [row["episodes"] for row in two["history"]] == [16, 32] and (again / "ctrl" / "curve.png").exists()
    other = run("traincontroller.py", PRESET, "--logdir", again, *SMALL, "--hidden-units", 5, "--generations", 3)
    assert_one_line_error(other, "another --search")


def test_a_gradient_is_of_dreams():
    for words in (["--env", "vizdoom"], ["--env", "dream", "--sigma", 1, 2]):
        refused = run("traincontroller.py", "--logdir", "nowhere", "--search", "gradient", *words)
        assert (
            refused.returncode == 2 and f"argument --{'search' if 'vizdoom' in words else 'sigma'}:" in refused.stderr
        )


@pytest.mark.slow
def test_the_driver_is_scored_and_filmed_in_the_real_game(learned, tmp_path):
    _, logdir = learned
    score, film, dreamed = (tmp_path / name for name in ("score.json", "driver.gif", "both.gif"))
    options = [PRESET, "--logdir", logdir, "--episodes", 2, "--json", score, "--record", film]
    assert "over 2 tracks" in succeed(run("test_controller.py", *options)).splitlines()[-1]
    kept = json.loads(score.read_text())
    assert kept["env"] == "vizdoom" and kept["env_version"].startswith("VizDoom Take Cover, vizdoom 1.3")
    assert kept["returns"] == kept["lengths"] and min(kept["lengths"]) > 20
    assert imageio.imread(film).shape[1:] == (120, 160, 3)
    options = [PRESET, "--logdir", logdir, "--side-by-side", "--record", dreamed, "--steps", 80]
    assert "80 steps, return 80.0" in succeed(run("play.py", *options))
    assert imageio.imread(dreamed).std() > 10
    output = succeed(run("play.py", PRESET, "--logdir", logdir, "--dream", "--record", tmp_path / "dream.mp4"))
    steps, earned = re.search(r"(\d+) steps, return ([\d.]+)", output).groups()
    assert int(steps) == float(earned)


@pytest.mark.slow
def test_m_is_compared_with_the_real_game(learned, folder):
    data, _ = learned
    output = succeed(run("-m", "studies.end_head", "--logdir", folder, "--dataset", data, "--episodes", 3))
    result = json.loads((folder / "mdrnn" / "end_head.json").read_text())
    assert len(result["real"]) == len(result["dreamed"]) == 3 and min(result["real"]) > 20
    assert f"| real | 3 | {np.mean(result['real']):.0f} ± {np.std(result['real']):.0f} |" in output
    assert result["ends"] == 1 and 0 <= result["foreseen"] <= result["foreseen_early"] <= 1
    assert (folder / "mdrnn" / "end_head.png").stat().st_size > 10_000
    strip = imageio.imread(folder / "mdrnn" / "end_head_strip.png")
    assert strip.shape == (410, 14 * 90, 4)  # three rollouts and a dream
    assert strip[-120:-60, 1180:1240, :3].std() > 3  # of the last dreamed frame


@pytest.mark.slow
def test_temperatures_are_compared_and_each_run_is_kept(learned, tmp_path):
    preset = tmp_path / "preset"
    preset.write_text("[traincontroller.py]\n--env dream\n--pop-size 8\n--n-samples 2\n--eval-episodes 4\n")
    arguments = ["--logdir", learned[1], "--preset", preset, "--generations", 1, "--episodes", 2, "--out", tmp_path]
    output = succeed(run("-m", "studies.temperatures", *arguments, "--only", 1.3))
    (path,) = (tmp_path / "temperatures").glob("*.json")
    kept = json.loads(path.read_text())
    assert path.name == "1.3_0.json" and len(kept["dreamed"]) == len(kept["real"]) == 2 and min(kept["real"]) > 20
    row = f"| 1.3 | 1 | {np.mean(kept['dreamed']):.0f} (± {np.std(kept['dreamed']):.0f}) | {np.mean(kept['real']):.0f} "
    assert row in output
    modified = path.stat().st_mtime_ns
    assert row in succeed(run("-m", "studies.temperatures", *arguments, "--only", 1.3))  # and does not do it again
    assert path.stat().st_mtime_ns == modified
    longer = run("-m", "studies.temperatures", *arguments, "--only", 1.3, "--generations", 2)
    assert_one_line_error(longer, "'generations': 1", path)
    assert row in succeed(run("-m", "studies.temperatures", "--out", tmp_path))  # needs no models
    assert_one_line_error(run("-m", "studies.temperatures", "--out", tmp_path / "none"), "--logdir")
    assert run("-m", "studies.temperatures", *arguments, "--only", 2).returncode == 2


@pytest.mark.slow
def test_a_drivers_survival_is_compared_with_its_dreams(learned):
    logdir = learned[1]
    output = succeed(run("-m", "studies.survival", "--logdir", logdir, "--temperatures", 1, 1.4, "--episodes", 3))
    kept = json.loads((logdir / "ctrl" / "survival.json").read_text())
    assert list(kept) == ["real", "dreamed, temperature 1", "dreamed, temperature 1.4"]
    for name, lengths in kept.items():
        assert len(lengths) == 3 and f"| {name} | {np.mean(lengths):.0f} ± " in output
    assert (logdir / "ctrl" / "survival.png").stat().st_size > 10_000


def test_ends_are_counted_by_phase():
    """100 episodes of three that end after 150 steps, in the 2,000th, and never: phases of 300 steps."""
    rates = ends_by_phase(np.repeat([150, 2000, 2100], 100), 2100)
    first, last = 1000 * 100 / (150 * 100 + 300 * 200), 1000 * 100 / (200 * 100 + 300 * 100)
    assert rates == pytest.approx([first, 0, 0, 0, 0, 0, last])
    assert np.isnan(ends_by_phase(np.full(10, 50), 2100)).all()  # too few steps to tell


@pytest.mark.slow
def test_blind_driving_has_its_score(tmp_path):
    output = succeed(run("-m", "studies.blind_driving", "--episodes", 4, "--out", tmp_path))
    kept = json.loads((tmp_path / "blind_driving.json").read_text())
    assert set(kept) == set(BLIND) and all(len(lengths) == 4 and min(lengths) > 20 for lengths in kept.values())
    for name, lengths in kept.items():
        assert f"| {name} | 4 | {np.mean(lengths):.0f} ± {np.std(lengths):.0f} |" in output
    assert np.mean(kept["stay"]) < np.mean(kept["from wall to wall, 90 steps each way"])


def test_a_sweep_goes_from_wall_to_wall():
    actions = sweep(np.random.default_rng(0), SIZES, 1000)
    assert actions.shape == (1000, 1) and set(actions.flatten()) == {-1, 1}
    turns = np.flatnonzero(np.diff(actions[:, 0]))
    assert turns[0] < 90 and (np.diff(turns) == 90).all()


@pytest.mark.parametrize("game", [CARRACING, TAKECOVER], ids=lambda game: game.name)
def test_the_loss_of_the_end_weighs_as_the_game_says(game):
    """By hand: with logits of 0 a step costs log 2, and CarRacing's last steps no more than the others."""
    torch.manual_seed(0)
    sizes = game.sizes
    mdrnn = MDRNN(sizes)
    for parameter in mdrnn.gmm_linear.parameters():
        torch.nn.init.zeros_(parameter)
    args = Namespace(batch_size=2, include_reward=False, float32=True)
    objective = SequenceObjective(game, VAE(sizes), mdrnn, None, Path(), args, torch.device("cpu"))
    # Two sequences of 5 steps: one is over after 3 of them, the other goes on.
    real = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool).T
    terminals = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0.0]]).T
    has_next = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool).T
    latents = torch.randn(6, 2, sizes.latent)
    steps = Sequences(
        latents[:-1], latents[1:], torch.zeros(5, 2, sizes.action), real.float(), terminals, real, has_next
    )
    terms = objective.measure(steps).detach()
    before, last = {"carracing": (1, 1), "takecover": (64, 640)}[game.name]
    assert terms[1] == pytest.approx((7 * before + last) * np.log(2) / 8)
    nll = 0.5 * (latents[1:].square() + np.log(2 * np.pi)).sum(dim=-1)  # all five Gaussians are N(0, 1)
    assert terms[0] == pytest.approx(nll[has_next].mean().item(), rel=1e-5)
    assert objective.loss(terms) == pytest.approx((terms[0] + terms[1]).item() / (sizes.latent + 1))


@pytest.mark.slow
def test_its_sequences_are_long(learned):
    data, _ = learned

    def see(file: Path) -> Tensor:
        return torch.zeros(2, len(np.load(file)["rewards"]), SIZES.latent).half()

    dataset = LatentDataset(find_rollouts(data), SIZES, see, TAKECOVER.sequence_length)
    batch = dataset[torch.arange(len(dataset))]
    assert batch.latents.shape == (128, len(dataset), 64) and batch.terminals[batch.real].sum() == 4
    assert batch.real.sum() == sum(dataset.lengths)


def rows(batch: DreamBatch, count: int, steps: int) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Rewards, logits, ends and truncations of so many steps to the left."""
    for _ in range(steps):
        done = batch.step(count, torch.full((len(batch.latents), 1), -1.0))
        yield done.rewards, batch.terminal_logits[:count].numpy().copy(), done.terminated, done.truncated


def test_a_dream_earns_its_steps_and_ends_where_the_logit_is_positive():
    dreams = Dreams(TAKECOVER, dream_weights(some_mdrnn(end=-0.05)), some_starts(), DreamSettings(1.15))
    batch = DreamBatch(*dreams, 32)
    for row in range(32):
        batch.reset(row, row)
    ends = 0
    for rewards, logits, terminated, truncated in rows(batch, 32, 40):
        assert (rewards == 1).all() and (terminated == (logits > 0)).all() and not truncated.any()
        ends += terminated.sum()
    assert ends
    controllers = np.random.default_rng(0).normal(scale=0.3, size=(80, SIZES.controller)).astype(np.float32)
    episodes = [Episode(controller, seed) for seed, controller in enumerate(controllers)]
    together, alone = (drive_all(DreamRunner(dreams, SIZES, count), episodes) for count in (48, 7))  # rows are refilled
    assert together == alone and len({outcome.length for outcome in together}) > 5
    assert all(outcome.total_return == outcome.length <= 2100 for outcome in together)


def test_a_dream_ends_after_2100_steps():
    dreams = Dreams(TAKECOVER, dream_weights(some_mdrnn()), some_starts(), DreamSettings())
    batch = DreamBatch(*dreams, 1)
    batch.reset(0, 0)
    *before, last = [(bool(terminated[0]), bool(truncated[0])) for *_, terminated, truncated in rows(batch, 1, 2100)]
    assert before == [(False, False)] * 2099 and last == (False, True)


def test_a_run_folder_or_a_controller_of_the_other_game_is_one_line(tmp_path, tiny_dataset):
    logdir = tmp_path / "run"
    starts = {name: torch.from_numpy(value) for name, value in some_starts()._asdict().items()}
    save(logdir, TAKECOVER, "vae", VAE(SIZES))
    save(logdir, TAKECOVER, "mdrnn", some_mdrnn(), starts=starts)
    save(logdir, CARRACING, "ctrl", Controller(CARRACING.sizes))
    ctrl = logdir / "ctrl" / "best.tar"
    for script in ("test_controller.py", "play.py"):
        assert_one_line_error(run(script, "--logdir", logdir), ctrl, "carracing", "takecover", "traincontroller.py")
    assert_one_line_error(run("traincontroller.py", "--logdir", logdir, "--env", "dream"), ctrl, "carracing")
    for script in ("trainvae.py", "trainmdrnn.py"):
        result = run(script, "--logdir", logdir, "--dataset", tiny_dataset)
        assert_one_line_error(result, "carracing", "takecover", logdir / "vae")
    save(logdir, CARRACING, "mdrnn", MDRNN(CARRACING.sizes), starts=starts)
    mdrnn = logdir / "mdrnn" / "best.tar"
    shutil.rmtree(logdir / "ctrl")
    assert_one_line_error(run("traincontroller.py", "--logdir", logdir, "--env", "dream"), mdrnn, "trainmdrnn.py")
    data = ["--rollouts", 1, "--rootdir", tmp_path / "data", "--policy", "controller", "--logdir", logdir]
    assert_one_line_error(run("data/generation_script.py", *data), logdir / "vae" / "best.tar", "--game takecover")
    assert_one_line_error(run("test_controller.py", "--logdir", logdir, "--env", "fast"), "--env fast", "vizdoom")


@pytest.mark.slow
def test_without_vizdoom_the_dream_goes_on_and_the_score_is_one_line(tmp_path, monkeypatch):
    logdir = tmp_path / "run"
    starts = {name: torch.from_numpy(value) for name, value in some_starts()._asdict().items()}
    save(logdir, TAKECOVER, "vae", VAE(SIZES))
    save(logdir, TAKECOVER, "mdrnn", some_mdrnn(end=-0.05), starts=starts)
    imports = "import sys; sys.modules['vizdoom'] = None; import traincontroller, test_controller, play, export_dream"
    succeed(run_process("-c", imports))
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    dream = ["--env", "dream", "--pop-size", 4, "--n-samples", 1, "--eval-episodes", 1, "--generations", 1]
    succeed(run("traincontroller.py", "--logdir", logdir, *dream))
    score = run("test_controller.py", "--logdir", logdir, "--episodes", 1)
    assert_one_line_error(score, "vizdoom", "pip install -r requirements.txt")
