"""Rollouts: how they are drawn, made, stored, split and read."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    a_worker_killed_when,
    assert_one_line_error,
    drive_all,
    episode_runner,
    run,
    start,
    succeed,
    wait_until,
)
from short_carracing import SHORT_CARRACING

from data.encoding import KeptLatents, encode
from data.loaders import (
    FAILURE_LENGTH,
    FrameDataset,
    LatentDataset,
    find_rollouts,
    load_rollout,
    name_rollouts,
    split_rollouts,
)
from data.policies import brown, exploration_noise, white
from data.rollouts import Rollout, pack_rollout, save_rollout
from envs import make_env
from models.controller import Controller
from models.sizes import CARRACING_SIZES
from models.vae import VAE
from utils.checkpoints import save_checkpoint
from utils.commandline import UserError
from utils.precision import fast_dtype
from utils.rollouts import Episode
from utils.run_folder import load_controller
from utils.tracks import data_track

CPU = torch.device("cpu")


def generate(rootdir: Path, rollouts: int, *arguments: object):
    return run("data/generation_script.py", "--rootdir", rootdir, "--rollouts", rollouts, *arguments)


def contents(rootdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in find_rollouts(rootdir)}


def test_policies_stay_in_the_box_and_move_as_they_should():
    actions = brown(np.random.default_rng(0), CARRACING_SIZES, 20_000)
    assert actions.dtype == np.float32 and actions.shape == (20_000, 3)
    for policy in (brown, white):
        noise = policy(np.random.default_rng(1), CARRACING_SIZES, 5_000)
        assert (noise >= [-1, 0, 0]).all() and (noise <= 1).all()
        assert (noise == policy(np.random.default_rng(1), CARRACING_SIZES, 5_000)).all()
    inside = (np.abs(actions[:-1, 0]) < 0.4).nonzero()[0]  # too far from the walls to be clipped
    assert np.diff(actions[:, 0])[inside].std() == pytest.approx((1 / 50) ** 0.5, rel=0.03)
    uniform = white(np.random.default_rng(2), CARRACING_SIZES, 20_000)
    assert uniform.mean(axis=0) == pytest.approx([0, 0.5, 0.5], abs=0.02)
    assert uniform.std(axis=0) == pytest.approx(np.array([2, 1, 1]) / 12**0.5, abs=0.02)


def test_a_rollout_is_what_the_environment_does(generated):
    observations, actions, rewards, terminals = load_rollout(generated / "thread_1" / "rollout_1.npz", Rollout._fields)
    assert [array.dtype.name for array in (observations, actions, rewards, terminals)] == [
        "uint8",
        "float32",
        "float32",
        "bool",
    ]
    env = make_env("fast")
    frame, _ = env.reset(seed=data_track(0, 1))
    for step in range(len(rewards)):
        assert (observations[step] == frame).all()
        frame, reward, terminated, truncated, _ = env.step(actions[step])
        assert rewards[step] == np.float32(reward)
        assert terminals[step] == terminated
    assert terminated or truncated


def test_generation_makes_exactly_n_whatever_the_threads(generated, tmp_path):
    assert {str(path.relative_to(generated)) for path in find_rollouts(generated)} == {
        f"thread_{number % 2}/rollout_{number}.npz" for number in range(4)
    }
    output = succeed(generate(tmp_path, 3, "--threads", 8))
    assert "3 rollouts, 3000 frames" in output and str(tmp_path) in output
    assert contents(tmp_path).items() <= contents(generated).items()
    assert len(find_rollouts(tmp_path)) == 3


def test_generation_resumes_and_mends(generated, tmp_path):
    rootdir = Path(shutil.copytree(generated, tmp_path / "data"))
    missing, damaged = rootdir / "thread_0" / "rollout_2.npz", rootdir / "thread_1" / "rollout_3.npz"
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:10_000])
    kept = (rootdir / "thread_0" / "rollout_0.npz").stat().st_mtime_ns
    result = generate(rootdir, 4, "--threads", 8)
    assert "2 rollouts" in succeed(result)
    assert f"{damaged}: damaged" in result.stderr
    assert contents(rootdir) == contents(generated)
    assert (rootdir / "thread_0" / "rollout_0.npz").stat().st_mtime_ns == kept
    assert "nothing to do" in succeed(generate(rootdir, 2))


def test_generation_refuses_to_mix(generated, tmp_path):
    before = contents(generated)
    for other in (["--seed", 1], ["--policy", "white", "--env", "gymnasium"]):
        assert_one_line_error(generate(generated, 6, *other), generated / "generation.json", "--rootdir")
    assert contents(generated) == before

    unknown = tmp_path / "unknown"
    shutil.copytree(generated / "thread_0", unknown / "thread_0")
    assert_one_line_error(generate(unknown, 6), unknown / "generation.json", "--rootdir")

    foreign = Path(shutil.copytree(generated, tmp_path / "foreign"))
    np.savez(foreign / "thread_0" / "rollout_0.npz", frames=np.zeros(3))
    assert_one_line_error(generate(foreign, 6), foreign / "thread_0" / "rollout_0.npz", "move it away")


def test_hopeless_rollouts_end_early(generated, tmp_path):
    """The same rollouts as without patience, as far as they go."""
    succeed(run("data/generation_script.py", "--rollouts", 4, "--rootdir", tmp_path / "d", "--patience", 60))
    for short, whole in zip(find_rollouts(tmp_path / "d"), find_rollouts(generated), strict=True):
        short, whole = (load_rollout(path, ("actions", "rewards", "terminals")) for path in (short, whole))
        length = len(short[0])
        assert 60 <= length < len(whole[0])
        for column, expected in zip(short, whole, strict=True):
            np.testing.assert_array_equal(column, expected[:length])
        progress = np.flatnonzero(short[1] > 0)[-1]
        assert length - 1 - progress == 60 and not short[2].any()
    other = run("data/generation_script.py", "--rollouts", 4, "--rootdir", tmp_path / "d", "--patience", 70)
    assert_one_line_error(other, "generation.json", "'patience': 60")


@pytest.mark.slow
def test_generation_survives_a_killed_worker(tmp_path):
    with a_worker_killed_when(lambda: list(tmp_path.glob("thread_0/*.npz"))):
        result = generate(tmp_path, 12, "--threads", 1)
    assert result.returncode == 0 and "SIGKILL" in result.stderr, result.stderr
    for number in range(12):
        load_rollout(tmp_path / "thread_0" / f"rollout_{number}.npz", Rollout._fields)
    assert not list(tmp_path.glob("thread_0/.*"))


@pytest.mark.slow
def test_generation_that_is_stopped_goes_on(tmp_path):
    with start("data/generation_script.py", "--rootdir", tmp_path, "--rollouts", 500, "--threads", 2) as process:
        wait_until(lambda: list(tmp_path.glob("thread_*/*.npz")))
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "same command again" in errors
    made = len(find_rollouts(tmp_path))
    assert 0 < made < 500
    succeed(generate(tmp_path, made + 3, "--threads", 2))
    for number in range(made + 3):
        load_rollout(tmp_path / f"thread_{number % 2}" / f"rollout_{number}.npz", Rollout._fields)


@pytest.mark.usefixtures("short_episodes")
def test_generation_in_gymnasiums_renderer(tmp_path):
    succeed(generate(tmp_path, 1, "--env", "gymnasium", "--policy", "white"))
    (frames,) = load_rollout(tmp_path / "thread_0" / "rollout_0.npz", ("observations",))
    first, fast = (make_env(kind).reset(seed=data_track(0, 0))[0] for kind in ("gymnasium", "fast"))
    assert len(frames) > 10
    assert (frames[0] == first).all() and (first != fast).any()


@pytest.fixture
def driver(untrained_run, tmp_path) -> Path:
    """A run folder with a C that steers, and soon leaves the field; V and M are as they are born."""
    logdir = Path(shutil.copytree(untrained_run, tmp_path / "run"))
    torch.manual_seed(3)
    save_checkpoint(logdir / "ctrl" / "best.tar", {"state_dict": Controller().state_dict()})
    return logdir


@pytest.mark.slow
@pytest.mark.usefixtures("short_episodes")
def test_generation_by_a_controller(driver, tmp_path):
    options = ["--policy", "controller", "--logdir", driver, "--seed", 5, "--threads", 2]
    succeed(generate(tmp_path / "data", 2, *options))
    succeed(generate(tmp_path / "fewer", 1, *options))
    assert contents(tmp_path / "fewer").items() <= contents(tmp_path / "data").items()
    succeed(generate(tmp_path / "calm", 2, *options, "--noise", 0))

    controller = load_controller(driver)
    dtype = fast_dtype(torch.device("cpu"))
    episodes = [Episode(controller.to_vector().numpy(), data_track(5, number)) for number in range(2)]
    outcomes = drive_all(episode_runner(driver, environments=2, dtype=dtype, game=SHORT_CARRACING), episodes)
    for number, outcome in enumerate(outcomes):
        path = Path(f"thread_{number}") / f"rollout_{number}.npz"
        calm = Rollout(*load_rollout(tmp_path / "calm" / path, Rollout._fields))
        noisy = Rollout(*load_rollout(tmp_path / "data" / path, Rollout._fields))
        # Without noise the car drives as it does for its score, with it differently on the same track.
        assert (outcome.length, outcome.total_return) == (len(calm.rewards), pytest.approx(calm.rewards.sum(), abs=0.1))
        assert (noisy.observations[0] == calm.observations[0]).all() and (noisy.actions[0] != calm.actions[0]).any()
        assert (noisy.actions >= [-1, 0, 0]).all() and (noisy.actions <= 1).all()
        environment = make_env("fast")
        environment.reset(seed=data_track(5, number))
        for step, action in enumerate(noisy.actions[:200]):
            frame, reward, *_ = environment.step(action)
            assert noisy.rewards[step] == np.float32(reward)
            assert step + 1 == len(noisy.rewards) or (noisy.observations[step + 1] == frame).all()


def test_generation_by_a_controller_refuses_what_cannot_be(driver, tmp_path):
    rootdir = tmp_path / "data"
    assert generate(rootdir, 1, "--policy", "controller").returncode == 2
    assert generate(rootdir, 1, "--logdir", driver).returncode == 2
    options = ["--policy", "controller", "--logdir", driver]
    succeed(generate(rootdir, 1, *options))
    torch.manual_seed(2)
    save_checkpoint(driver / "ctrl" / "best.tar", {"state_dict": Controller().state_dict()})
    assert_one_line_error(generate(rootdir, 2, *options), rootdir / "generation.json", "--rootdir")
    for stage, script in (("ctrl", "traincontroller.py"), ("mdrnn", "trainmdrnn.py")):
        (driver / stage / "best.tar").rename(driver / stage / "gone.tar")
        assert_one_line_error(generate(tmp_path / "other", 1, *options), driver / stage / "best.tar", script)
        (driver / stage / "gone.tar").rename(driver / stage / "best.tar")


def test_exploration_noise_lasts_and_keeps_its_scale():
    noise = np.stack(
        [exploration_noise(np.random.default_rng(seed), CARRACING_SIZES, 1000, 0.3) for seed in range(300)]
    )
    assert noise.shape == (300, 1000, 3) and noise.dtype == np.float32
    deviations = noise.std(axis=(1, 2))
    assert deviations.max() < 0.36 and np.mean(deviations) == pytest.approx(0.15, rel=0.1)
    loud = noise[deviations > 0.1]
    assert np.corrcoef(loud[:, 1:].ravel(), loud[:, :-1].ravel())[0, 1] == pytest.approx(0.9, abs=0.02)
    assert not exploration_noise(np.random.default_rng(0), CARRACING_SIZES, 10, 0.0).any()


def test_generation_wrong_use(tmp_path):
    for wrong in (["--rollouts", "0"], ["--threads", "-1"], ["--noise", "-0.1"]):
        assert run("data/generation_script.py", "--rootdir", tmp_path / "data", *wrong).returncode == 2
    assert not (tmp_path / "data").exists()


def test_generation_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert_one_line_error(generate(tmp_path / "file" / "data", 1), tmp_path / "file")


def rollout(length: int, value: int = 0) -> Rollout:
    """A rollout whose every frame is `value` and whose rewards count up."""
    return Rollout(
        np.full((length, 64, 64, 3), value, np.uint8),
        np.zeros((length, 3), np.float32),
        np.arange(length, dtype=np.float32),
        np.arange(length) == length - 1,
    )


def make_dataset(folder: Path, lengths: list[int]) -> list[Path]:
    for number, length in enumerate(lengths):
        path = folder / f"thread_{number % 2}" / f"rollout_{number}.npz"
        save_rollout(path, pack_rollout(rollout(length, value=number)))
    return find_rollouts(folder)


def test_files_are_found_in_numerical_order(tmp_path):
    files = make_dataset(tmp_path, [1] * 12)
    assert [file.name for file in files] == [f"rollout_{number}.npz" for number in range(12)]


def test_split_is_deterministic_and_survives_growth():
    files = [Path(f"rollout_{number}.npz") for number in range(57)]
    train, test = split_rollouts(files)
    assert sorted(train + test) == sorted(files) and not set(train) & set(test)
    assert test == [Path(f"rollout_{number}.npz") for number in (9, 19, 29, 39, 49)]
    grown_train, grown_test = split_rollouts([*files, *(Path(f"rollout_{number}.npz") for number in range(57, 99))])
    assert set(train) <= set(grown_train) and set(test) <= set(grown_test)
    assert split_rollouts(files[:2]) == (files[:1], files[1:2])
    with_a_hole = split_rollouts(files[:13] + files[14:])
    assert with_a_hole == ([file for file in train if file != files[13]], test)
    own = [Path(f"drive_{letter}.npz") for letter in "abcdefghijkl"]
    assert split_rollouts(own)[1] == [own[9]]


def test_another_generation_moves_no_file_to_the_other_side(tmp_path):
    make_dataset(tmp_path / "round_0", [1] * 12)
    before = split_rollouts(find_rollouts(tmp_path))
    make_dataset(tmp_path / "round_1", [1] * 25)
    make_dataset(tmp_path, [1] * 10)
    files = find_rollouts(tmp_path)
    assert len(files) == 47
    train, test = split_rollouts(files)
    assert set(before[0]) <= set(train) and set(before[1]) <= set(test)
    assert [str(file.relative_to(tmp_path)) for file in test] == [
        "thread_1/rollout_9.npz",
        "round_0/thread_1/rollout_9.npz",
        "round_1/thread_1/rollout_9.npz",
        "round_1/thread_1/rollout_19.npz",
    ]


def test_one_rollout_is_on_both_sides(capsys):
    assert split_rollouts([Path("only.npz")]) == ([Path("only.npz")], [Path("only.npz")])
    assert "only.npz" in capsys.readouterr().err


def test_frames_are_bounded_and_chosen_by_seed_and_epoch(tmp_path):
    files = make_dataset(tmp_path, [30] * 10)

    def chosen(seed: int, epoch: int) -> list[int]:
        dataset.refill(seed, epoch)
        return dataset[torch.arange(len(dataset))][:, 0, 0, 0].tolist()

    dataset = FrameDataset(files, limit=100)
    assert len(chosen(0, 1)) == 100 == len(dataset.frames)
    assert chosen(0, 1) == chosen(0, 1) != chosen(0, 2) != chosen(1, 2)
    seen = {value for epoch in range(20) for value in chosen(0, epoch)}
    assert seen == set(range(10))  # every file has its turn
    assert dataset[3].shape == (64, 64, 3) and dataset[torch.tensor([1, 2])].shape == (2, 64, 64, 3)

    dataset = FrameDataset(files, limit=1000)
    assert chosen(0, 1) == chosen(0, 2) == sorted(list(range(10)) * 30)  # all of them, in one order


def fake_encoder(rollout):
    """mu is the frame's value, sigma one hundredth."""
    (frames,) = load_rollout(rollout, ("observations",))
    mu = torch.from_numpy(frames)[:, 0, 0, :1].half().expand(-1, 32)
    return torch.stack([mu, torch.full_like(mu, 0.01).log()])


