"""Actions that need no models: the random driving of the first rollouts, and the noise that is added to a controller's
actions in later ones."""

from collections.abc import Callable

import numpy as np

from models.sizes import Sizes

Policy = Callable[[np.random.Generator, Sizes, int], np.ndarray]

NOISE_MEMORY = 0.9  # a push on the wheel lasts some ten steps; white noise would only tremble


def white(generator: np.random.Generator, sizes: Sizes, steps: int) -> np.ndarray:
    """Actions (steps, A) float32, each uniform over the action box."""
    return generator.uniform(sizes.lowest_action, sizes.highest_action, (steps, sizes.action)).astype(np.float32)


def brown(generator: np.random.Generator, sizes: Sizes, steps: int) -> np.ndarray:
    """Actions (steps, A) float32 of a random walk in the action box: a' = a + sqrt(1/50) N(0, 1), clipped.

    It starts anywhere in the box. Unlike white noise it holds a direction for a second or so, so that the car
    gets somewhere.
    """
    lowest, highest = np.array(sizes.lowest_action, np.float32), np.array(sizes.highest_action, np.float32)
    actions = np.empty((steps, sizes.action), np.float32)
    actions[0] = generator.uniform(sizes.lowest_action, sizes.highest_action)
    strides = generator.normal(scale=(1 / 50) ** 0.5, size=(steps, sizes.action)).astype(np.float32)
    for step in range(1, steps):
        # np.clip would take longer than the physics of a tenth of a step
        actions[step] = np.minimum(np.maximum(actions[step - 1] + strides[step], lowest), highest)
    return actions


def held(generator: np.random.Generator, sizes: Sizes, steps: int, longest: int = 10) -> np.ndarray:
    """Actions (steps, A) float32, each uniform over the action box and held for 1 to `longest` steps, 10 as in the
    paper's code for Take Cover (doomrnn)."""
    holds = generator.integers(1, longest + 1, size=steps)
    return white(generator, sizes, steps).repeat(holds, axis=0)[:steps]


def pace(generator: np.random.Generator, sizes: Sizes, steps: int) -> np.ndarray:
    """Actions (steps, A) float32: the lowest and the highest in turn, each for 10 to 150 steps."""
    holds = generator.integers(10, 151, size=steps)
    ends = np.array([sizes.lowest_action, sizes.highest_action], np.float32)
    return ends[(np.arange(steps) + generator.integers(2)) % 2].repeat(holds, axis=0)[:steps]


def roam(generator: np.random.Generator, sizes: Sizes, steps: int) -> np.ndarray:
    """Actions (steps, A) float32 of one of three kinds, equally likely: `held`; `held` with a longest hold of 3
    to 100 steps, its logarithm uniform; or `pace`. With actions that are held briefly alone, a player trembles in the
    middle: how one dies on the way and at the walls is seen with the others."""
    kind = generator.integers(3)
    if kind == 2:
        return pace(generator, sizes, steps)
    longest = round(np.exp(generator.uniform(np.log(3), np.log(100)))) if kind else 10
    return held(generator, sizes, steps, longest)


def stay(generator: np.random.Generator, sizes: Sizes, steps: int) -> np.ndarray:
    """Actions (steps, A) float32 of zeros."""
    return np.zeros((steps, sizes.action), np.float32)


def sweep(generator: np.random.Generator, sizes: Sizes, steps: int, turn: int = 90) -> np.ndarray:
    """Actions (steps, A) float32 that change from the lowest to the highest and back every `turn` steps: in Take Cover,
    about from wall to wall. It begins anywhere in that, so that it is not in time with the game."""
    highest = (np.arange(steps) + generator.integers(2 * turn)) // turn % 2 == 1
    return np.where(highest[:, None], sizes.highest_action, sizes.lowest_action).astype(np.float32)


POLICIES: dict[str, Policy] = {"brown": brown, "white": white, "held": held, "roam": roam}


def exploration_noise(generator: np.random.Generator, sizes: Sizes, steps: int, largest: float) -> np.ndarray:
    """What is added to a controller's actions, (steps, A) float32: an Ornstein-Uhlenbeck process whose deviation is
    drawn once, uniform in [0, largest], so that a dataset holds calm driving as well as recoveries from mistakes."""
    deviation = generator.uniform(0, largest)
    noise = generator.normal(scale=deviation, size=(steps, sizes.action)).astype(np.float32)
    for step in range(1, steps):
        noise[step] = NOISE_MEMORY * noise[step - 1] + (1 - NOISE_MEMORY**2) ** 0.5 * noise[step]
    return noise
