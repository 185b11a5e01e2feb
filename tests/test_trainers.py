"""trainvae.py and trainmdrnn.py as a user runs them, stopped and disturbed in all ways."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import assert_one_line_error, largest_file, run, start, succeed, wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.loaders import find_rollouts, load_rollout
from data.rollouts import Rollout, pack_rollout, save_rollout
from envs.dream import DreamSettings
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.run_folder import load_dreams, load_mdrnn, load_vae
from utils.training_run import PLATEAU_PATIENCE, WARM_UP, TrainingRun, rate_factor

STAGES = [("trainvae.py", "vae"), ("trainmdrnn.py", "mdrnn")]
both_trainers = pytest.mark.parametrize(("script", "stage"), STAGES)


def checkpoint(logdir: Path, stage: str) -> dict:
    return load_checkpoint(logdir / stage / "checkpoint.tar", "")


def assert_equal_weights(first: dict, second: dict) -> None:
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name


def curves(folder: Path) -> dict[str, list[int]]:
    """The steps that TensorBoard shows, by tag."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_first_epoch_leaves_all_that_is_promised(trained):
    pictures = {"vae": ["sample_1.png", "reconstruction_1.png"], "mdrnn": ["dream_1.png"]}
    terms = {"vae": ["reconstruction", "divergence"], "mdrnn": ["gmm", "terminal", "reward"]}
    load_vae(trained), load_mdrnn(trained)
    for stage in ("vae", "mdrnn"):
        for name in ("best.tar", "checkpoint.tar"):
            state = load_checkpoint(trained / stage / name, "")
            assert {"state_dict", "epoch", "precision", "optimizer", "scheduler", "earlystopping"} <= state.keys()
            assert state["epoch"] == 1
        for name in pictures[stage]:
            assert (trained / stage / "samples" / name).stat().st_size > 1000
        assert (trained / stage / "curve.png").stat().st_size > 1000
        expected = {"loss/train", "loss/test", "learning_rate"}
        expected |= {f"loss/{term}_{side}" for term in terms[stage] for side in ("train", "test")}
        assert curves(trained / stage) == dict.fromkeys(expected, [1])
        images = EventAccumulator(str(trained / stage)).Reload().Tags()["images"]
        assert set(images) == {name.removesuffix("_1.png") for name in pictures[stage]}


@both_trainers
def test_two_runs_end_where_one_does(script, stage, tiny_run, tiny_dataset, tmp_path):
    options = ["--dataset", tiny_dataset, "--epochs", 2]
    assert "after epoch 1" in succeed(run(script, "--logdir", tiny_run, *options))
    straight = tmp_path / "straight"
    if stage == "mdrnn":
        shutil.copytree(tiny_run / "vae", straight / "vae")
    succeed(run(script, "--logdir", straight, "--nosamples", *options))
    resumed, expected = checkpoint(tiny_run, stage), checkpoint(straight, stage)
    assert_equal_weights(resumed, expected)
    for key in ("epoch", "precision", "scheduler", "earlystopping", "history"):
        assert resumed[key] == expected[key], key
    assert curves(tiny_run / stage) == curves(straight / stage)
    assert not (straight / stage / "samples").exists()


@both_trainers
def test_complete_training_is_left_alone_and_noreload_starts_over(script, stage, tiny_run, tiny_dataset):
    path = tiny_run / stage / "checkpoint.tar"
    before, first = path.stat().st_mtime_ns, checkpoint(tiny_run, stage)
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--epochs", 1]
    assert "complete" in succeed(run(script, *options))
    assert path.stat().st_mtime_ns == before
    assert "epoch 1:" in succeed(run(script, *options, "--noreload"))
    assert path.stat().st_mtime_ns != before
    again = checkpoint(tiny_run, stage)
    assert again["epoch"] == 1
    assert_equal_weights(first, again)
    assert curves(tiny_run / stage)["loss/test"] == [1]


