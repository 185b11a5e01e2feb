"""Where dreams begin: moments of real rollouts, as V and M see them, kept in M's checkpoint."""

import torch
from torch import Tensor

from data.loaders import LatentDataset
from models.mdrnn import MDRNN

COUNT = 512  # moments of each kind: where rollouts begin, and anywhere
WARM_UP = 60  # steps that M sees before a later moment; CarRacing's camera has come down by then
FORMATS = {"mu": torch.half, "logsigma": torch.half, "hidden": torch.half, "cell": torch.half, "steps": torch.int16}


@torch.no_grad()
def gather_starts(mdrnn: MDRNN, dataset: LatentDataset, device: torch.device) -> dict[str, Tensor]:
    """The fields of envs.dream.Starts for rollouts of all parts of a dataset: where they begin, and as many moments
    anywhere, always the same ones. (Half precision is enough.)"""
    rollouts = torch.linspace(0, len(dataset.lengths) - 1, min(COUNT, len(dataset.lengths))).long()
    parts = [_moments(mdrnn, dataset, rollouts, torch.zeros(len(rollouts), dtype=torch.long), device)]
    generator = torch.Generator().manual_seed(0)
    several = rollouts.repeat(-(-COUNT // len(rollouts)))[:COUNT]
    lengths = dataset.lengths[several]
    steps = WARM_UP + (torch.rand(len(several), generator=generator) * (lengths - WARM_UP)).long()
    long_enough = lengths > WARM_UP
    if long_enough.any():
        parts.append(_moments(mdrnn, dataset, several[long_enough], steps[long_enough], device))
    columns = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return {name: column.to(dtype) for (name, dtype), column in zip(FORMATS.items(), columns, strict=True)}


def _moments(
    mdrnn: MDRNN, dataset: LatentDataset, rollouts: Tensor, steps: Tensor, device: torch.device
) -> tuple[Tensor, ...]:
    """mu, logsigma, hidden, cell and steps of one moment (B,) of each of these rollouts (B,): all at the beginning, or
    none of them."""
    mu, logsigma, _ = dataset.at(rollouts, steps)
    hidden = cell = torch.zeros(len(rollouts), mdrnn.sizes.hidden, device=device)
    if steps.any():
        seen, _, actions = dataset.at(rollouts, steps - WARM_UP + torch.arange(WARM_UP)[:, None])
        _, (hidden, cell) = mdrnn(actions.to(device), seen.to(device))
        hidden, cell = hidden[0], cell[0]
    return mu, logsigma, hidden.float(), cell.float(), steps
