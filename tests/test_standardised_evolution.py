"""A search over standardised inputs: every input has the same say, and controllers come out as they are."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import evolve

from envs.dream import Starts
from envs.games import TAKECOVER
from evolution.cma import CmaEvolution
from evolution.mirrored import MirroredEvolution
from evolution.run import EvolutionRun
from evolution.standardised import InputSpread, StandardisedEvolution, input_spread
from models.controller import Controller
from models.sizes import Sizes
from utils.commandline import UserError

SIZES = replace(TAKECOVER.sizes, latent=3, hidden=2, outputs=("signed", "signed"))
INPUTS, SIZE = 7, 2 * 8
SPREAD = InputSpread(np.arange(7.0) - 3, np.array([0.01, 0.1, 1, 1, 10, 100, 1]))


def cma(start: np.ndarray, seed: int = 3) -> CmaEvolution:
    return CmaEvolution(start, np.ones(SIZE), 32, 0.1, seed)


def pairs(start: np.ndarray, seed: int = 3) -> MirroredEvolution:
    return MirroredEvolution(start, np.ones(SIZE), 32, 0.1, seed)


def raw_outputs(controllers: np.ndarray, inputs: np.ndarray, sizes: Sizes = SIZES) -> np.ndarray:
    """What the layer of each controller makes of inputs (M, I): (N, M, A), before tanh."""
    layers = [Controller.from_vector(sizes, torch.from_numpy(controller)).fc for controller in controllers]
    with torch.no_grad():
        return np.stack([layer(torch.from_numpy(inputs.astype(np.float32))).numpy() for layer in layers])


def some_controller() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE).astype(np.float32)


def test_each_input_has_the_same_say():
    candidates = StandardisedEvolution(cma(np.zeros(SIZE)), SPREAD).ask()
    centre = raw_outputs(candidates, SPREAD.mean[None])
    assert np.abs(centre).max() < 0.5  # the bias's share alone
    shifted = raw_outputs(candidates, SPREAD.mean + np.diag(SPREAD.deviation))
    np.testing.assert_allclose((shifted - centre).std(axis=(0, 2)), 0.1, rtol=0.35)


def test_a_controller_is_where_it_was():
    start = some_controller()
    evolution = StandardisedEvolution(cma(SPREAD.standardise(start[None])[0]), SPREAD)
    np.testing.assert_allclose(evolution.mean, start, rtol=1e-5)


@pytest.mark.parametrize("search", [cma, pairs])
def test_resuming_equals_not_stopping(search: Callable):
    start = SPREAD.standardise(some_controller()[None])[0]
    straight = evolve(StandardisedEvolution(search(start), SPREAD), 20)
    stopped = evolve(StandardisedEvolution(search(start), SPREAD), 8)
    other = InputSpread(SPREAD.mean + 1, 2 * SPREAD.deviation)  # M has learned on meanwhile
    resumed = StandardisedEvolution(search(start), other)
    resumed.load_state_dict(stopped.state_dict())
    evolve(resumed, 12)
    assert resumed.generation == 20
    np.testing.assert_array_equal(resumed.mean, straight.mean)
    assert resumed.sigma == straight.sigma


def test_a_search_that_saw_inputs_as_they_are_goes_on_so():
    straight = evolve(cma(some_controller()), 12)
    resumed = StandardisedEvolution(cma(some_controller()), SPREAD)
    resumed.load_state_dict(evolve(cma(some_controller()), 5).state_dict())
    np.testing.assert_allclose(evolve(resumed, 7).mean, straight.mean, rtol=1e-6)


@pytest.mark.parametrize("name, value", [("input_mean", np.nan), ("input_deviation", 0.0), ("input_mean", None)])
def test_a_damaged_spread_is_refused(name, value):
    evolution = evolve(StandardisedEvolution(cma(np.zeros(SIZE)), SPREAD), 1)
    state = evolution.state_dict()
    state[name] = state[name][:-1] if value is None else torch.full((INPUTS,), value)
    with pytest.raises(ValueError, match="saved evolution|damaged"):
        evolution.load_state_dict(state)


def test_a_search_over_standardised_inputs_does_not_go_on_without_them(tmp_path):
    evolution = evolve(StandardisedEvolution(cma(np.zeros(SIZE)), SPREAD), 1)
    row = {"episodes": 4.0, "seconds": 1.0}
    EvolutionRun(tmp_path, TAKECOVER.name, SIZES, evolution, "a world").finish_generation(row)
    plain = EvolutionRun(tmp_path, TAKECOVER.name, SIZES, cma(np.zeros(SIZE)), "a world")
    with pytest.raises(UserError, match=f"{tmp_path}.*standardised.*--noreload"):
        plain.resume()


def test_the_spread_is_that_of_later_moments():
    random = np.random.default_rng(0)
    columns = [random.normal(scale=scale, size=(2000, count)) for scale, count in ((1, 3), (1, 3), (0.2, 2), (30, 2))]
    steps = np.arange(2000) % 2
    columns[3][steps == 0] = 0
    spread = input_spread(Starts(*columns, steps), SIZES)
    np.testing.assert_allclose(spread.deviation, [1, 1, 1, 0.2, 0.2, 30, 30], rtol=0.1)
    nowhere = input_spread(Starts(*columns, np.zeros(2000)), SIZES)
    np.testing.assert_allclose(nowhere.deviation[5:], 30 / 2**0.5, rtol=0.1)
