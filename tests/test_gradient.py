"""The policy gradient in a dream: it counts advantages as the papers do, learns, resumes, and speaks of controllers as
they are."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from envs.dream import DreamSettings, Starts
from envs.games import TAKECOVER
from evolution.gradient import ACTION_STEPS, DISCOUNT, TRACE, Decisions, PolicyGradient, advantages_of
from evolution.run import EvolutionRun
from evolution.standardised import InputSpread
from models.controller import Controller
from models.dream import dream_weights
from models.mdrnn import MDRNN
from utils.dreams import Dreams

SIZES = replace(TAKECOVER.sizes, latent=2, hidden=4)
INPUTS = 2 + 4 + 4
SPREAD = InputSpread(np.linspace(-1, 1, INPUTS), np.geomspace(0.1, 3, INPUTS))
COUNT = 32


def dangerous_world() -> Dreams:
    """Who goes to the right dies soon: of M's state, one number follows the action, and the end follows it."""
    torch.manual_seed(0)
    mdrnn = MDRNN(SIZES)
    with torch.no_grad():
        for weight in mdrnn.rnn.parameters():
            weight *= 0.1
        take, keep, candidate, show = range(0, 16, 4)  # the first unit's gates; PyTorch's order
        bias, action = mdrnn.rnn.bias_ih_l0, mdrnn.rnn.weight_ih_l0[:, 0]
        bias[take], bias[keep], bias[show], action[candidate] = 5, -5, 5, 3
        mdrnn.gmm_linear.weight[-1] = torch.tensor([6.0, 0, 0, 0])
        mdrnn.gmm_linear.bias[-1] = -4
    latent, state = np.zeros((1, 2), np.float32), np.zeros((1, 4), np.float32)
    return Dreams(TAKECOVER, dream_weights(mdrnn), Starts(latent, latent, state, state, np.zeros(1)), DreamSettings())


def search(units: int = 0, seed: int = 3, spread: InputSpread = SPREAD) -> PolicyGradient:
    return PolicyGradient(dangerous_world(), replace(SIZES, hidden_units=units), spread, COUNT, 1.0, seed)


def test_advantages_are_the_papers():
    """Equation 16 of Schulman et al. 2016, in which what comes later counts by the chance to be alive then."""
    random = torch.Generator().manual_seed(0)
    rewards, survival, values, next_values = torch.rand(4, 12, 5, generator=random)
    broken = torch.rand(12, 5, generator=random) < 0.2
    surprises = (1 - DISCOUNT) * rewards + DISCOUNT * survival * next_values - values
    expected = torch.zeros(12, 5)
    for dream in range(5):
        for begin in range(12):
            weight = 1.0
            for i in range(begin, 12):
                expected[begin, dream] += weight * surprises[i, dream]
                if broken[i, dream]:
                    break
                weight *= DISCOUNT * TRACE * float(survival[i, dream])
    unused = torch.zeros(12, 5, 1)
    found = advantages_of(Decisions(unused, unused, rewards, survival, values, next_values, broken))
    torch.testing.assert_close(found, expected)


def test_who_expects_what_comes_is_not_surprised():
    """What every step earns, and how likely it ends, are always the same: then so is the value."""
    reward, survival = torch.full((2, 12, 5), 0.9)
    value = (1 - DISCOUNT) * reward / (1 - DISCOUNT * survival)
    unused, unbroken = torch.zeros(12, 5, 1), torch.zeros(12, 5, dtype=torch.bool)
    found = advantages_of(Decisions(unused, unused, reward, survival, value, value, unbroken))
    torch.testing.assert_close(found, torch.zeros(12, 5))


def test_ends_and_rewards_are_as_likely_as_m_says():
    """M's logit is always the same. In M's loss, an end counts ten times as much as other steps."""
    dreams = dangerous_world()
    mdrnn = MDRNN(SIZES)
    with torch.no_grad():
        mdrnn.gmm_linear.weight[-1], mdrnn.gmm_linear.bias[-1] = 0, 0.5
    gradient = PolicyGradient(dreams._replace(weights=dream_weights(mdrnn)), SIZES, SPREAD, COUNT, 1.0, 3)
    row = gradient.practise()
    alive = 1 / (1 + math.exp(0.5) / 10)  # after a step
    assert row["dream/ends"] == pytest.approx((1 - alive**ACTION_STEPS) / ACTION_STEPS, rel=1e-4)
    earned = sum(alive**step for step in range(1, ACTION_STEPS + 1)) / ACTION_STEPS
    assert row["dream/reward"] == pytest.approx(earned, rel=1e-4)


