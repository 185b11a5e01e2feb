"""C, the controller: one linear layer from [z, h] to the action (paper, section 2.3), and what the paper compares it
with: without h, and with a hidden layer."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from models.mdrnn import ACTION_SIZE, HIDDEN_SIZE
from models.vae import LATENT_SIZE

# The action box: steering, gas, brake.
LOWEST_ACTION, HIGHEST_ACTION = (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Architecture:
    """What a controller sees and how it is built."""

    sees_memory: bool = True  # [z, h] or z alone
    hidden_units: int = 0  # tanh units between input and output; 0: none, a linear controller

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of every linear layer, from the first to the last."""
        inputs = LATENT_SIZE + HIDDEN_SIZE if self.sees_memory else LATENT_SIZE
        return list(pairwise([inputs, *([self.hidden_units] if self.hidden_units else []), ACTION_SIZE]))

    @property
    def size(self) -> int:
        """The number of parameters: 867 for the paper's controller."""
        return sum((inputs + 1) * outputs for inputs, outputs in self.layers)

    @classmethod
    def of(cls, state_dict: dict[str, Tensor]) -> "Architecture":
        """The architecture that these weights belong to. Raises KeyError or IndexError if they are no controller's."""
        inputs = state_dict["hidden.weight" if "hidden.weight" in state_dict else "fc.weight"].shape[1]
        hidden_units = len(state_dict["hidden.weight"]) if "hidden.weight" in state_dict else 0
        return cls(inputs != LATENT_SIZE, hidden_units)


class Controller(nn.Module):
    """Latents (N, 32) and, if it sees them, hidden states (N, 256) -> actions (N, 3) inside the action box."""

    def __init__(self, architecture: Architecture = Architecture()):
        super().__init__()
        self.architecture = architecture
        if architecture.hidden_units:
            self.hidden = nn.Linear(*architecture.layers[0])
        self.fc = nn.Linear(*architecture.layers[-1])

    def forward(self, latents: Tensor, hidden: Tensor) -> Tensor:
        x = torch.cat([latents, hidden], dim=-1) if self.architecture.sees_memory else latents
        if self.architecture.hidden_units:
            x = self.hidden(x).tanh()
        return bound_actions(self.fc(x))

    def to_vector(self) -> Tensor:
        """All parameters as one vector (size,): layer by layer the weight, row by row, then the bias."""
        return parameters_to_vector(self.parameters()).detach()

    @classmethod
    def from_vector(cls, architecture: Architecture, vector: Tensor) -> "Controller":
        """The controller that `to_vector` made the vector (size,) from."""
        controller = cls(architecture)
        vector_to_parameters(vector, controller.parameters())
        return controller


def drive_batch(architecture: Architecture, controllers: Tensor, inputs: Tensor) -> Tensor:
    """The actions (N, 3) of N controllers, each with an input of its own.

    controllers (N, size), a row as `Controller.to_vector` makes it; inputs (N, 288) or (N, 32).
    """
    x = inputs
    sizes = [size for count, outputs in architecture.layers for size in (count * outputs, outputs)]
    parameters = controllers.split(sizes, dim=1)
    for layer, (count, outputs) in enumerate(architecture.layers):
        weight, bias = parameters[2 * layer : 2 * layer + 2]
        x = ((x.tanh() if layer else x)[:, None] * weight.unflatten(1, (outputs, count))).sum(dim=-1) + bias
    return bound_actions(x)


def bound_actions(raw: Tensor) -> Tensor:
    """Any real numbers (..., 3) -> steering in [-1, 1], gas in [0, 1], brake in [0, 1].

    As the paper's code does. Zero means straight on, half gas and no brake, so that a controller of zeros
    already drives; and no candidate can differ from another only by how far it is outside the box.
    """
    squashed = raw.tanh()
    steering, gas, brake = squashed.unbind(dim=-1)
    return torch.stack([steering, (gas + 1) / 2, brake.clamp(min=0)], dim=-1)
