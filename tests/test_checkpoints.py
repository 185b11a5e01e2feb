"""Checkpoint files: whole or not at all, in both of PyTorch's formats, and never running code."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_one_line_error, largest_file, run, succeed

from models.controller import Controller
from models.mdrnn import MDRNN
from models.vae import VAE
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.commandline import UserError
from utils.files import write_atomically
from utils.run_folder import fingerprint, load_controller, load_mdrnn, load_vae


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_of_the_2018_implementation_load(zipped, tmp_path):
    """Its keys, its controller's reward as a NumPy scalar, and both the old file format and the new one."""
    models = {"vae": VAE(), "mdrnn": MDRNN(), "ctrl": Controller()}
    for name, model in models.items():
        (tmp_path / name).mkdir()
        more = (
            {"epoch": 7, "reward": np.float64(-823.5)}
            if name == "ctrl"
            else {
                "epoch": 7,
                "precision": 31.5,
                "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
                "scheduler": {"best": 31.5},
                "earlystopping": {"best": 31.5, "num_bad_epochs": 2},
            }
        )
        state = {"state_dict": model.state_dict()} | more
        torch.save(state, tmp_path / name / "best.tar", _use_new_zipfile_serialization=zipped)
    for name, load in (("vae", load_vae), ("mdrnn", load_mdrnn), ("ctrl", load_controller)):
        for key, value in load(tmp_path).state_dict().items():
            assert (value == models[name].state_dict()[key]).all()
    assert load_checkpoint(tmp_path / "ctrl" / "best.tar", "")["reward"] == -823.5


def test_a_numpy_scalar_of_numpy_1_loads(tmp_path):
    """NumPy 1 called the function that rebuilds a scalar numpy.core.multiarray.scalar."""
    path = tmp_path / "best.tar"
    state = {"state_dict": Controller().state_dict(), "epoch": 7, "reward": np.float64(2.5)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    path.write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert load_checkpoint(path, "")["reward"] == 2.5


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path):
        self._trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self._trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_checkpoints_run_no_code(zipped, tmp_path):
    path, trace = tmp_path / "best.tar", tmp_path / "trace"
    state = {"state_dict": Controller().state_dict(), "reward": Hostile(trace)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=f"{path}: .*; the remedy"):
        load_checkpoint(path, "the remedy")
    path.write_bytes(pickle.dumps(state))
    with pytest.raises(UserError, match=f"{path}: .*; the remedy"):
        load_checkpoint(path, "the remedy")
    assert not trace.exists()


def test_bad_checkpoints_are_one_clear_line(tmp_path):
    path = tmp_path / "vae" / "best.tar"
    with pytest.raises(UserError, match=f"{path}: no such file; .*trainvae.py --logdir {tmp_path}"):
        load_vae(tmp_path)
    save_checkpoint(path, {"state_dict": VAE().state_dict()})
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:1000], whole[: len(whole) // 2], whole[:-1000]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: .*trainvae.py") as caught:
            load_vae(tmp_path)
        assert "\n" not in str(caught.value)
    for state in ([1, 2], {"weights": 1}, {"state_dict": 3}, {"state_dict": Controller().state_dict()}):
        torch.save(state, path)
        with pytest.raises(UserError, match=f"{path}: .*trainvae.py") as caught:
            load_vae(tmp_path)
        assert "\n" not in str(caught.value)


def test_the_old_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "checkpoint.tar"
    save_checkpoint(path, {"state_dict": {"old": torch.zeros(3)}})

    def fail(file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=f"{path}: cannot be written .*No space left"):
        write_atomically(path, fail)
    assert load_checkpoint(path, "")["state_dict"]["old"].tolist() == [0, 0, 0]
    assert os.listdir(tmp_path) == ["checkpoint.tar"]


def test_the_old_checkpoint_stays_when_the_disk_is_full(tmp_path):
    """A limit on the size of files makes the real torch.save fail in its midst, as a full disk does."""
    path = tmp_path / "checkpoint.tar"
    save_checkpoint(path, {"state_dict": {"old": torch.zeros(3)}})
    with pytest.raises(UserError, match=f"{path}: cannot be written"), largest_file(100_000):
        save_checkpoint(path, {"state_dict": {"new": torch.zeros(1_000_000)}})
    assert load_checkpoint(path, "")["state_dict"]["old"].tolist() == [0, 0, 0]
    assert os.listdir(tmp_path) == ["checkpoint.tar"]


def test_a_shipped_driver_is_small_and_complete(tmp_path):
    torch.manual_seed(0)
    models = {"vae": VAE(), "mdrnn": MDRNN(), "ctrl": Controller()}
    for stage, model in models.items():
        optimizer = torch.optim.Adam(model.parameters())
        state = {"state_dict": model.state_dict(), "epoch": 3, "reward": 1.0, "optimizer": optimizer.state_dict()}
        for name in ("best.tar", "checkpoint.tar"):
            save_checkpoint(tmp_path / "run" / stage / name, state)
    driver = load_checkpoint(tmp_path / "run" / "ctrl" / "checkpoint.tar", "")
    driver["measure"] = f"64 tracks with {fingerprint(tmp_path / 'run', 'vae', 'mdrnn')}"
    save_checkpoint(tmp_path / "run" / "ctrl" / "checkpoint.tar", driver)
    out = tmp_path / "out"
    succeed(run("-m", "utils.shipping", "--logdir", tmp_path / "run", "--out", out))
    for loaded, model in zip((load_vae(out), load_mdrnn(out), load_controller(out)), models.values(), strict=True):
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], weight, rtol=1e-3, atol=1e-6)
    assert all(path.stat().st_size < 16 * 2**20 for path in out.rglob("*.tar"))
    assert "optimizer" not in load_checkpoint(out / "vae" / "best.tar", "")
    measure = load_checkpoint(out / "ctrl" / "checkpoint.tar", "")["measure"]  # still that of the V and M beside it
    assert measure == f"64 tracks with {fingerprint(out, 'vae', 'mdrnn')}"
    lost = run("-m", "utils.shipping", "--logdir", tmp_path / "none", "--out", out)
    assert_one_line_error(lost, tmp_path / "none" / "vae" / "best.tar")
