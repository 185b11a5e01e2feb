"""C, the controller: one linear layer from [z, h] to the action (paper, section 2.3)."""

import torch
from torch import Tensor, nn

from models.mdrnn import ACTION_SIZE, HIDDEN_SIZE
from models.vae import LATENT_SIZE


class Controller(nn.Module):
    """Latents (N, 32) and hidden states (N, 256) -> actions (N, 3) inside the action box."""

    def __init__(self, latent_size: int = LATENT_SIZE, hidden_size: int = HIDDEN_SIZE):
        super().__init__()
        self.fc = nn.Linear(latent_size + hidden_size, ACTION_SIZE)

    def forward(self, latents: Tensor, hidden: Tensor) -> Tensor:
        return bound_actions(self.fc(torch.cat([latents, hidden], dim=-1)))


def bound_actions(raw: Tensor) -> Tensor:
    """Any real numbers (..., 3) -> steering in [-1, 1], gas in [0, 1], brake in [0, 1].

    As the paper's code does. Zero means straight on, half gas and no brake, so that a controller of zeros
    already drives; and no candidate can differ from another only by how far it is outside the box.
    """
    squashed = raw.tanh()
    steering, gas, brake = squashed.unbind(dim=-1)
    return torch.stack([steering, (gas + 1) / 2, brake.clamp(min=0)], dim=-1)
