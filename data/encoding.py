"""Rollouts as V sees them."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.loaders import load_rollout
from models.vae import VAE
from utils.archives import DamagedFile, read_arrays
from utils.files import write_atomically
from utils.precision import autocast

BATCH = 250  # frames


@torch.no_grad()
def encode(vae: VAE, frames: Tensor, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Frames (T, 64, 64, 3) uint8 -> mu and logsigma (T, L) float32; V is on `device` and computes in `dtype`."""
    parts = []
    for batch in frames.split(BATCH):
        images = batch.to(device).permute(0, 3, 1, 2).to(dtype) / 255
        with autocast(device, dtype):
            parts.append(torch.stack(vae.encoder(images)).float())
    mu, logsigma = torch.cat(parts, dim=1)
    return mu, logsigma


class KeptLatents:
    """What V makes of rollouts, kept in a folder, so that none is encoded twice. 128 bytes a step for CarRacing."""

    def __init__(self, folder: Path, name: str, vae: VAE, device: torch.device, dtype: torch.dtype):
        """name: tells V from others, whose latents are removed. (npz files have a checksum.)"""
        self._folder = folder / f"{name}_{str(dtype).removeprefix('torch.')}_npz"
        self._vae, self._device, self._dtype = vae, device, dtype
        for old in folder.glob("*"):
            if old != self._folder and old.is_dir():
                shutil.rmtree(old)

    def __call__(self, rollout: Path) -> Tensor:
        """mu and logsigma (2, T, L) in half precision. Raises UserError if the rollout cannot be read, or the latents
        not be written."""
        facts = rollout.stat()
        digest = hashlib.sha256(f"{rollout.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:24]
        path = self._folder / f"{digest}.npz"
        try:
            return torch.from_numpy(*read_arrays(path, ("latents",)))
        except (OSError, KeyError, DamagedFile):  # not there yet, or damaged
            (frames,) = load_rollout(rollout, ("observations",), self._vae.sizes)
            latents = torch.stack(encode(self._vae, torch.from_numpy(frames), self._device, self._dtype)).half().cpu()
            write_atomically(path, lambda file: np.savez(file, latents=latents.numpy()))
            return latents
