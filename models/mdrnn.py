"""M, the memory model: an LSTM whose head is a mixture density (paper, section 2.2 and appendix A.2).

From the latent z and the action a of one moment it predicts the next latent as a mixture of Gaussians with diagonal
covariance, and with it the reward and whether the episode ends.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.sizes import CARRACING_SIZES, Sizes

# exp(-7) is far below the width of any posterior of V; without a bound one step can make a width of zero and
# a loss without end.
LOG_SIGMA_RANGE = (-7.0, 7.0)
HALF_LOG_2PI = 0.9189385332046727


class Prediction(NamedTuple):
    """M's view of the next moment. (..., G, L) = any leading shape, G mixture components, L latent numbers."""

    means: Tensor  # (..., G, L)
    log_sigmas: Tensor  # (..., G, L)
    log_weights: Tensor  # (..., G), or (..., G, L) with a mixture for each latent; logsumexp over G is 0
    reward: Tensor  # (...)
    terminal_logit: Tensor  # (...)


class MDRNN(nn.Module):
    """Mixture-density recurrent network with the parameter names and layout of the 2018 implementation."""

    def __init__(self, sizes: Sizes = CARRACING_SIZES):
        super().__init__()
        self.sizes = sizes
        self.rnn = nn.LSTM(sizes.latent + sizes.action, sizes.hidden)
        mixtures = 1 if sizes.joint_mixture else sizes.latent
        # means, log sigmas, log weights, reward, terminal
        self._parts = [sizes.latent * sizes.mixtures] * 2 + [mixtures * sizes.mixtures, 1, 1]
        self.gmm_linear = nn.Linear(sizes.hidden, sum(self._parts))

    def forward(
        self, actions: Tensor, latents: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Prediction, tuple[Tensor, Tensor]]:
        """Actions (T, N, A) and latents (T, N, L) -> predictions with leading shape (T, N) and the LSTM's
        state (h, c), each (1, N, H), after the last moment. `state` None starts at zero."""
        outputs, state = self.rnn(torch.cat([actions, latents], dim=-1), state)
        return self.predict(outputs), state

    def predict(self, hidden: Tensor) -> Prediction:
        """The head: hidden (..., H) -> prediction of the next moment."""
        return self.to_prediction(self.gmm_linear(hidden))

    def to_prediction(self, outputs: Tensor) -> Prediction:
        """What the numbers that the head puts out (..., O) mean."""
        means, log_sigmas, log_weights, reward, terminal = outputs.split(self._parts, dim=-1)
        components = (self.sizes.mixtures, self.sizes.latent)
        return Prediction(
            means.unflatten(-1, components),
            log_sigmas.unflatten(-1, components).clamp(*LOG_SIGMA_RANGE),
            log_weights.log_softmax(dim=-1)
            if self.sizes.joint_mixture
            else log_weights.unflatten(-1, components).log_softmax(dim=-2),
            reward.squeeze(-1),
            terminal.squeeze(-1),
        )


def mixture_nll(latents: Tensor, prediction: Prediction) -> Tensor:
    """Negative log likelihood in nats of latents (..., L) under the predicted mixture, shape (...)."""
    normalised = (latents.unsqueeze(-2) - prediction.means) * (-prediction.log_sigmas).exp()
    log_density = -(0.5 * normalised.square() + prediction.log_sigmas + HALF_LOG_2PI)  # (..., G, L)
    if _is_joint(prediction):
        return -(prediction.log_weights + log_density.sum(dim=-1)).logsumexp(dim=-1)
    return -(prediction.log_weights + log_density).logsumexp(dim=-2).sum(dim=-1)


def sample_mixture(prediction: Prediction, noise: Tensor, temperature: float = 1.0) -> Tensor:
    """Draw the next latent (..., L).

    noise (..., L + C): L numbers from N(0, 1), and C uniform in [0, 1), which choose the components: C is 1 for a joint
    mixture, L with one for each latent number (`Sizes.noise`). With a temperature, the log weights are divided by it
    and the deviations multiplied with its root, as in the paper's code.
    """
    normals, uniforms = noise.tensor_split([prediction.means.shape[-1]], dim=-1)
    logits = prediction.log_weights / temperature
    if _is_joint(prediction):
        component = (uniforms >= logits.softmax(dim=-1).cumsum(dim=-1)[..., :-1]).sum(dim=-1, keepdim=True)
        index = component.unsqueeze(-1).expand(*component.shape, normals.shape[-1])
    else:
        cumulated = logits.softmax(dim=-2).cumsum(dim=-2)[..., :-1, :]  # the last is 1, but for rounding
        index = (uniforms.unsqueeze(-2) >= cumulated).sum(dim=-2, keepdim=True)
    mean = prediction.means.gather(-2, index).squeeze(-2)
    sigma = prediction.log_sigmas.gather(-2, index).squeeze(-2).exp()
    return mean + temperature**0.5 * sigma * normals


def mean_of_mixture(prediction: Prediction) -> Tensor:
    """The expected next latent (..., L)."""
    weights = prediction.log_weights.exp()
    return (prediction.means * (weights[..., None] if _is_joint(prediction) else weights)).sum(dim=-2)


def _is_joint(prediction: Prediction) -> bool:
    """Whether it is one mixture of the whole latent."""
    return prediction.log_weights.dim() < prediction.means.dim()
