"""M as a world: from a latent and an action the next latent, the reward and the end, for many dreams at once."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.mdrnn import MDRNN, sample_mixture
from models.world_model import Weights


class Dreamed(NamedTuple):
    """What M makes of one moment of N dreams."""

    latents: Tensor  # (N, L): the next ones
    rewards: Tensor  # (N,)
    terminal_logits: Tensor  # (N,): the episode ends where it is positive


def dream_weights(mdrnn: MDRNN) -> Weights:
    """What a worker needs to dream."""
    return Weights(mdrnn.sizes, {name: weight.cpu().numpy() for name, weight in mdrnn.state_dict().items()})


class DreamModel:
    """M ready to dream on the CPU, in float32; the temperature may be changed between steps."""

    def __init__(self, weights: Weights, temperature: float = 1.0):
        self.sizes = weights.sizes
        self.temperature = temperature
        self._mdrnn = MDRNN(weights.sizes).eval()
        self._mdrnn.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.parameters.items()})
        # An LSTM cell takes the weights of the LSTM.
        self._lstm = [parameter.detach() for parameter in self._mdrnn.rnn.parameters()]

    @torch.inference_mode()
    def step(self, actions: Tensor, latents: Tensor, hidden: Tensor, cell: Tensor, noise: Tensor) -> Dreamed:
        """One moment: actions (N, A) taken in latents (N, L).

        hidden and cell (N, H), M's state before this moment, are advanced in place to the state after it. noise (N, .)
        chooses the next latents, see `sample_mixture`, which tells about the temperature, too. Reward and end are
        expected values: neither noise nor temperature has a say in them.
        """
        state = torch.lstm_cell(torch.cat([actions, latents], dim=1), (hidden, cell), *self._lstm)
        hidden.copy_(state[0])
        cell.copy_(state[1])
        prediction = self._mdrnn.predict(state[0])
        latents = sample_mixture(prediction, noise, self.temperature)
        return Dreamed(latents, prediction.reward, prediction.terminal_logit)