@both_trainers
def test_other_test_data_make_the_old_best_worthless(script, stage, tiny_run, tiny_dataset, tmp_path):
    state = checkpoint(tiny_run, stage)
    state["earlystopping"]["best"] = -1e9  # better than any epoch can be
    first_rate, state["optimizer"]["param_groups"][0]["lr"] = state["history"][0]["learning_rate"], 1e-5
    save_checkpoint(tiny_run / stage / "checkpoint.tar", state)
    options = ["--logdir", tiny_run, "--nosamples"]
    assert "count" not in succeed(run(script, *options, "--dataset", tiny_dataset, "--epochs", 2))
    assert load_checkpoint(tiny_run / stage / "best.tar", "")["epoch"] == 1

    grown = tmp_path / "grown"
    shutil.copytree(tiny_dataset, grown / "round_0")
    shutil.copytree(tiny_dataset, grown / "round_1")
    complete = run(script, *options, "--dataset", grown, "--epochs", 2)
    assert complete.returncode == 1 and "with other data" in complete.stderr  # not: training is complete
    assert "does not count any more" in succeed(run(script, *options, "--dataset", grown, "--epochs", 3))
    best = load_checkpoint(tiny_run / stage / "best.tar", "")
    assert best["epoch"] == 3 and best["earlystopping"]["best"] == best["precision"]
    assert [row["learning_rate"] for row in best["history"]] == [first_rate, 1e-5, first_rate]


@both_trainers
def test_another_learning_rate_is_gone_on_with(script, stage, tiny_run, tiny_dataset):
    state = checkpoint(tiny_run, stage)
    state["optimizer"]["param_groups"][0]["lr"] = 1e-5  # has been halved
    save_checkpoint(tiny_run / stage / "checkpoint.tar", state)
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--nosamples", "--learning-rate", 1e-3]
    succeed(run(script, *options, "--epochs", 2))
    succeed(run(script, *options, "--epochs", 3))
    rates = [row["learning_rate"] for row in checkpoint(tiny_run, stage)["history"]]
    assert rates == [state["history"][0]["learning_rate"], 1e-3, 1e-3]


def test_the_divergence_counts_as_much_as_it_is_told_to(tiny_run, tiny_dataset):
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--nosamples"]
    assert "does not count any more" in succeed(run("trainvae.py", *options, "--epochs", 2, "--kl-weight", 5))
    rows = checkpoint(tiny_run, "vae")["history"]
    for row, weight in zip(rows, [1, 5], strict=True):
        for side in ("train", "test"):
            expected = row[f"loss/reconstruction_{side}"] + weight * row[f"loss/divergence_{side}"]
            assert row[f"loss/{side}"] == pytest.approx(expected)
    # Trained from the same start, the latent says less where that costs more.
    divergences = []
    for weight in (0, 5):
        succeed(run("trainvae.py", *options, "--epochs", 2, "--kl-weight", weight, "--noreload"))
        divergences.append(checkpoint(tiny_run, "vae")["history"][-1]["loss/divergence_test"])
    assert divergences[0] > 2 * divergences[1]


@both_trainers
def test_no_epochs_leave_an_untrained_model(script, stage, tiny_run, tiny_dataset):
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset]
    trained = checkpoint(tiny_run, stage)
    assert "complete" in succeed(run(script, *options, "--epochs", 0))
    assert checkpoint(tiny_run, stage)["epoch"] == 1  # what is trained is not lost
    succeed(run(script, *options, "--epochs", 0, "--noreload"))
    best = load_checkpoint(tiny_run / stage / "best.tar", "")
    assert best["epoch"] == 0 and not best["history"]
    succeed(run(script, *options, "--epochs", 1))
    assert_equal_weights(checkpoint(tiny_run, stage), trained)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "stage", "stop"),
    [
        *[(*stage, signal.SIGKILL) for stage in STAGES],
        (*STAGES[0], signal.SIGTERM),  # what answers the other signals is the same for both; Ctrl-C: test_chaos.py
    ],
)
def test_a_stopped_run_goes_on(script, stage, stop, tiny_run, tiny_dataset):
    path = tiny_run / stage / "checkpoint.tar"
    before = path.stat().st_mtime_ns
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--nosamples"]
    with start(script, *options, "--epochs", 1000) as process:
        wait_until(lambda: path.stat().st_mtime_ns != before)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=30)
    if stop == signal.SIGKILL:
        done = checkpoint(tiny_run, stage)["epoch"]
        assert done >= 2
        assert f"epoch {done + 1}:" in succeed(run(script, *options, "--epochs", done + 1))
        state = checkpoint(tiny_run, stage)
        assert state["epoch"] == len(state["history"]) == done + 1
        assert curves(tiny_run / stage)["loss/test"] == list(range(1, done + 2))
    else:
        assert process.returncode == 130
        assert "same command again" in errors and "Traceback" not in errors
        assert checkpoint(tiny_run, stage)["epoch"] >= 2
        assert not list((tiny_run / stage).glob(".*"))  # no temporary file is left