def test_no_rollout_is_encoded_twice(generated, tmp_path):
    """But one that has changed is, and what another V saw is removed."""
    (rollout, *_) = find_rollouts(Path(shutil.copytree(generated, tmp_path / "d")))
    torch.manual_seed(0)
    vae = VAE().eval()
    see = KeptLatents(tmp_path / "latents", "one", vae, CPU, torch.float32)
    latents = see(rollout)
    expected = encode(vae, torch.from_numpy(load_rollout(rollout, ("observations",))[0]), CPU, torch.float32)
    assert torch.equal(latents, torch.stack(expected).half())
    (kept,) = (tmp_path / "latents").rglob("*.npz")
    with torch.no_grad():
        vae.encoder.fc_mu.bias += 1
    assert torch.equal(see(rollout), latents)  # V was not asked again
    kept.write_bytes(kept.read_bytes()[:100])  # damaged
    torch.testing.assert_close(see(rollout)[0], latents[0] + 1, atol=0.01, rtol=0)
    os.utime(rollout)
    see(rollout)
    assert len(list((tmp_path / "latents").rglob("*.npz"))) == 2
    KeptLatents(tmp_path / "latents", "other", vae, CPU, torch.float32)
    assert not list((tmp_path / "latents").rglob("*.npz"))


@pytest.mark.parametrize("length", [32, 50])
def test_sequences_of_rollouts_of_different_lengths(tmp_path, length):
    lengths = [100, 1, 32, 33, 7]
    dataset = LatentDataset(make_dataset(tmp_path, lengths), CARRACING_SIZES, fake_encoder, length)
    for shift in (0, 1, 13, length - 1):
        dataset.cut(shift)
        batch = dataset[torch.arange(len(dataset))]
        assert batch.latents.shape == batch.next_latents.shape == (length, len(dataset), 32)
        seen = {
            (round(value.item()), int(step))
            for value, step, real in zip(
                batch.latents[..., 0].flatten(), batch.rewards.flatten(), batch.real.flatten(), strict=True
            )
            if real
        }
        assert seen == {(number, step) for number, length in enumerate(lengths) for step in range(length)}
        # The next latent is of the same rollout; a rollout's last step has none, and only that is terminal.
        step_ends = torch.tensor(lengths)[batch.latents[..., 0].round().long()] - 1
        assert (batch.has_next == (batch.real & (batch.rewards < step_ends))).all()
        assert (batch.terminals[batch.real] == (batch.rewards == step_ends)[batch.real]).all()
        assert ((batch.next_latents - batch.latents)[batch.has_next].abs() < 0.2).all()


