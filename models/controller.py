"""C, the controller: one linear layer from [z, h] to the action (paper, section 2.3), and what the paper compares it
with: other inputs, and a hidden layer."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from models.sizes import CARRACING_SIZES, CLIPPED, SHIFTED, Sizes


class Controller(nn.Module):
    """Latents (N, L), M's hidden and cell state (N, H), as far as it sees them -> actions (N, A) inside their box."""

    def __init__(self, sizes: Sizes = CARRACING_SIZES):
        super().__init__()
        self.sizes = sizes
        if sizes.hidden_units:
            self.hidden = nn.Linear(*sizes.layers[0])
        self.fc = nn.Linear(*sizes.layers[-1])

    def forward(self, latents: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        return bound_actions(self.outputs(controller_inputs(self.sizes, latents, hidden, cell)), self.sizes)

    def outputs(self, inputs: Tensor) -> Tensor:
        """What it makes of all that it sees (N, I), before that is bounded (N, A)."""
        return self.fc(self.hidden(inputs).tanh() if self.sizes.hidden_units else inputs)

    def to_vector(self) -> Tensor:
        """All parameters as one vector (P,): layer by layer the weight, row by row, then the bias."""
        return parameters_to_vector(self.parameters()).detach()

    @classmethod
    def from_vector(cls, sizes: Sizes, vector: Tensor) -> "Controller":
        """The controller that `to_vector` made the vector (P,) from."""
        controller = cls(sizes)
        vector_to_parameters(vector, controller.parameters())
        return controller


def zero_controller(sizes: Sizes) -> Controller:
    """A controller that puts out zeros. Its hidden units are random ones: zeros would be a saddle, where neither a
    mirrored pair nor a gradient says what to do with them."""
    controller = Controller(sizes)
    nn.init.zeros_(controller.fc.weight)
    nn.init.zeros_(controller.fc.bias)
    return controller


def controller_inputs(sizes: Sizes, latents: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
    """What C sees (N, I), of latents (N, L) and M's state (N, H) before the action."""
    return torch.cat([latents, hidden, cell][: len(sizes.inputs)], dim=-1)


def drive_batch(sizes: Sizes, controllers: Tensor, latents: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
    """The actions (N, A) of N controllers, each in a state of its own: latents (N, L), M's hidden and cell (N, H).

    controllers (N, P), a row as `Controller.to_vector` makes it.
    """
    x = controller_inputs(sizes, latents, hidden, cell)
    lengths = [length for count, outputs in sizes.layers for length in (count * outputs, outputs)]
    parameters = controllers.split(lengths, dim=1)
    for layer, (count, outputs) in enumerate(sizes.layers):
        weight, bias = parameters[2 * layer : 2 * layer + 2]
        x = ((x.tanh() if layer else x)[:, None] * weight.unflatten(1, (outputs, count))).sum(dim=-1) + bias
    return bound_actions(x, sizes)


def bound_actions(raw: Tensor, sizes: Sizes) -> Tensor:
    """Any real numbers (..., A) -> actions inside their box (sizes.RANGES), as the paper's code does.

    No candidate can differ from another only by how far it is outside the box. CarRacing's zeros mean straight on, half
    gas and no brake, so that a controller of zeros already drives.
    """
    squashed = list(raw.tanh().unbind(dim=-1))
    for i, output in enumerate(sizes.outputs):
        if output == SHIFTED:
            squashed[i] = (squashed[i] + 1) / 2
        elif output == CLIPPED:
            squashed[i] = squashed[i].clamp(min=0)
    return torch.stack(squashed, dim=-1)
