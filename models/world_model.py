"""V, M and C as one batched step: frames in, actions out.

Made for driving many episodes at once: every one has its own controller, all share V and M. The decoder and M's mixture
head have no say in the action and are left out.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.controller import drive_batch
from models.mdrnn import MDRNN
from models.sizes import Sizes
from models.vae import FRAME_SIZE, VAE, Encoder

# Processors choose other kernels for few rows than for many, with other roundings. In batches of full multiples of
# this, an episode's outcome does not depend on how many others run beside it.
BATCH_MULTIPLE = 16


def padded(rows: int) -> int:
    """The next full multiple of BATCH_MULTIPLE."""
    return -(-rows // BATCH_MULTIPLE) * BATCH_MULTIPLE


class Weights(NamedTuple):
    """What a worker, here or on another machine, is sent of V and M, for controllers of these sizes."""

    sizes: Sizes
    parameters: dict[str, np.ndarray]  # by name, those of the encoder and of the LSTM


def world_weights(sizes: Sizes, vae: VAE, mdrnn: MDRNN | None) -> Weights:
    """Of V and M what it takes to drive; controllers that do not see M's state do without it (None)."""
    parameters = {name: weight for name, weight in vae.state_dict().items() if name.startswith("encoder.")}
    if mdrnn is not None:
        parameters |= {name: weight for name, weight in mdrnn.state_dict().items() if name.startswith("rnn.")}
    return Weights(sizes, {name: weight.cpu().numpy() for name, weight in parameters.items()})


class WorldModel:
    """The models ready to drive on `device`; V's encoder computes in `dtype`, the rest in float32.

    A moment is `encode`, `act` and `remember` in turn, or all of them as `step`. Where no M is among the weights, none
    of them touches M's state.
    """

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype):
        self.device = device
        self.sizes = sizes = weights.sizes
        self._dtype = dtype
        self._box = [torch.tensor(bound, device=device) for bound in (sizes.lowest_action, sizes.highest_action)]
        parameters = {name: torch.from_numpy(weight) for name, weight in weights.parameters.items()}
        encoder = Encoder(sizes).eval()
        encoder.load_state_dict(
            {name.removeprefix("encoder."): weight for name, weight in parameters.items() if name[:4] != "rnn."}
        )
        # conv1 for frames as they come, 0 to 255, and in the layout in which it is fastest: two pixels side by side
        # become one of six channels, and its 4x4 kernel over three channels a 4x2 kernel over six.
        self._conv1_weight = (
            (encoder.conv1.weight.detach() / 255)
            .unflatten(3, (2, 2))  # (32, 3, 4, 2, 2): output, colour, row, pair, side
            .permute(0, 4, 1, 2, 3)
            .flatten(1, 2)
            .to(device, dtype, memory_format=torch.channels_last)
        )
        self._encoder = encoder.to(device, dtype).to(memory_format=torch.channels_last)
        # An LSTM cell takes the weights of the LSTM.
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        remembers = any(name.startswith("rnn.") for name in parameters)
        self._lstm = [parameters[f"rnn.{name}"].to(device) for name in names] if remembers else None

    def step(self, frames: Tensor, controllers: Tensor, hidden: Tensor, cell: Tensor, noise: Tensor) -> Tensor:
        """One moment of N episodes: the actions (N, A) for what is seen.

        frames (N, 64, 64, 3) uint8, on any device; controllers (N, P), see `drive_batch`; hidden and cell (N, H), M's
        state before this moment, are advanced in place to the state after it. noise (N, A) is added to the actions,
        which stay in their box.
        """
        latents = self.encode(frames)
        actions = self.act(latents, controllers, hidden, cell, noise)
        self.remember(actions, latents, hidden, cell)
        return actions

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """V's mu (N, L) float32 of frames (N, 64, 64, 3) uint8, on any device."""
        frames = frames.to(self.device, non_blocking=True)
        pairs = frames.view(len(frames), FRAME_SIZE, FRAME_SIZE // 2, 6).permute(0, 3, 1, 2).to(self._dtype)
        x = F.conv2d(pairs, self._conv1_weight, self._encoder.conv1.bias, stride=(2, 1))
        return self._encoder.fc_mu(self._encoder.upper_features(x)).float()

    @torch.inference_mode()
    def act(self, latents: Tensor, controllers: Tensor, hidden: Tensor, cell: Tensor, noise: Tensor) -> Tensor:
        """The actions (N, A) of N controllers in latents (N, L); the rest is as in `step`, but M's state stays."""
        actions = drive_batch(self.sizes, controllers, latents, hidden, cell)
        return (actions + noise).clamp(*self._box)

    @torch.inference_mode()
    def remember(self, actions: Tensor, latents: Tensor, hidden: Tensor, cell: Tensor) -> None:
        """Advance M's state (N, H) in place, past the moment of actions (N, A), whoever's, in latents (N, L)."""
        if self._lstm is not None:
            state = torch.lstm_cell(torch.cat([actions, latents], dim=1), (hidden, cell), *self._lstm)
            hidden.copy_(state[0])
            cell.copy_(state[1])