def test_failures_are_seen_more_often(tmp_path):
    """The last steps of a rollout that was given up, so many times more than without."""
    files = make_dataset(tmp_path, [500, 400, 300])
    arrays = load_rollout(files[0], Rollout._fields)
    save_rollout(files[0], pack_rollout(Rollout(*arrays[:3], np.zeros(500, bool))))  # it did not end by itself

    def seen(failures: int, max_steps: int, shift: int) -> torch.Tensor:
        dataset = LatentDataset(files, CARRACING_SIZES, fake_encoder, 32, failures, max_steps)
        dataset.cut(shift)
        batch = dataset[torch.arange(len(dataset))]
        assert (
            batch.has_next == (batch.real & (batch.rewards < torch.tensor([499.0, 399, 299])[rollout(batch)]))
        ).all()
        return torch.bincount((1000 * rollout(batch) + batch.rewards.long())[batch.real], minlength=3000)

    def rollout(batch):
        return batch.latents[..., 0].round().long()

    for shift in (0, 13):
        more = seen(2, 1000, shift) - seen(0, 1000, shift)
        assert (more[500 - FAILURE_LENGTH : 500] == 2).all()
        assert not more[: 500 - FAILURE_LENGTH - 32].any() and not more[500:].any()
        assert (seen(2, 500, shift) == seen(0, 500, shift)).all()  # at the limit of steps it was not given up