@pytest.mark.parametrize("units", [0, 32])
def test_it_learns_where_not_to_go(units):
    gradient = search(units)
    rows = [gradient.practise() for _ in range(16)]
    first, last = ({name: np.mean([row[name] for row in part]) for name in rows[0]} for part in (rows[:4], rows[-4:]))
    assert first["episodes"] == COUNT and last["dream/ends"] < 0.85 * first["dream/ends"]
    assert last["dream/reward"] > first["dream/reward"]
    controller = Controller.from_vector(replace(SIZES, hidden_units=units), torch.from_numpy(gradient.mean))
    zeros = torch.zeros(1, 4)
    assert controller(torch.zeros(1, 2), zeros, zeros).item() < -0.2  # to the left


@pytest.mark.parametrize("units", [0, 32])
def test_a_saved_search_goes_on_as_if_it_had_not_stopped(units):
    straight, stopped = search(units), search(units)
    for _ in range(3):
        straight.practise()
    stopped.practise()
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    elsewhere = InputSpread(SPREAD.mean + 1, 2 * SPREAD.deviation)  # M has learned on meanwhile
    other = search(units, spread=elsewhere)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        other.practise()
    assert other.generation == straight.generation == 3
    np.testing.assert_array_equal(other.mean, straight.mean)


@pytest.mark.parametrize("units", [0, 32])
def test_a_controller_is_where_it_was(units):
    gradient = search(units)
    controller = np.random.default_rng(0).normal(size=len(gradient.mean)).astype(np.float32)
    gradient.begin_at(controller)
    np.testing.assert_allclose(gradient.mean, controller, rtol=1e-4, atol=1e-5)
    # What it learns with sees standardised inputs, and does the same.
    sizes, seen = replace(SIZES, hidden_units=units), torch.randn(7, INPUTS)
    mean, deviation = (torch.from_numpy(column).float() for column in SPREAD)
    expected = Controller.from_vector(sizes, torch.from_numpy(controller)).outputs(seen)
    torch.testing.assert_close(gradient._actor.outputs((seen - mean) / deviation), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "another seed"),
        ({"critic": None}, "another --search"),
        ({"input_mean": torch.zeros(INPUTS + 1)}, "another kind"),
        ({"actor": {"fc.weight": torch.full((1, INPUTS), torch.nan), "fc.bias": torch.zeros(1)}}, "diverged"),
    ],
)
def test_what_is_not_its_own_is_refused(change, message):
    saved = search().state_dict() | change
    saved = {name: value for name, value in saved.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        search().load_state_dict(saved)


@pytest.mark.parametrize(("moment", "value"), [("exp_avg", torch.zeros(3)), ("step", torch.tensor(-1.0))])
def test_moments_that_cannot_be_are_refused(moment, value):
    gradient = search()
    gradient.practise()
    saved = gradient.state_dict()
    saved["optimizer"]["state"][0][moment] = value
    with pytest.raises(ValueError, match="damaged"):
        search().load_state_dict(saved)


def test_the_last_scored_is_kept(tmp_path):
    gradient = search()
    run = EvolutionRun(tmp_path, TAKECOVER.name, SIZES, gradient, "dreams")
    for score in (2100.0, 1900.0):
        gradient.practise()
        run.finish_generation({"episodes": 32, "seconds": 1, "return/mean": score})
    kept = torch.load(tmp_path / "best.tar", weights_only=True)
    assert (kept["epoch"], kept["reward"]) == (2, 1900) and run.standing.startswith("last mean")
    np.testing.assert_array_equal(parameters_to_vector(kept["state_dict"].values()).numpy(), gradient.mean)
    again = EvolutionRun(tmp_path, TAKECOVER.name, SIZES, search(), "dreams")
    assert again.resume() and again.best == 1900
    np.testing.assert_array_equal(again.evolution.mean, gradient.mean)
