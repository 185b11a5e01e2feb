"""The search resumes exactly, and finds what it searches."""

import numpy as np
import pytest

from utils.evolution import Evolution

SMALL, OTHER = np.linspace(-0.1, 0.1, 50), np.zeros(20)  # starts


def fitness(candidates: np.ndarray) -> np.ndarray:
    return -np.square(candidates - 0.3).sum(axis=1)


def evolve(evolution: Evolution, generations: int) -> Evolution:
    for _ in range(generations):
        evolution.tell(fitness(evolution.ask()))
    return evolution


@pytest.mark.parametrize("population", [4, 33])
def test_resuming_equals_not_stopping(population):
    straight = evolve(Evolution(SMALL, population, 0.1, seed=3), 40)
    stopped = evolve(Evolution(SMALL, population, 0.1, seed=3), 17)
    resumed = Evolution(SMALL, population, 0.1, seed=3)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.generation == 17
    evolve(resumed, 23)
    np.testing.assert_array_equal(resumed.mean, straight.mean)
    assert resumed.sigma == straight.sigma
    np.testing.assert_array_equal(resumed.ask(), straight.ask())


def test_it_climbs():
    evolution = Evolution(SMALL, 16, 0.1, seed=0)
    before = fitness(evolution.mean[None])[0]
    evolve(evolution, 150)
    assert fitness(evolution.mean[None])[0] > 0.05 * before


@pytest.mark.parametrize("diagonal", [0, 10, None])
def test_any_schedule_of_the_covariance_resumes(diagonal):
    straight = evolve(Evolution(SMALL, 8, 0.1, 0, diagonal), 25)
    resumed = Evolution(np.zeros(50), 8, 0.1, 0, diagonal)  # the start is the saved one's
    resumed.load_state_dict(evolve(Evolution(SMALL, 8, 0.1, 0, diagonal), 12).state_dict())
    evolve(resumed, 13)
    np.testing.assert_allclose(resumed.mean, straight.mean, rtol=1e-6)
    assert fitness(straight.mean[None]) > fitness(SMALL[None])


@pytest.mark.parametrize("population, sigma", [(32, 0.1), (8, 0.01), (32, 0.3)])
def test_it_goes_on_with_other_settings(population, sigma):
    before = evolve(Evolution(SMALL, 8, 0.1, seed=0), 60)
    changed = Evolution(SMALL, population, sigma, seed=0)
    changed.load_state_dict(before.state_dict())
    assert changed.generation == 60
    np.testing.assert_array_equal(changed.mean, before.mean)
    assert changed.sigma == (before.sigma if sigma == 0.1 else sigma)
    assert changed.ask().shape == (population, 50)
    assert 0.5 < changed.ask().std(axis=0).mean() / changed.sigma < 2

    evolve(changed, 20)
    resumed = Evolution(SMALL, population, sigma, seed=0)
    resumed.load_state_dict(changed.state_dict())
    assert resumed.generation == 80 and resumed.sigma == changed.sigma != sigma
    np.testing.assert_array_equal(resumed.ask(), changed.ask())


def test_a_larger_population_finds_more():
    small, large = (evolve(Evolution(SMALL, population, 0.1, seed=0), 60) for population in (8, 32))
    assert fitness(large.mean[None]) > fitness(small.mean[None])


@pytest.mark.parametrize("other", [{"diagonal_generations": 0}, {"seed": 1}])
def test_other_settings_are_refused(other):
    settings = {"population": 8, "sigma": 0.1, "seed": 0}
    state = evolve(Evolution(SMALL, **settings), 5).state_dict()
    with pytest.raises(ValueError, match="."):
        Evolution(SMALL, **{**settings, **other}).load_state_dict(state)


def test_another_size_is_refused():
    state = evolve(Evolution(SMALL, 8, 0.1, seed=0), 5).state_dict()
    with pytest.raises(ValueError, match="another kind"):
        Evolution(OTHER, 8, 0.1, seed=0).load_state_dict(state)