def test_latents_are_drawn_anew_and_follow_the_seed(tmp_path):
    dataset = LatentDataset(make_dataset(tmp_path, [64]), CARRACING_SIZES, fake_encoder, 32)
    index = torch.arange(2)
    torch.manual_seed(0)
    first, second = dataset[index].latents, dataset[index].latents
    torch.manual_seed(0)
    assert (dataset[index].latents == first).all() and not (first == second).any()
    assert (first - second).std() == pytest.approx(0.01 * 2**0.5, rel=0.1)


def test_latents_take_little_memory(tmp_path):
    dataset = LatentDataset(make_dataset(tmp_path, [100] * 3), CARRACING_SIZES, fake_encoder, 32)
    held = sum(value.nbytes for value in vars(dataset).values() if isinstance(value, torch.Tensor))
    assert held / 300 < 160


@pytest.mark.parametrize("keys", [("observations",), Rollout._fields])
def test_bad_files_are_named_with_the_mending_command(keys, tmp_path):
    make_dataset(tmp_path, [300])
    path = tmp_path / "thread_0" / "rollout_0.npz"
    whole = path.read_bytes()
    bad = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "a byte wrong": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
        "no archive": b"hello" * 1000,
    }
    for content in bad.values():
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: .*generation_script.py.*--rootdir {tmp_path}"):
            load_rollout(path, keys)
    for arrays in ({"frames": np.zeros(3)}, dict.fromkeys(Rollout._fields, np.zeros((3, 96, 96, 3)))):
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=f"{path}: not a rollout .*generation_script.py"):
            load_rollout(path, keys)


