"""Frames as V sees them."""

import torch
from torch import Tensor

from models.vae import VAE
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
