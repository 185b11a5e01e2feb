"""An evolution strategy that makes use of all candidates: mirrored pairs, weighed by the ranks of their differences.

Its parts are known: mirrored samples (Brockhoff et al. 2010), weights for all ranks and not for the better half alone
(Arnold 2006), an estimate of the gradient from finite differences along random directions (Salimans et al. 2017).
"""

from typing import Any

import numpy as np
import torch

PAIR_STEP = 1 / 32  # how far one pair moves the mean, as a share of the pair's own distance from it


class MirroredEvolution:
    """Searches for the vector of the highest fitness around `start` (size,).

    A generation's candidates are mean + d and mean - d for as many directions d as there are pairs. What both of a
    pair have in common drops out of the difference of their fitness: their tracks, if they drove the same, and what
    any step away from the mean costs. What is left says which way is up along d. So pairs need not be compared on
    common tracks, and a generation can see many tracks.

    Differences count by their signed ranks, because one car that leaves the track costs more than all others gain. But
    a mean that drives well gets faster and faster by that, until it leaves the track too often: with `by_size`,
    differences count by the roots of their sizes.

    The step size `sigma` times `scales` (size,), the standard deviation of d, stays as it is: it is how far the search
    looks, and a mean that is near the best wants a smaller one. A saved search goes on with any population and sigma.
    """

    def __init__(
        self, start: np.ndarray, scales: np.ndarray, population: int, sigma: float, seed: int, by_size: bool = False
    ):
        if population % 2:
            raise ValueError("pairs need an even population")
        self._mean = np.array(start, dtype=np.float64)
        self._scales = scales
        self._pairs = population // 2
        self._seed = seed
        self._by_size = by_size
        self.sigma = sigma
        self.generation = 0  # how many generations are done

    @property
    def mean(self) -> np.ndarray:
        """What the search believes in, and what is reported, (size,) float32."""
        return self._mean.astype(np.float32)

    def ask(self) -> np.ndarray:
        """The next generation's candidates, (population, size) float32: candidate i + population / 2 mirrors
        candidate i."""
        random = np.random.default_rng([self._seed, self.generation])
        self._directions = random.standard_normal((self._pairs, len(self._mean)))
        offsets = self.sigma * self._scales * self._directions
        return np.concatenate([self._mean + offsets, self._mean - offsets]).astype(np.float32)

    def tell(self, fitness: np.ndarray) -> None:
        """The candidates' fitness (population,), higher is better; ends the generation."""
        difference = fitness[: self._pairs] - fitness[self._pairs :]
        size = np.abs(difference)
        counts = np.sqrt(size) if self._by_size else size.argsort(kind="stable").argsort(kind="stable") + 1
        # A mean square of 1; where no size differs from 0, there is nothing to divide by.
        weights = np.sign(difference) * counts / (np.sqrt(np.square(counts).mean()) or 1)
        self._mean += PAIR_STEP * self.sigma * self._scales * (weights @ self._directions)
        self.generation += 1

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs: the random numbers depend on seed and generation alone."""
        return {"mean": torch.from_numpy(self._mean.copy()), "generation": self.generation, "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved search stood. Raises ValueError if it was of another kind or seed, or is not
        finite."""
        if "generation" not in state:
            raise ValueError("the saved evolution was another --search")
        if state["seed"] != self._seed or len(state["mean"]) != len(self._mean):
            raise ValueError("the saved evolution has another seed or is of another kind of controller")
        if not state["mean"].isfinite().all():
            raise ValueError("the saved evolution has diverged")
        self.generation = int(state["generation"])
        self._mean = state["mean"].numpy().astype(np.float64)
