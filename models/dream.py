"""M as a world: from a latent and an action the next latent, the reward and the end, for many dreams at once."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

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
    """M ready to dream on the CPU; the temperature may be changed between steps.

    Its matrix products are in `dtype`, all else is in float32. In bfloat16 they are what M had in its training, and
    several times as fast where `utils.precision.fast_dtype` chooses it.
    """

    def __init__(self, weights: Weights, temperature: float = 1.0, dtype: torch.dtype = torch.float32):
        self.sizes = weights.sizes
        self.temperature = temperature
        self._dtype = dtype
        self._mdrnn = MDRNN(weights.sizes).eval()
        self._mdrnn.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.parameters.items()})
        self._mdrnn.requires_grad_(False)
        of_input, of_state, bias, other_bias = self._mdrnn.rnn.parameters()
        # One product for the input and the state together is faster than one for each.
        self._gates = torch.cat([of_input, of_state], dim=1).to(dtype)
        self._gates_bias = (bias + other_bias).to(dtype)
        self._mdrnn.gmm_linear.to(dtype)

    @torch.inference_mode()
    def step(self, actions: Tensor, latents: Tensor, hidden: Tensor, cell: Tensor, noise: Tensor) -> Dreamed:
        """One moment: actions (N, A) taken in latents (N, L).

        hidden and cell (N, H), M's state before this moment, are advanced in place to the state after it. noise (N, .)
        chooses the next latents, see `sample_mixture`, which tells about the temperature, too. Reward and end are
        expected values: neither noise nor temperature has a say in them.
        """
        seen = torch.cat([actions, latents, hidden], dim=1).to(self._dtype)
        gates = F.linear(seen, self._gates, self._gates_bias).float()
        take, keep, candidate, show = gates.chunk(4, dim=1)  # an LSTM's gates, in PyTorch's order
        cell.mul_(keep.sigmoid()).addcmul_(take.sigmoid(), candidate.tanh())
        torch.mul(show.sigmoid(), cell.tanh(), out=hidden)
        prediction = self._mdrnn.to_prediction(self._mdrnn.gmm_linear(hidden.to(self._dtype)).float())
        latents = sample_mixture(prediction, noise, self.temperature)
        return Dreamed(latents, prediction.reward, prediction.terminal_logit)
