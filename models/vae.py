"""V, the vision model: a convolutional variational auto-encoder (paper, section 2.1 and appendix A.1).

A 64x64 RGB frame becomes a Gaussian over a latent of L numbers (32 for CarRacing), and a latent becomes a frame again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.sizes import CARRACING_SIZES, Sizes

FRAME_SIZE = 64


class Encoder(nn.Module):
    """Frames (N, 3, 64, 64) in [0, 1] -> mu and logsigma, each (N, L)."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 4, stride=2)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.conv3 = nn.Conv2d(64, 128, 4, stride=2)
        self.conv4 = nn.Conv2d(128, 256, 4, stride=2)
        self.fc_mu = nn.Linear(2 * 2 * 256, sizes.latent)
        self.fc_logsigma = nn.Linear(2 * 2 * 256, sizes.latent)

    def features(self, frames: Tensor) -> Tensor:
        """The 1,024 numbers under both heads; flattened as (channel, row, column)."""
        return self.upper_features(self.conv1(frames))

    def upper_features(self, x: Tensor) -> Tensor:
        """The rest of `features`, from what conv1 puts out (N, 32, 31, 31), which is overwritten."""
        x = F.relu_(x)
        x = F.relu_(self.conv2(x))
        x = F.relu_(self.conv3(x))
        # conv4 sees a 6x6 image. As one matrix product over its four patches it takes a fifth of the time that the
        # convolution library needs for it in training.
        x = x.permute(0, 2, 3, 1)
        patches = torch.stack([x[:, i : i + 4, j : j + 4] for i in (0, 2) for j in (0, 2)], dim=1).flatten(2)
        x = F.relu_(F.linear(patches, self.conv4.weight.permute(0, 2, 3, 1).flatten(1), self.conv4.bias))
        return x.transpose(1, 2).flatten(1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(frames)
        return self.fc_mu(features), self.fc_logsigma(features)


class Decoder(nn.Module):
    """Latents (N, L) -> frames (N, 3, 64, 64) in [0, 1]."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.fc1 = nn.Linear(sizes.latent, 1024)
        self.deconv1 = nn.ConvTranspose2d(1024, 128, 5, stride=2)
        self.deconv2 = nn.ConvTranspose2d(128, 64, 5, stride=2)
        self.deconv3 = nn.ConvTranspose2d(64, 32, 6, stride=2)
        self.deconv4 = nn.ConvTranspose2d(32, 3, 6, stride=2)

    def forward(self, latents: Tensor) -> Tensor:
        x = F.relu_(self.fc1(latents))
        # deconv1 sees a 1x1 image, where a transposed convolution is a matrix product; the convolution
        # library does not notice, and would spend half of a training step there.
        weight, bias = _weight_and_bias(self.deconv1)
        x = (x @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        x = F.relu_(x + bias[:, None, None])
        x = x.contiguous(memory_format=torch.channels_last)  # the layout in which the others are fastest
        x = F.relu_(_deconvolve(x, self.deconv2))
        x = F.relu_(_deconvolve(x, self.deconv3))
        return torch.sigmoid(_DeconvolutionByPhase.apply(x, *_weight_and_bias(self.deconv4)))


class _DeconvolutionByPhase(torch.autograd.Function):
    """conv_transpose2d(x, weight, bias, stride=2) for an even kernel, (N, I, H, H) -> (N, O, 2 H + K - 2, 2 H + K - 2).

    The four pixels of a 2x2 square are four channels of one convolution, whose kernels are half as large. Where few
    channels come out, the convolution library takes a third of the time for that; for its gradients it takes longer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        size = weight.shape[2] // 2
        phases = weight.unflatten(2, (size, 2)).unflatten(4, (size, 2)).flip(2, 4)  # (I, O, size, 2, size, 2)
        kernels = phases.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (4 O, I, size, size)
        return F.pixel_shuffle(F.conv2d(x, kernels, bias.repeat_interleave(4), padding=size - 1), 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = (saved.to(gradient.dtype) for saved in ctx.saved_tensors)
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1, [True, True, False]
        )
        return of_x, of_weight, gradient.sum((0, 2, 3))


def _deconvolve(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """layer(x), the bias added apart: inside, its gradient would double the time of the layer's backward pass."""
    weight, bias = _weight_and_bias(layer)
    x = F.conv_transpose2d(x, weight, stride=layer.stride)
    return x.add_(bias.to(x.dtype)[:, None, None])


def _weight_and_bias(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None  # for the type checker: layers are made with one
    return layer.weight, layer.bias


class VAE(nn.Module):
    """Encoder and decoder; `forward` draws the latent with the reparametrisation trick."""

    def __init__(self, sizes: Sizes = CARRACING_SIZES):
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(sizes)
        self.decoder = Decoder(sizes)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames (N, 3, 64, 64) in [0, 1] -> their reconstruction, mu and logsigma."""
        mu, logsigma = self.encoder(frames)
        return self.decoder(sample_latent(mu, logsigma)), mu, logsigma


def to_images(frames: Tensor) -> Tensor:
    """(B, 64, 64, 3) uint8 -> (B, 3, 64, 64) float32 in [0, 1], channels last in memory as they came."""
    return frames.permute(0, 3, 1, 2).float() / 255


def sample_latent(mu: Tensor, logsigma: Tensor) -> Tensor:
    """Draw z ~ N(mu, exp(logsigma)^2), differentiable in both; any shape."""
    return mu + logsigma.exp() * torch.randn_like(mu)


def vae_loss(reconstruction: Tensor, frames: Tensor, mu: Tensor, logsigma: Tensor) -> tuple[Tensor, Tensor]:
    """Both terms of the loss, each a mean over the batch: squared error summed over a frame's pixels, and
    the Kullback-Leibler divergence of N(mu, sigma) from N(0, 1) summed over the latent (nats).

    Computed in float32 whatever the inputs are, because 12,288 squares do not fit in half a precision.
    """
    batch = frames.shape[0]
    squared_error = F.mse_loss(reconstruction.float(), frames.float(), reduction="sum") / batch
    mu, logsigma = mu.float(), logsigma.float()
    return squared_error, divergences(mu, logsigma).sum() / batch


def divergences(mu: Tensor, logsigma: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of N(mu, sigma) from N(0, 1), number by number (nats); any shape."""
    return 0.5 * (mu.square() + (2 * logsigma).exp() - 2 * logsigma - 1)
