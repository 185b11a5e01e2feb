"""M as an environment: its dreams are M's, step by step, and C can learn in them."""

import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from conftest import DTYPES, assert_one_line_error, drive_all, launch_short, run, succeed, wait_until
from gymnasium.utils.env_checker import check_env

import envs
from envs.dream import NOISE_AHEAD, DreamBatch, DreamSettings
from envs.games import CARRACING, TAKECOVER
from models.dream import DreamModel, dream_weights
from models.mdrnn import MDRNN, sample_mixture
from models.sizes import CARRACING_SIZES
from utils.dreams import DreamRunner
from utils.rollouts import Episode
from utils.run_folder import load_dreams, load_mdrnn, load_vae

Z = replace(CARRACING_SIZES, inputs="z")
SHORT = ["--env", "dream", "--inputs", "z", "--n-samples", 2, "--pop-size", 8, "--eval-episodes", 4]


@pytest.fixture
def folder(dreamer, tmp_path) -> Path:
    """A copy of it that the test may change."""
    return Path(shutil.copytree(dreamer, tmp_path / "run"))


def actions(count: int) -> np.ndarray:
    low, high = CARRACING_SIZES.lowest_action, CARRACING_SIZES.highest_action
    return np.random.default_rng(0).uniform(low, high, (count, 3)).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.5])
def test_a_dream_is_what_m_predicts_step_by_step(dreamer, temperature):
    environment = envs.make_env("dream", logdir=dreamer, temperature=temperature)
    frame, info = environment.reset(seed=7)
    latents = [info["latent"]]
    vae, mdrnn = load_vae(dreamer).eval(), load_mdrnn(dreamer).eval()
    generator = np.random.default_rng(7)
    generator.random(), generator.integers(3), generator.standard_normal(32, np.float32)  # the start's
    state = None
    for step, action in enumerate(actions(2 * NOISE_AHEAD)):
        if step % NOISE_AHEAD == 0:
            normals = generator.standard_normal((NOISE_AHEAD, 32), dtype=np.float32)
            uniforms = generator.random((NOISE_AHEAD, 1), dtype=np.float32)
        frame, reward, terminated, truncated, info = environment.step(action)
        with torch.no_grad():
            latent = torch.from_numpy(latents[-1])[None, None]
            prediction, state = mdrnn(torch.from_numpy(action)[None, None], latent, state)
            noise = torch.from_numpy(np.concatenate([normals[step % NOISE_AHEAD], uniforms[step % NOISE_AHEAD]]))
            expected = sample_mixture(prediction, noise, temperature)[0, 0].numpy()
            image = vae.decoder(torch.from_numpy(info["latent"])[None])[0]
        np.testing.assert_allclose(info["latent"], expected, rtol=1e-4, atol=1e-4)
        assert reward == info["reward"] == pytest.approx(prediction.reward.item(), abs=1e-4)
        assert info["terminal"] == pytest.approx(prediction.terminal_logit.sigmoid().item(), abs=1e-4)
        np.testing.assert_allclose(frame, 255 * image.permute(1, 2, 0).numpy(), atol=0.51)
        assert not terminated and not truncated
        latents.append(info["latent"])


