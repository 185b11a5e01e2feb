"""M, the memory model: an LSTM whose head is a mixture density (paper, section 2.2 and appendix A.2).

From the latent z and the action a of one moment it predicts the next latent as a mixture of Gaussians with
diagonal covariance, and with it the reward and whether the episode ends.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.vae import LATENT_SIZE

ACTION_SIZE = 3
HIDDEN_SIZE = 256
MIXTURES = 5
# exp(-7) is far below the width of any posterior of V; without a bound one step can make a width of zero and
# a loss without end.
LOG_SIGMA_RANGE = (-7.0, 7.0)


class Prediction(NamedTuple):
    """M's view of the next moment. (..., G, L) = any leading shape, G mixture components, L latent numbers."""

    means: Tensor  # (..., G, L)
    log_sigmas: Tensor  # (..., G, L)
    log_weights: Tensor  # (..., G), normalised: logsumexp over G is 0
    reward: Tensor  # (...)
    terminal_logit: Tensor  # (...)


class MDRNN(nn.Module):
    """Mixture-density recurrent network with the parameter names and layout of the 2018 implementation."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(LATENT_SIZE + ACTION_SIZE, HIDDEN_SIZE)
        self.gmm_linear = nn.Linear(HIDDEN_SIZE, (2 * LATENT_SIZE + 1) * MIXTURES + 2)

    def forward(
        self, actions: Tensor, latents: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Prediction, tuple[Tensor, Tensor]]:
        """Actions (T, N, A) and latents (T, N, L) -> predictions with leading shape (T, N) and the LSTM's
        state (h, c), each (1, N, hidden), after the last moment. `state` None starts at zero."""
        outputs, state = self.rnn(torch.cat([actions, latents], dim=-1), state)
        return self.predict(outputs), state

    def predict(self, hidden: Tensor) -> Prediction:
        """The head: hidden (..., 256) -> prediction of the next moment."""
        size = MIXTURES * LATENT_SIZE
        means, log_sigmas, log_weights, reward, terminal = self.gmm_linear(hidden).split(
            [size, size, MIXTURES, 1, 1], dim=-1
        )
        return Prediction(
            means.unflatten(-1, (MIXTURES, LATENT_SIZE)),
            log_sigmas.unflatten(-1, (MIXTURES, LATENT_SIZE)).clamp(*LOG_SIGMA_RANGE),
            log_weights.log_softmax(dim=-1),
            reward.squeeze(-1),
            terminal.squeeze(-1),
        )


def mixture_nll(latents: Tensor, prediction: Prediction) -> Tensor:
    """Negative log likelihood in nats of latents (..., L) under the predicted mixture, shape (...)."""
    normalised = (latents.unsqueeze(-2) - prediction.means) * (-prediction.log_sigmas).exp()
    half_log_2pi = 0.9189385332046727
    log_density = -(0.5 * normalised.square() + prediction.log_sigmas + half_log_2pi).sum(dim=-1)
    return -(prediction.log_weights + log_density).logsumexp(dim=-1)


def sample_mixture(prediction: Prediction) -> Tensor:
    """Draw the next latent (..., L)."""
    component = torch.distributions.Categorical(logits=prediction.log_weights).sample()
    index = component[..., None, None].expand(*component.shape, 1, prediction.means.shape[-1])
    mean = prediction.means.gather(-2, index).squeeze(-2)
    sigma = prediction.log_sigmas.gather(-2, index).squeeze(-2).exp()
    return mean + sigma * torch.randn_like(mean)
