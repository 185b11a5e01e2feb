"""The search by mirrored pairs resumes exactly, and finds what it searches, whatever is common to a pair."""

import numpy as np
import pytest
from conftest import evolve, fitness

from evolution.mirrored import MirroredEvolution

START, SCALES = np.linspace(-0.1, 0.1, 50), np.repeat([0.5, 2.0], 25)


def new(
    population: int = 32, sigma: float = 0.02, seed: int = 3, scales: np.ndarray = SCALES, by_size: bool = False
) -> MirroredEvolution:
    return MirroredEvolution(START, scales, population, sigma, seed, by_size)


def test_candidates_are_mirrored_pairs_around_the_mean_and_as_wide_as_asked():
    evolution = new(population=2000)
    candidates = evolution.ask()
    assert candidates.shape == (2000, 50) and candidates.dtype == np.float32
    np.testing.assert_allclose(candidates[:1000] + candidates[1000:], np.tile(2 * START, (1000, 1)), atol=1e-6)
    np.testing.assert_allclose((candidates - START).std(axis=0), 0.02 * SCALES, rtol=0.1)


def test_resuming_equals_not_stopping():
    straight = evolve(new(), 40)
    resumed = new()
    resumed.load_state_dict(evolve(new(), 17).state_dict())
    assert resumed.generation == 17
    evolve(resumed, 23)
    np.testing.assert_array_equal(resumed.mean, straight.mean)
    np.testing.assert_array_equal(resumed.ask(), straight.ask())


def test_a_saved_state_does_not_change_with_the_search():
    evolution = evolve(new(), 3)
    state = evolution.state_dict()
    before = state["mean"].clone()
    evolve(evolution, 1)
    assert (state["mean"] == before).all()


@pytest.mark.parametrize("population", [4, 32, 256])
@pytest.mark.parametrize("by_size", [False, True])
def test_it_climbs(population, by_size):
    evolution = evolve(new(population, sigma=0.05, by_size=by_size), 4096 // population)
    assert fitness(evolution.mean[None])[0] > 0.3 * fitness(START[None])[0]


def test_what_a_pair_has_in_common_does_not_matter():
    """Neither an easy track nor what every step away from the mean costs."""
    plain, disturbed = new(), new()
    random = np.random.default_rng(0)
    for _ in range(20):
        candidates = plain.ask()
        plain.tell(fitness(candidates))
        common = np.tile(1000 * random.standard_normal(16), 2)
        disturbed.tell(fitness(disturbed.ask()) + common)
    np.testing.assert_allclose(disturbed.mean, plain.mean, atol=1e-6)


def test_one_wreck_counts_no_more_than_its_rank():
    mild, wild = new(), new()
    returns = fitness(mild.ask())
    worst = np.argmin(returns[:16] - returns[16:])
    mild.tell(returns)
    wild.ask()
    returns[worst] -= 1e6
    wild.tell(returns)
    moved = np.linalg.norm(mild.mean - START)
    assert np.linalg.norm(wild.mean - mild.mean) < 0.9 * moved


def test_by_size_a_pair_counts_by_the_root_of_its_difference():
    """Four times the difference, twice the step; and the steps of a generation are as long in all as by rank."""
    evolution = new(population=4, by_size=True)
    candidates = evolution.ask()
    directions = candidates[:2] - START
    evolution.tell(np.array([100.0, 0.0, 0.0, 400.0]))  # the first pair by 100 in favour of +d, the second by 400 of -d
    step = (directions[0] - 2 * directions[1]) / np.sqrt((1 + 4) / 2) / 32
    np.testing.assert_allclose(evolution.mean, START + step, atol=1e-6)


@pytest.mark.parametrize("by_size", [False, True])
def test_pairs_without_a_difference_move_nothing(by_size):
    evolution = new(by_size=by_size)
    evolution.ask()
    evolution.tell(np.zeros(32))
    np.testing.assert_array_equal(evolution.mean, START.astype(np.float32))
    assert evolution.generation == 1


def test_it_goes_on_with_other_settings():
    before = evolve(new(), 20)
    changed = new(population=64, sigma=0.005, scales=np.ones(50))
    changed.load_state_dict(before.state_dict())
    np.testing.assert_array_equal(changed.mean, before.mean)
    assert changed.generation == 20 and changed.sigma == 0.005 and changed.ask().shape == (64, 50)


def test_another_seed_or_size_or_an_odd_population_is_refused():
    state = evolve(new(), 5).state_dict()
    with pytest.raises(ValueError, match="another seed"):
        new(seed=4).load_state_dict(state)
    with pytest.raises(ValueError, match="another kind"):
        MirroredEvolution(np.zeros(20), np.ones(20), 32, 0.02, 3).load_state_dict(state)
    with pytest.raises(ValueError, match="even"):
        new(population=33)