def test_the_interface_is_the_real_ones(dreamer):
    dream, real = gymnasium.make("WorldModelDream-v0", logdir=str(dreamer)), envs.make_env("fast")
    check_env(dream.unwrapped, skip_render_check=True)
    assert dream.observation_space == real.observation_space and dream.action_space == real.action_space
    again = [envs.make_env("dream", logdir=dreamer).reset(seed=3)[0] for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert (again[0] != dream.reset(seed=4)[0]).any()
    viewed = envs.make_env("dream", "rgb_array", logdir=dreamer, horizon=2)
    frame, _ = viewed.reset(seed=3)
    np.testing.assert_array_equal(viewed.render()[::8, ::8], frame)
    ends = [viewed.step(np.zeros(3, np.float32))[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]


def test_a_dream_begins_where_it_is_told_to(dreamer):
    environment = envs.make_env("dream", logdir=dreamer)
    state = {"latent": np.arange(32.0), "hidden": np.zeros(256), "cell": np.zeros(256)}
    _, info = environment.reset(seed=0, options=state)
    np.testing.assert_array_equal(info["latent"], np.arange(32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dream_does_not_depend_on_its_company(dreamer, dtype):
    """Seven at a time or 100 at once, in whatever row: the same dream, to the last bit."""
    dreams = load_dreams(dreamer, DreamSettings(horizon=120, dtype=dtype, beginnings=0.5))
    random = np.random.default_rng(0)
    controllers = random.normal(scale=0.3, size=(100, Z.controller)).astype(np.float32)
    episodes = [Episode(controllers[i], seed=int(i), patience=30 + i) for i in range(100)]
    together, alone = (drive_all(DreamRunner(dreams, Z, count), episodes) for count in (100, 7))
    assert len({outcome.length for outcome in together}) > 5  # some are hopeless before others, and rows are refilled
    assert together == alone
    batch = DreamBatch(*dreams, 1)
    batch.reset(0, 5, patience=35)
    total = 0.0
    for _ in range(together[5].length):
        steps = batch.step(1, actions_of(controllers[5], batch))
        total += steps.rewards[0] - steps.charges[0]
    assert steps.truncated[0] and total == pytest.approx(together[5].total_return, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("game", [CARRACING, TAKECOVER], ids=lambda game: game.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_a_dream_step_is_a_step_of_m(game, dtype, tolerance):
    torch.manual_seed(0)
    mdrnn, sizes = MDRNN(game.sizes), game.sizes
    model = DreamModel(dream_weights(mdrnn), 1.15, dtype)
    state = torch.zeros(16, sizes.hidden), torch.zeros(16, sizes.hidden)
    expected_state = None
    for _ in range(20):
        actions, latents, noise = (torch.randn(16, size) for size in (sizes.action, sizes.latent, sum(sizes.noise)))
        noise[:, sizes.noise[0] :] = 0  # always the first component: rounding chooses no other
        prediction, expected_state = mdrnn(actions[None], latents[None], expected_state)
        expected = sample_mixture(prediction, noise, 1.15)[0]
        dreamed = model.step(actions, latents, *state, noise)
        for ours, theirs in (
            (dreamed.latents, expected),
            (dreamed.rewards, prediction.reward[0]),
            (dreamed.terminal_logits, prediction.terminal_logit[0]),
            (state[0], expected_state[0][0]),
            (state[1], expected_state[1][0]),
        ):
            torch.testing.assert_close(ours, theirs.detach(), atol=tolerance, rtol=tolerance)


def actions_of(controller: np.ndarray, batch: DreamBatch) -> torch.Tensor:
    weight, bias = np.split(controller, [96])
    raw = torch.from_numpy(weight.reshape(3, 32)) @ batch.latents[0] + torch.from_numpy(bias)
    steering, gas, brake = raw.tanh()
    return torch.stack([steering, (gas + 1) / 2, brake.clamp(min=0)]).expand(16, -1)


def test_hopeless_dreams_are_paid_as_idling(dreamer):
    dreams = load_dreams(dreamer, DreamSettings(horizon=300))
    never = replace(CARRACING, least_gain=100.0)
    (outcome,) = drive_all(DreamRunner(dreams._replace(game=never), Z, 1), [Episode(np.zeros(99, np.float32), 0, 40)])
    batch = DreamBatch(*dreams, 1)
    batch.reset(0, 0)
    dreamed = sum(batch.step(1, torch.tensor([0.0, 0.5, 0.0]).expand(16, -1)).rewards[0] for _ in range(40))
    assert outcome.length == 40 and outcome.total_return == pytest.approx(dreamed - 0.1 * 260, abs=1e-3)


def test_a_dream_ends_when_all_is_earned(dreamer):
    """M does not see that a lap is complete; what a lap earns says so."""
    dreams = load_dreams(dreamer, DreamSettings(horizon=300))
    batch = DreamBatch(*dreams, 1)
    batch.reset(0, 0)
    straight = torch.tensor([0.0, 0.5, 0.0]).expand(16, -1)
    earned = np.cumsum([batch.step(1, straight).rewards[0] + 0.1 for _ in range(40)])
    short = replace(CARRACING, whole_gain=float(earned.max()))
    batch = DreamBatch(*dreams._replace(game=short), 1)
    batch.reset(0, 0)
    ends = [bool(batch.step(1, straight).terminated[0]) for _ in range(40)]
    assert ends.index(True) == earned.argmax()


def test_starts_travel_with_the_folder(dreamer, tiny_dataset, tmp_path):
    """V's and M's best.tar are enough: no dataset, no other file."""
    for stage in ("vae", "mdrnn"):
        (tmp_path / stage).mkdir()
        shutil.copy(dreamer / stage / "best.tar", tmp_path / stage)
    starts = load_dreams(tmp_path, DreamSettings()).starts
    beginnings = starts.steps == 0
    assert beginnings.sum() == 3 and (~beginnings).sum() > 100
    assert not starts.hidden[beginnings].any() and starts.hidden[~beginnings].any(axis=1).all()
    assert starts.steps[~beginnings].min() >= 60 and starts.steps.max() < 200
    for seed in range(10):
        _, info = envs.make_env("dream", logdir=tmp_path).reset(seed=seed)
        distances = np.abs(info["latent"] - starts.mu) / np.exp(starts.logsigma)
        assert distances[beginnings].max(axis=1).min() < 5


def test_later_starts_are_states_of_m(dreamer, tiny_dataset):
    """The state of a later start is M's after the 60 steps before it."""
    from data.encoding import encode
    from data.loaders import find_rollouts, load_rollout

    starts, mdrnn = load_dreams(dreamer, DreamSettings()).starts, load_mdrnn(dreamer)
    frames, taken = map(torch.from_numpy, load_rollout(find_rollouts(tiny_dataset)[0], ("observations", "actions")))
    mu, _ = encode(load_vae(dreamer), frames, torch.device("cpu"), torch.float32)
    later = np.flatnonzero(starts.steps)
    nearest = later[np.argmin(np.abs(starts.mu[later] - mu[100].numpy()).max(axis=1))]
    step = int(starts.steps[nearest])
    with torch.no_grad():
        _, (hidden, _) = mdrnn(taken[step - 60 : step, None], mu[step - 60 : step, None])
    np.testing.assert_allclose(starts.mu[nearest], mu[step].numpy(), atol=0.05)
    np.testing.assert_allclose(starts.hidden[nearest], hidden[0, 0].numpy(), atol=0.02)


def test_without_a_reward_head_there_is_no_dream(trained):
    result = run("traincontroller.py", "--logdir", trained, "--env", "dream", "--generations", 1)
    assert_one_line_error(result, trained / "mdrnn" / "best.tar", "trainmdrnn.py", "--include_reward")
    assert not (trained / "ctrl").exists()


@pytest.mark.usefixtures("short_episodes")
def test_c_learns_in_the_dream(folder):
    """The dream's score goes up, and the real one decides nothing."""
    options = [*SHORT[:4], "--search", "mirrored", "--pop-size", 32, "--n-samples", 1, "--eval-episodes", 16]
    options += ["--sigma", 0.1, "--generations", 12, "--eval-env", "fast"]
    output = succeed(run("traincontroller.py", "--logdir", folder, *options))
    state = torch.load(folder / "ctrl" / "best.tar", weights_only=True)
    history = torch.load(folder / "ctrl" / "checkpoint.tar", weights_only=True)["history"]
    scored = [row for row in history if "return/mean" in row]
    assert state["reward"] == max(row["return/mean"] for row in scored) and state["sizes"]["inputs"] == "z"
    assert scored[-1]["return/mean"] > history[0]["return/population"] + 3 * scored[-1]["return/mean_error"]
    assert all(row["eval_env/return/mean"] != row["return/mean"] for row in scored)
    assert f"in the --eval-env {scored[-1]['eval_env/return/mean']:.1f}" in output


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_killed_in_a_dream_it_goes_on_as_if_nothing_had_been(folder, tmp_path):
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    succeed(run("traincontroller.py", "--logdir", folder, *SHORT, "--generations", 6))
    killed = launch_short("traincontroller.py", "--logdir", other, *SHORT, "--generations", 10_000)
    wait_until(lambda: (other / "ctrl" / "checkpoint.tar").exists())
    killed.kill()
    killed.communicate()
    done = torch.load(other / "ctrl" / "checkpoint.tar", weights_only=True)["epoch"]
    generations = max(6, done + 1)
    succeed(run("traincontroller.py", "--logdir", other, *SHORT, "--generations", generations))
    succeed(run("traincontroller.py", "--logdir", folder, *SHORT, "--generations", generations))
    one, two = (torch.load(run / "ctrl" / "checkpoint.tar", weights_only=True) for run in (folder, other))
    assert one["epoch"] == two["epoch"] == generations
    assert torch.equal(one["evolution"]["fitness"], two["evolution"]["fitness"])
    assert torch.equal(one["state_dict"]["fc.weight"], two["state_dict"]["fc.weight"])


@pytest.mark.parametrize("other", [["--temperature", 1.5], ["--beginnings", 0]])
def test_other_dreams_are_scored_anew(other, folder):
    succeed(run("traincontroller.py", "--logdir", folder, *SHORT, "--generations", 1))
    output = succeed(run("traincontroller.py", "--logdir", folder, *SHORT, "--generations", 2, *other))
    assert "does not count any more" in output
