"""Files that are damaged or lie about themselves: refused by one line, at no cost in memory."""

import io
import re
import resource
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_readers import LARGEST, fuzz

from data.loaders import load_rollout
from data.rollouts import Rollout, pack_rollout
from models.mdrnn import MDRNN
from models.sizes import CARRACING_SIZES
from utils.archives import DamagedFile, read_arrays
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.commandline import UserError
from utils.run_folder import load_mdrnn


def peak() -> int:
    """The most memory that this process has taken so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_damaged_files_load_to_equal_values_or_are_refused_by_one_line(tmp_path):
    """The short form of tests/fuzz_readers.py."""
    report = fuzz(tmp_path, files=420, seed=1)
    assert not report.mistakes
    assert report.memory < LARGEST
    outcomes = {outcome for _, _, outcome in report.counts}
    assert outcomes == {"equal", "other values", "refused"}


def test_a_flipped_bit_of_a_weight_is_noticed(tmp_path):
    """torch.load itself does not notice."""
    path = tmp_path / "best.tar"
    weights = torch.arange(1000.0)
    save_checkpoint(path, {"state_dict": {"weights": weights}})
    content = bytearray(path.read_bytes())
    content[content.find(weights[500:510].numpy().tobytes())] ^= 64
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["state_dict"]["weights"], weights)
    with pytest.raises(UserError, match=f"{path}: damaged checkpoint .*checksum.*; the remedy"):
        load_checkpoint(path, "the remedy")


def test_a_small_file_cannot_become_a_large_one(tmp_path):
    """Zeros, compressed by a factor of a thousand: in a rollout that says so, in one that does not, in a checkpoint."""
    huge, path = 600 << 20, tmp_path / "rollout_0.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("rewards.npy", "w") as stream,
    ):
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (huge // 4 - 32,)}
        )
        for _ in range(huge >> 24):
            stream.write(bytes(1 << 24))
    before = peak()
    with pytest.raises(UserError, match=f"{path}: .*claims"):
        load_rollout(path, ("rewards",))
    content = path.read_bytes()
    (size,) = {info.file_size for info in zipfile.ZipFile(path).infolist()}
    for where in (content.rfind(size.to_bytes(4, "little")), content.find(size.to_bytes(4, "little"))):
        if where >= 0:
            content = content[:where] + (1000).to_bytes(4, "little") + content[where + 4 :]
    path.write_bytes(content)
    with pytest.raises(DamagedFile):
        read_arrays(path, ("rewards",))
    path.rename(tmp_path / "best.tar")
    with pytest.raises(UserError, match="compressed"):
        load_checkpoint(tmp_path / "best.tar", "")
    assert peak() - before < 100 << 20


def test_shapes_and_sizes_that_lie_cost_no_memory(tmp_path):
    rollout = Rollout(
        np.zeros((3, 64, 64, 3), np.uint8), np.zeros((3, 3), np.float32), np.zeros(3, np.float32), np.zeros(3, bool)
    )
    lying = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pack_rollout(rollout))) as whole, zipfile.ZipFile(lying, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, re.sub(rb"'shape': \(3,", b"'shape': (999999999,", whole.read(name)))
    path = tmp_path / "rollout_0.npz"
    path.write_bytes(lying.getvalue())
    before = peak()
    with pytest.raises(UserError, match=f"{path}: .*claims to be"):
        load_rollout(path, Rollout._fields)
    sizes = replace(CARRACING_SIZES, hidden=1 << 20)
    path = tmp_path / "mdrnn" / "best.tar"
    save_checkpoint(path, {"state_dict": MDRNN().state_dict(), "sizes": sizes.to_dict()})
    with pytest.raises(UserError, match=f"{path}: its weights do not fit the model"):
        load_mdrnn(Path(tmp_path))
    save_checkpoint(path, {"state_dict": {"gmm_linear.bias": torch.zeros(1).expand(1 << 40)}})
    with pytest.raises(UserError, match=f"{path}: damaged checkpoint .*claims"):
        load_mdrnn(Path(tmp_path))
    assert peak() - before < 100 << 20
