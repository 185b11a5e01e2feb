"""The search resumes exactly, and finds what it searches."""

import numpy as np
import pytest
from conftest import evolve, fitness

from evolution.cma import CmaEvolution

SMALL, OTHER = np.linspace(-0.1, 0.1, 50), np.zeros(20)  # starts
SCALES = np.ones(50)


@pytest.mark.parametrize("population", [4, 33])
def test_resuming_equals_not_stopping(population):
    straight = evolve(CmaEvolution(SMALL, SCALES, population, 0.1, seed=3), 40)
    stopped = evolve(CmaEvolution(SMALL, SCALES, population, 0.1, seed=3), 17)
    resumed = CmaEvolution(SMALL, SCALES, population, 0.1, seed=3)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.generation == 17
    evolve(resumed, 23)
    np.testing.assert_array_equal(resumed.mean, straight.mean)
    assert resumed.sigma == straight.sigma
    np.testing.assert_array_equal(resumed.ask(), straight.ask())


def test_scales_are_the_candidates_deviations():
    scales = np.repeat([1.0, 4.0], 25)
    candidates = CmaEvolution(SMALL, scales, 400, 0.1, seed=0).ask()
    np.testing.assert_allclose((candidates - SMALL).std(axis=0), 0.1 * scales, rtol=0.2)


def test_it_climbs():
    evolution = CmaEvolution(SMALL, SCALES, 16, 0.1, seed=0)
    before = fitness(evolution.mean[None])[0]
    evolve(evolution, 150)
    assert fitness(evolution.mean[None])[0] > 0.05 * before


@pytest.mark.parametrize("diagonal", [False, True])
def test_either_covariance_resumes(diagonal):
    straight = evolve(CmaEvolution(SMALL, SCALES, 8, 0.1, 0, diagonal), 25)
    resumed = CmaEvolution(np.zeros(50), SCALES, 8, 0.1, 0, diagonal)  # the start is the saved one's
    resumed.load_state_dict(evolve(CmaEvolution(SMALL, SCALES, 8, 0.1, 0, diagonal), 12).state_dict())
    evolve(resumed, 13)
    np.testing.assert_allclose(resumed.mean, straight.mean, rtol=1e-6)
    assert fitness(straight.mean[None]) > fitness(SMALL[None])


@pytest.mark.parametrize("population, sigma", [(32, 0.1), (8, 0.01), (32, 0.3)])
def test_it_goes_on_with_other_settings(population, sigma):
    before = evolve(CmaEvolution(SMALL, SCALES, 8, 0.1, seed=0), 60)
    changed = CmaEvolution(SMALL, SCALES, population, sigma, seed=0)
    changed.load_state_dict(before.state_dict())
    assert changed.generation == 60
    np.testing.assert_array_equal(changed.mean, before.mean)
    assert changed.sigma == (before.sigma if sigma == 0.1 else sigma)
    assert changed.ask().shape == (population, 50)
    assert 0.5 < changed.ask().std(axis=0).mean() / changed.sigma < 2

    evolve(changed, 20)
    resumed = CmaEvolution(SMALL, SCALES, population, sigma, seed=0)
    resumed.load_state_dict(changed.state_dict())
    assert resumed.generation == 80 and resumed.sigma == changed.sigma != sigma
    np.testing.assert_array_equal(resumed.ask(), changed.ask())


def test_a_larger_population_finds_more():
    small, large = (evolve(CmaEvolution(SMALL, SCALES, population, 0.1, seed=0), 60) for population in (8, 32))
    assert fitness(large.mean[None]) > fitness(small.mean[None])


@pytest.mark.parametrize("other", [{"diagonal": False}, {"seed": 1}, {"scales": 2 * SCALES}])
def test_other_settings_are_refused(other):
    settings = {"scales": SCALES, "population": 8, "sigma": 0.1, "seed": 0}
    state = evolve(CmaEvolution(SMALL, **settings), 5).state_dict()
    with pytest.raises(ValueError, match="."):
        CmaEvolution(SMALL, **{**settings, **other}).load_state_dict(state)


def test_another_size_is_refused():
    state = evolve(CmaEvolution(SMALL, SCALES, 8, 0.1, seed=0), 5).state_dict()
    with pytest.raises(ValueError, match="another kind"):
        CmaEvolution(OTHER, SCALES[:20], 8, 0.1, seed=0).load_state_dict(state)
