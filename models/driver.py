"""V, M and C as one batched step: frames in, actions out.

Made for driving many cars at once: every car has its own controller, all share V and M. The decoder and M's
mixture head have no say in the action and are left out.
"""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from models.controller import HIGHEST_ACTION, LOWEST_ACTION, Architecture, drive_batch
from models.mdrnn import MDRNN
from models.vae import FRAME_SIZE, VAE


class Driver:
    """The models ready to drive on `device`; V's encoder computes in `dtype`, the rest in float32.

    Without M (None), for controllers that do not see it.
    """

    def __init__(
        self, vae: VAE, mdrnn: MDRNN | None, architecture: Architecture, device: torch.device, dtype: torch.dtype
    ):
        encoder = copy.deepcopy(vae.encoder).eval()
        self.device = device
        self._dtype = dtype
        # conv1 for frames as they come, 0 to 255, and in the layout in which it is fastest: two pixels side by side
        # become one of six channels, and its 4x4 kernel over three channels a 4x2 kernel over six.
        self._conv1_weight = (
            (encoder.conv1.weight.detach() / 255)
            .unflatten(3, (2, 2))  # (32, 3, 4, 2, 2): output, colour, row, pair, side
            .permute(0, 4, 1, 2, 3)
            .flatten(1, 2)
            .to(device, dtype, memory_format=torch.channels_last)
        )
        self._encoder = encoder.to(device, dtype, memory_format=torch.channels_last)
        self.architecture = architecture
        if architecture.sees_memory:
            rnn = mdrnn.rnn
            self._lstm = [
                weight.detach().to(device)
                for weight in (rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0)
            ]

    @torch.inference_mode()
    def step(
        self, frames: Tensor, controllers: Tensor, hidden: Tensor, memory: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """One moment of N cars: the actions (N, 3) for what they see.

        frames (N, 64, 64, 3) uint8, on any device; controllers (N, size), see `drive_batch`; hidden and
        memory (N, 256), M's state before this moment, are advanced in place to the state after it. noise (N, 3), if
        any, is added to the actions, which stay in their box.
        """
        latents = self._encode(frames.to(self.device, non_blocking=True))
        inputs = torch.cat([latents, hidden], dim=1) if self.architecture.sees_memory else latents
        actions = drive_batch(self.architecture, controllers, inputs)
        if noise is not None:
            actions = (actions + noise).clamp(actions.new_tensor(LOWEST_ACTION), actions.new_tensor(HIGHEST_ACTION))
        if self.architecture.sees_memory:
            state = torch.lstm_cell(torch.cat([actions, latents], dim=1), (hidden, memory), *self._lstm)
            hidden.copy_(state[0])
            memory.copy_(state[1])
        return actions

    def _encode(self, frames: Tensor) -> Tensor:
        """V's mu (N, 32) float32 of frames (N, 64, 64, 3) uint8."""
        pairs = frames.view(len(frames), FRAME_SIZE, FRAME_SIZE // 2, 6).permute(0, 3, 1, 2).to(self._dtype)
        x = F.conv2d(pairs, self._conv1_weight, self._encoder.conv1.bias, stride=(2, 1))
        return self._encoder.fc_mu(self._encoder.upper_features(x)).float()
