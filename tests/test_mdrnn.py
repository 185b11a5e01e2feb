"""M against its definition: shapes, names, the mixture's likelihood and its samples."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from models.mdrnn import MDRNN, Prediction, mean_of_mixture, mixture_nll, sample_mixture
from models.sizes import Sizes


def random_prediction(*shape: int, spread: float = 1.0) -> Prediction:
    return Prediction(
        spread * torch.randn(*shape, 5, 32),
        torch.randn(*shape, 5, 32),
        torch.randn(*shape, 5).log_softmax(-1),
        torch.randn(shape),
        torch.randn(shape),
    )


def as_distribution(prediction: Prediction) -> MixtureSameFamily:
    components = Independent(Normal(prediction.means, prediction.log_sigmas.exp()), 1)
    return MixtureSameFamily(Categorical(logits=prediction.log_weights), components)


def random_mixtures(*shape: int, spread: float = 1.0) -> Prediction:
    """A mixture for each latent number."""
    return random_prediction(*shape, spread=spread)._replace(log_weights=torch.randn(*shape, 5, 32).log_softmax(-2))


def as_distributions(prediction: Prediction) -> MixtureSameFamily:
    """Of each latent number."""
    means, log_sigmas, logits = (part.transpose(-1, -2) for part in prediction[:3])
    return MixtureSameFamily(Categorical(logits=logits), Normal(means, log_sigmas.exp()))


def test_parameters_are_those_of_the_file_contract():
    assert {name: tuple(value.shape) for name, value in MDRNN().state_dict().items()} == {
        "rnn.weight_ih_l0": (1024, 35),
        "rnn.weight_hh_l0": (1024, 256),
        "rnn.bias_ih_l0": (1024,),
        "rnn.bias_hh_l0": (1024,),
        "gmm_linear.weight": (327, 256),
        "gmm_linear.bias": (327,),
    }


def test_shapes_and_state():
    torch.manual_seed(0)
    mdrnn = MDRNN()
    actions, latents = torch.randn(7, 2, 3), torch.randn(7, 2, 32)
    prediction, (h, c) = mdrnn(actions, latents)
    assert prediction.means.shape == prediction.log_sigmas.shape == (7, 2, 5, 32)
    assert prediction.log_weights.shape == (7, 2, 5)
    assert prediction.reward.shape == prediction.terminal_logit.shape == (7, 2)
    assert h.shape == c.shape == (1, 2, 256)
    torch.testing.assert_close(prediction.log_weights.logsumexp(-1), torch.zeros(7, 2))

    # step by step, with the state handed on, it says the same
    state = None
    for step in range(7):
        here, state = mdrnn(actions[step : step + 1], latents[step : step + 1], state)
        torch.testing.assert_close(here.means[0], prediction.means[step])
    torch.testing.assert_close(state[0], h)


def test_order_of_inputs_and_outputs():
    """[action, z] goes in; means, log sigmas, log weights, reward, terminal come out."""
    mdrnn = MDRNN()
    with torch.no_grad():
        mdrnn.gmm_linear.weight.zero_()
        mdrnn.gmm_linear.bias.copy_(torch.arange(327) / 100)
        prediction, _ = mdrnn(torch.randn(1, 1, 3), torch.randn(1, 1, 32))
        assert prediction.means.flatten()[-1] == pytest.approx(1.59)
        assert prediction.log_sigmas.flatten()[[0, -1]].tolist() == pytest.approx([1.60, 3.19])
        assert prediction.log_weights.diff().flatten().tolist() == pytest.approx([0.01] * 4, abs=1e-5)
        assert prediction.reward.item() == pytest.approx(3.25) and prediction.terminal_logit.item() == pytest.approx(
            3.26
        )

        mdrnn.rnn.weight_ih_l0[:, 3:] = 0  # blind for z
        actions = torch.randn(1, 1, 3)
        _, (first, _) = mdrnn(actions, torch.randn(1, 1, 32))
        _, (second, _) = mdrnn(actions, torch.randn(1, 1, 32))
        _, (third, _) = mdrnn(actions + 1, torch.randn(1, 1, 32))
        assert (first == second).all() and not (first == third).all()


def test_likelihood_against_torch_distributions():
    torch.manual_seed(0)
    prediction, latents = random_prediction(4, 6), torch.randn(4, 6, 32)
    torch.testing.assert_close(mixture_nll(latents, prediction), -as_distribution(prediction).log_prob(latents))
    several = random_mixtures(4, 6)
    torch.testing.assert_close(mixture_nll(latents, several), -as_distributions(several).log_prob(latents).sum(-1))


@pytest.mark.parametrize("far", [1.0, 1e4])
@pytest.mark.parametrize("log_sigma", [-1e4, -7.0, 0.0, 1e4])
def test_gradients_are_finite_for_extreme_values(far, log_sigma):
    torch.manual_seed(0)
    mdrnn = MDRNN()
    with torch.no_grad():
        mdrnn.gmm_linear.bias[160:320] = log_sigma
    prediction, _ = mdrnn(torch.randn(8, 4, 3), far * torch.randn(8, 4, 32))
    loss = mixture_nll(far * torch.randn(8, 4, 32), prediction).mean()
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in mdrnn.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(
    ("make", "distribution"), [(random_prediction, as_distribution), (random_mixtures, as_distributions)]
)
def test_samples_have_the_moments_of_the_mixture(make, distribution):
    torch.manual_seed(0)
    prediction = make(spread=3.0)
    expected = distribution(prediction)
    uniforms = 1 if make is random_prediction else 32
    noise = torch.cat([torch.randn(40_000, 32), torch.rand(40_000, uniforms)], dim=-1)
    draws = sample_mixture(Prediction(*(part.expand(40_000, *part.shape) for part in prediction)), noise)
    sigma = expected.variance.sqrt()
    assert ((draws.mean(0) - expected.mean).abs() / sigma).max() < 0.03
    assert draws.std(0).div(sigma).sub(1).abs().max() < 0.05
    torch.testing.assert_close(mean_of_mixture(prediction), expected.mean)


@pytest.mark.parametrize(("make", "uniforms"), [(random_prediction, 1), (random_mixtures, 32)])
def test_temperature_sharpens_and_blurs_a_mixture(make, uniforms):
    """As in the paper's code: log weights are divided by it, deviations multiplied with its root."""
    torch.manual_seed(0)
    prediction = make(20_000, spread=3.0)
    prediction = Prediction(*(part[:1].expand(part.shape) for part in prediction))
    noise = torch.cat([torch.randn(20_000, 32), torch.rand(20_000, uniforms)], dim=-1)
    axis = 1 if uniforms == 1 else -2
    likeliest = prediction.log_weights.argmax(axis, keepdim=True)
    index = likeliest.unsqueeze(-1).expand(-1, 1, 32) if uniforms == 1 else likeliest
    mean, sigma = prediction.means.gather(1, index)[:, 0], prediction.log_sigmas.gather(1, index)[:, 0].exp()
    cold = sample_mixture(prediction, noise, temperature=1e-4)
    torch.testing.assert_close(cold, mean + 0.01 * sigma * noise[:, :32])
    spreads = [sample_mixture(prediction, noise, temperature).std(0).mean() for temperature in (0.1, 1.0, 1.5)]
    assert spreads == sorted(spreads)
    hot = as_hot(prediction, 1.5)
    expected = as_distribution(hot) if uniforms == 1 else as_distributions(hot)
    draws = sample_mixture(prediction, noise, 1.5)
    assert draws.var(0).div(expected.variance[0]).sub(1).abs().max() < 0.1


def as_hot(prediction: Prediction, temperature: float) -> Prediction:
    """The mixture that a temperature makes of another."""
    log_weights = (prediction.log_weights / temperature).log_softmax(1)
    return prediction._replace(
        log_weights=log_weights, log_sigmas=prediction.log_sigmas + 0.5 * torch.tensor(temperature).log()
    )


def test_a_mixture_for_each_latent_has_weights_for_each():
    mdrnn = MDRNN(Sizes(latent=4, hidden=16, mixtures=3, joint_mixture=False))
    assert mdrnn.gmm_linear.weight.shape == (3 * 4 * 3 + 2, 16)
    prediction, _ = mdrnn(torch.randn(7, 2, 3), torch.randn(7, 2, 4))
    assert prediction.log_weights.shape == prediction.means.shape == (7, 2, 3, 4)
    torch.testing.assert_close(prediction.log_weights.logsumexp(-2), torch.zeros(7, 2, 4))