def test_arrays_of_different_lengths_are_no_rollout(tmp_path):
    make_dataset(tmp_path, [300])
    (path,) = find_rollouts(tmp_path)
    with np.load(path) as file:
        np.savez(path, **(dict(file) | {"observations": file["observations"][:299]}))
    for read in (
        lambda: FrameDataset([path], 1000),
        lambda: LatentDataset([path], CARRACING_SIZES, lambda path: torch.zeros(2, 299, 32), 32),
    ):
        with pytest.raises(UserError, match=rf"{path}: not a rollout \(299 observations, 300 .*generation_script.py"):
            read()


def test_rollouts_of_ones_own(tmp_path):
    path, plain = tmp_path / "drive.npz", rollout(5)._asdict()
    np.savez(path, **plain | {"actions": np.full((5, 3), 0.1), "rewards": np.arange(5), "terminals": np.zeros(5, int)})
    converted = Rollout(*load_rollout(path, Rollout._fields))
    assert [array.dtype for array in converted] == [np.uint8, np.float32, np.float32, np.bool_]
    assert (converted.actions == np.float32(0.1)).all() and (converted.rewards == np.arange(5)).all()
    for key, other in (
        ("observations", np.full((5, 64, 64, 3), 0.5)),  # in [0, 1]: as uint8 all would be black
        ("rewards", np.array(["1"] * 5)),
    ):
        np.savez(path, **plain | {key: other})
        with pytest.raises(UserError, match=rf"{path}: not a rollout \({key} has type"):
            load_rollout(path, Rollout._fields)
    np.savez(path, **plain | {"rewards": np.full(5, 1e300)})
    with pytest.raises(UserError, match="rewards has numbers that are NaN or infinite"):
        load_rollout(path, Rollout._fields)


def test_kept_latents_are_no_rollouts(tmp_path):
    files = make_dataset(tmp_path, [1, 1])
    kept = tmp_path / "run" / "mdrnn" / "latents" / "0123_float32_npz" / "4567.npz"
    kept.parent.mkdir(parents=True)
    np.savez(kept, latents=np.zeros((2, 1, 32)))
    assert find_rollouts(tmp_path) == files


def test_missing_and_empty_datasets(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match=f"{folder}: no rollouts.*generation_script.py --rootdir {folder}"):
            find_rollouts(folder)


def test_other_rollouts_under_the_same_names_have_another_name(tmp_path):
    names = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        succeed(generate(tmp_path / folder, 1, "--seed", seed))
        names.append(name_rollouts(find_rollouts(tmp_path / folder), tmp_path / folder))
    assert names[0] == names[1] != names[2]
