"""CMA-ES from the `cma` package, with a state that can be saved and resumed exactly (paper, appendix A.4)."""

import warnings

import cma
import numpy as np
import torch
from torch import Tensor

from utils.commandline import uninterrupted


class CmaEvolution:
    """Searches for the vector of the highest fitness around `start` (size,), at first with the standard deviations
    sigma * `scales` (size,).

    The covariance is diagonal or, as in the paper, full (docs/RESULTS.md compares them).

    What the search knows follows from its settings and the fitness of every candidate so far, because its random
    numbers depend on seed and generation alone. So the fitness is all that is saved, and resuming replays it, which
    takes milliseconds a generation. A pickle of the search would be larger and could carry code.

    A saved search may go on with another population or sigma, from the mean and the diagonal it had come to: a larger
    population averages out more of the noise in the fitness, and a smaller sigma seeks the best driver rather than the
    best neighbourhood of drivers.
    """

    def __init__(
        self, start: np.ndarray, scales: np.ndarray, population: int, sigma: float, seed: int, diagonal: bool = True
    ):
        self._wanted = (population, sigma)
        self._scales = scales
        self._seed = seed
        self._options = {"CMA_diagonal": diagonal, "seed": np.nan, "verbose": -9, "verb_log": 0}
        self._begin(start, population, sigma)

    def _begin(self, start: np.ndarray, population: int, sigma: float) -> None:
        """A search that has seen nothing yet."""
        self._start = np.asarray(start, dtype=np.float64)
        self._fitness: list[np.ndarray] = []  # of every generation
        self._settings: list[tuple[int, float]] = []  # population and sigma of every generation
        self._use(self._start, population, sigma, self._scales)
        self._setting = (population, sigma)

    def _change(self, population: int, sigma: float) -> None:
        """Go on with other settings. A sigma that is as before has no say: the step size has become what it is."""
        if self._setting != (population, sigma):
            old = self._strategy
            step_size = old.sigma if sigma == self._setting[1] else sigma
            self._use(old.result.xfavorite, population, step_size, old.stds / old.sigma)
            self._setting = (population, sigma)

    def _use(self, mean: np.ndarray, population: int, sigma: float, scales: np.ndarray) -> None:
        """A new strategy, with standard deviations sigma * scales."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = self._options | {"popsize": population, "CMA_stds": scales}
            self._strategy = cma.CMAEvolutionStrategy(mean, sigma, options)

    @property
    def generation(self) -> int:
        """How many generations are done."""
        return len(self._fitness)

    def ask(self) -> np.ndarray:
        """The next generation's candidates, (population, size) float32."""
        np.random.seed([self._seed, self.generation])  # cma draws from NumPy's global generator
        with uninterrupted():  # cma catches every exception in places, and would swallow Ctrl-C
            self._candidates = self._strategy.ask()
        return np.asarray(self._candidates, dtype=np.float32)

    def tell(self, fitness: np.ndarray) -> None:
        """The candidates' fitness (population,), higher is better; ends the generation."""
        with uninterrupted():
            self._strategy.tell(self._candidates, (-fitness).tolist())
        self._fitness.append(np.asarray(fitness, dtype=np.float64))
        self._settings.append(self._setting)

    @property
    def mean(self) -> np.ndarray:
        """The distribution's mean (size,) float32: what the search believes in, and what is reported. The best
        sample of a noisy fitness is merely the luckiest."""
        return np.asarray(self._strategy.result.xfavorite, dtype=np.float32)

    @property
    def sigma(self) -> float:
        """The overall step size."""
        return float(self._strategy.sigma)

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs: the start, the fitness of all candidates so far, population and sigma of
        every generation (generations, 2) and, to check it, the mean."""
        return {
            "start": torch.from_numpy(self._start),
            "fitness": torch.from_numpy(np.concatenate(self._fitness)),
            "settings": torch.tensor(self._settings, dtype=torch.float64),
            "mean": torch.from_numpy(self.mean),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replay a saved search in place of this one and go on with this one's population and sigma.

        Raises ValueError if it is damaged, was another search or does not arrive where the saved one stood: other
        scales, another seed or another covariance, or a release of cma that computes differently.
        """
        if "fitness" not in state:
            raise ValueError("the saved evolution was another --search")
        if len(state["start"]) != len(self._start):
            raise ValueError("the saved evolution is of another kind of controller")
        if not all(state[name].isfinite().all() for name in ("start", "fitness", "settings", "mean")):
            raise ValueError("the saved evolution has diverged")
        settings = [(int(population), sigma) for population, sigma in state["settings"].tolist()]
        populations = [population for population, _ in settings]
        if min(populations) < 2 or sum(populations) != len(state["fitness"]):
            raise ValueError("the saved evolution is damaged")
        self._begin(state["start"].numpy(), *settings[0])
        for setting, fitness in zip(settings, state["fitness"].split(populations), strict=True):
            self._change(*setting)
            self.ask()
            self.tell(fitness.numpy())
        if not np.allclose(self.mean, state["mean"].numpy(), rtol=1e-3, atol=1e-5):
            raise ValueError("the saved evolution cannot be replayed with these settings and this release of cma")
        self._change(*self._wanted)
