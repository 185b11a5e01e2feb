"""V against its definition: shapes, names, loss, and the shortcuts in its layers."""

import pytest
import torch
from torch.nn import functional as F

from models.vae import VAE, sample_latent, vae_loss

SHAPES = {
    "encoder.conv1": (32, 3, 4, 4),
    "encoder.conv2": (64, 32, 4, 4),
    "encoder.conv3": (128, 64, 4, 4),
    "encoder.conv4": (256, 128, 4, 4),
    "encoder.fc_mu": (32, 1024),
    "encoder.fc_logsigma": (32, 1024),
    "decoder.fc1": (1024, 32),
    "decoder.deconv1": (1024, 128, 5, 5),
    "decoder.deconv2": (128, 64, 5, 5),
    "decoder.deconv3": (64, 32, 6, 6),
    "decoder.deconv4": (32, 3, 6, 6),
}


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VAE()


def test_parameters_are_those_of_the_file_contract(vae):
    state = vae.state_dict()
    assert {name: tuple(state[f"{name}.weight"].shape) for name in SHAPES} == SHAPES
    assert set(state) == {f"{name}.{kind}" for name in SHAPES for kind in ("weight", "bias")}


def test_shapes_and_range(vae):
    reconstruction, mu, logsigma = vae(torch.rand(5, 3, 64, 64))
    assert reconstruction.shape == (5, 3, 64, 64) and mu.shape == logsigma.shape == (5, 32)
    assert reconstruction.min() >= 0 and reconstruction.max() <= 1


def test_shortcuts_equal_the_layers_that_they_stand_for(vae):
    """conv4 and deconv1 are computed as matrix products, deconv4 as a convolution, the bias of others apart: forward
    and backward."""
    encoder, decoder = vae.encoder, vae.decoder
    frames, latents = torch.rand(3, 3, 64, 64), torch.randn(3, 32)

    x = F.relu(encoder.conv3(F.relu(encoder.conv2(F.relu(encoder.conv1(frames))))))
    features = F.relu(encoder.conv4(x)).flatten(1)
    y = F.relu(decoder.deconv1(F.relu(decoder.fc1(latents))[:, :, None, None]))
    images = decoder.deconv4(F.relu(decoder.deconv3(F.relu(decoder.deconv2(y))))).sigmoid()

    torch.testing.assert_close(encoder.features(frames), features)
    torch.testing.assert_close(decoder(latents), images)
    for plain, ours, part in ((features, encoder.features(frames), encoder), (images, decoder(latents), decoder)):
        weights = [weight for name, weight in part.named_parameters() if "fc_" not in name]
        expected = torch.autograd.grad(plain.square().sum(), weights)
        torch.testing.assert_close(torch.autograd.grad(ours.square().sum(), weights), expected, rtol=1e-4, atol=1e-4)


def test_loss_against_torch_distributions():
    reconstruction, frames = torch.rand(4, 3, 64, 64), torch.rand(4, 3, 64, 64)
    mu, logsigma = torch.randn(4, 32), torch.randn(4, 32)
    squared_error, divergence = vae_loss(reconstruction, frames, mu, logsigma)
    assert squared_error.item() == pytest.approx((reconstruction - frames).square().sum().item() / 4, rel=1e-5)
    posterior, prior = torch.distributions.Normal(mu, logsigma.exp()), torch.distributions.Normal(0, 1)
    expected = torch.distributions.kl_divergence(posterior, prior).sum() / 4
    assert divergence.item() == pytest.approx(expected.item(), rel=1e-5)


def test_latents_are_drawn_from_the_posterior():
    torch.manual_seed(0)
    draws = sample_latent(torch.full((20_000,), 3.0), torch.full((20_000,), -1.0))
    assert draws.mean().item() == pytest.approx(3, abs=0.02)
    assert draws.std().item() == pytest.approx(0.3679, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_for_black_and_white(vae, dtype):
    frames = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)])
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        reconstruction, mu, logsigma = vae(frames)
    sum(vae_loss(reconstruction, frames, mu, logsigma)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())