@both_trainers
def test_a_full_disk_keeps_the_old_checkpoint(script, stage, tiny_run, tiny_dataset):
    path = tiny_run / stage / "checkpoint.tar"
    before = path.read_bytes()
    with largest_file(1_000_000):
        result = run(script, "--logdir", tiny_run, "--dataset", tiny_dataset, "--epochs", 2)
    assert_one_line_error(result, tiny_run / stage, "cannot be written", "free some space")
    assert path.read_bytes() == before


@both_trainers
def test_a_damaged_checkpoint(script, stage, tiny_run, tiny_dataset):
    path = tiny_run / stage / "checkpoint.tar"
    path.write_bytes(path.read_bytes()[:100_000])
    result = run(script, "--logdir", tiny_run, "--dataset", tiny_dataset)
    assert_one_line_error(result, path, "--noreload")


@both_trainers
def test_bad_datasets(script, stage, tiny_run, tiny_dataset, tmp_path):
    shutil.rmtree(tiny_run / "mdrnn")
    result = run(script, "--logdir", tiny_run, "--dataset", tmp_path / "none", "--epochs", 2)
    assert_one_line_error(result, tmp_path / "none", "generation_script.py")

    dataset = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    truncated = find_rollouts(dataset)[1]
    truncated.write_bytes(truncated.read_bytes()[:5000])
    result = run(script, "--logdir", tiny_run, "--dataset", dataset, "--epochs", 2)
    assert_one_line_error(result, truncated, "generation_script.py")


def test_trainmdrnn_without_vae(tiny_dataset, tmp_path):
    result = run("trainmdrnn.py", "--logdir", tmp_path, "--dataset", tiny_dataset)
    assert_one_line_error(result, tmp_path / "vae" / "best.tar", f"trainvae.py --logdir {tmp_path}")


@both_trainers
def test_a_logdir_that_cannot_be_written(script, stage, trained, tiny_dataset, tmp_path):
    logdir = tmp_path / "run"
    shutil.copytree(trained / "vae", logdir / "vae")
    shutil.rmtree(logdir / stage, ignore_errors=True)
    (logdir / stage).write_text("a file where a folder should be")
    result = run(script, "--logdir", logdir, "--dataset", tiny_dataset)
    assert_one_line_error(result, logdir / stage)


def test_wrong_use(tmp_path):
    assert run("trainvae.py").returncode == 2
    assert run("trainmdrnn.py", "--logdir", tmp_path / "run", "--epochs", "-3").returncode == 2
    assert not (tmp_path / "run").exists()


def test_one_short_rollout_and_all_options(tiny_dataset, tmp_path):
    arrays = load_rollout(find_rollouts(tiny_dataset)[0], Rollout._fields)
    short = pack_rollout(Rollout(*(array[:9] for array in arrays)))
    save_rollout(tmp_path / "data" / "thread_0" / "rollout_0.npz", short)
    options = ["--logdir", tmp_path / "run", "--dataset", tmp_path / "data", "--epochs", 1, "--float32", "--seed", 5]
    result = run("trainvae.py", *options, "--batch-size", 4, "--device", "cpu")
    assert "epoch 1" in succeed(result) and "only rollout" in result.stderr
    assert "epoch 1" in succeed(run("trainmdrnn.py", *options, "--include_reward", "--device", "cpu"))
    row = checkpoint(tmp_path / "run", "mdrnn")["history"][0]
    total = row["loss/gmm_test"] + row["loss/terminal_test"] + row["loss/reward_test"]
    assert row["loss/test"] == pytest.approx(total / 34)


@pytest.mark.parametrize("shipped", [True, False])
def test_head_only_leaves_the_lstm_and_makes_a_dream_of_m(shipped, tiny_run, tiny_dataset):
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--nosamples"]
    before = load_mdrnn(tiny_run).state_dict()
    last = tiny_run / "mdrnn" / "checkpoint.tar"
    if shipped:
        last.unlink()
    else:  # the last epoch was not the best
        state = load_checkpoint(last, "")
        save_checkpoint(last, state | {"state_dict": {name: 1.01 * value for name, value in before.items()}})
    succeed(run("trainmdrnn.py", *options, "--epochs", 2, "--include_reward", "--head-only"))
    load_dreams(tiny_run, DreamSettings())
    for name, weight in load_mdrnn(tiny_run).state_dict().items():
        assert torch.equal(weight, before[name]) == name.startswith("rnn."), name


def test_head_only_wants_an_m(tiny_run, tiny_dataset):
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--head-only"]
    again = run("trainmdrnn.py", *options, "--noreload")
    shutil.rmtree(tiny_run / "mdrnn")
    for result in (again, run("trainmdrnn.py", *options)):
        assert result.returncode == 2 and str(tiny_run / "mdrnn") in result.stderr.splitlines()[-1]


def test_the_learning_rate_rises_once_and_falls_in_every_epoch():
    first, second = ([rate_factor(epoch, step, 1000) for step in range(1000)] for epoch in (0, 1))
    assert first[0] == 1 / WARM_UP and second[0] == 1
    assert first[WARM_UP:] == second[WARM_UP:]
    for factors in (first, second):
        peak = factors.index(1)
        assert max(factors) == 1 and 0 < factors[-1] < 0.01
        assert factors[:peak] == sorted(factors[:peak]) and factors[peak:] == sorted(factors[peak:], reverse=True)
    # Of epochs shorter than the rise each begins where the last one ended.
    assert [rate_factor(epoch, 0, 10) * WARM_UP for epoch in range(3)] == pytest.approx([1, 11, 21])


@both_trainers
def test_no_epochs_leave_a_trained_model_as_it_is(script, stage, tiny_run, tiny_dataset):
    (tiny_run / stage / "checkpoint.tar").unlink()
    best = tiny_run / stage / "best.tar"
    state = load_checkpoint(best, "")
    state.pop("optimizer")  # as in a shipped folder
    save_checkpoint(best, state)
    before = best.read_bytes()
    assert "complete" in succeed(run(script, "--logdir", tiny_run, "--dataset", tiny_dataset, "--epochs", 0))
    assert best.read_bytes() == before


@both_trainers
def test_training_goes_on_from_the_optimizer_of_an_older_pytorch(script, stage, tiny_run, tiny_dataset):
    state = checkpoint(tiny_run, stage)
    (group,) = state["optimizer"]["param_groups"]
    group.pop("decoupled_weight_decay", None)  # which Adam has from 2.7 on
    save_checkpoint(tiny_run / stage / "checkpoint.tar", state)
    options = ["--logdir", tiny_run, "--dataset", tiny_dataset, "--nosamples", "--epochs", 2]
    assert "going on after epoch 1" in succeed(run(script, *options))
    assert len(checkpoint(tiny_run, stage)["history"]) == 2


@pytest.mark.parametrize("optimizer", [None, torch.optim.RMSprop])
@both_trainers
def test_training_goes_on_from_weights_alone(script, stage, optimizer, tiny_run, tiny_dataset):
    """As a shipped model has no optimizer, and M of the 2018 implementation another one."""
    state = checkpoint(tiny_run, stage)
    (tiny_run / stage / "checkpoint.tar").unlink()
    state["optimizer"] = optimizer([torch.nn.Parameter(torch.zeros(3))]).state_dict() if optimizer else None
    save_checkpoint(tiny_run / stage / "best.tar", {key: value for key, value in state.items() if value is not None})
    output = succeed(run(script, "--logdir", tiny_run, "--dataset", tiny_dataset, "--epochs", 1))
    assert "a new training begins at them" in output
    again = checkpoint(tiny_run, stage)
    assert again["epoch"] == 1 and again["precision"] < state["precision"]


@pytest.mark.parametrize("best", [30.0, -1.0])
def test_the_learning_rate_is_halved_when_the_test_loss_stalls(best, tmp_path):
    """Below 0, as M's loss goes, as well as above."""
    model = torch.nn.Linear(1, 1)
    training = TrainingRun(tmp_path, model, torch.optim.Adam(model.parameters(), lr=1.0), "the same in all epochs", {})
    (group,) = training.optimizer.param_groups
    for worse in range(PLATEAU_PATIENCE + 1):
        training.finish_epoch({"loss/test": best + 1e-5 * worse})
        assert group["lr"] == 1
    training.finish_epoch({"loss/test": best + 1e-5})
    assert group["lr"] == 0.5
    assert torch.load(tmp_path / "best.tar")["epoch"] == 1

    # A run of other constants goes on with today's.
    state = load_checkpoint(tmp_path / "checkpoint.tar", "")
    state["scheduler"] |= {"threshold": 1e-4, "patience": 1}
    save_checkpoint(tmp_path / "checkpoint.tar", state)
    resumed = TrainingRun(tmp_path, model, torch.optim.Adam(model.parameters(), lr=1.0), "the same in all epochs", {})
    assert resumed.resume()
    assert (resumed.scheduler.threshold, resumed.scheduler.patience) == (0, PLATEAU_PATIENCE)
    assert resumed.scheduler.state_dict() == training.scheduler.state_dict()
