"""A search over what a linear C does with standardised inputs.

M's cell state varies far more than V's latents and M's output: among weights that vary alike, it alone would decide
what a candidate does. Here each input has the same say at first.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.dream import Starts
from evolution.cma import CmaEvolution
from evolution.mirrored import MirroredEvolution
from models.sizes import Sizes

LEAST_DEVIATION = 1e-2  # so that an input that never changes has no huge weight


class InputSpread(NamedTuple):
    """Mean and standard deviation of each of C's inputs, (I,) each. It turns linear controllers (N, size) into those
    that do the same with standardised inputs, and back."""

    mean: np.ndarray
    deviation: np.ndarray

    def standardise(self, controllers: np.ndarray) -> np.ndarray:
        """For inputs as they are -> for standardised ones."""
        weights, biases = self._split(controllers)
        return _join(weights * self.deviation, biases + weights @ self.mean)

    def restore(self, controllers: np.ndarray) -> np.ndarray:
        """For standardised inputs -> for inputs as they are."""
        weights, biases = self._split(controllers)
        weights = weights / self.deviation
        return _join(weights, biases - weights @ self.mean)

    def state_dict(self) -> dict[str, Tensor]:
        """What `saved_in` finds."""
        return {f"input_{name}": torch.from_numpy(value) for name, value in self._asdict().items()}

    def saved_in(self, state: dict[str, Any]) -> "InputSpread":
        """The spread in a saved search; one without any saw inputs as they are. Raises ValueError if it is damaged, or
        of another number of inputs."""
        mean = state.get("input_mean", torch.zeros(len(self.mean))).numpy()
        deviation = state.get("input_deviation", torch.ones(len(self.mean))).numpy()
        if mean.shape != self.mean.shape or deviation.shape != self.mean.shape:
            raise ValueError("the saved evolution is of another kind of controller")
        if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()):
            raise ValueError("the spread of the inputs is damaged")
        return InputSpread(mean, deviation)

    def _split(self, controllers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (N, A, I) and biases (N, A)."""
        count = len(self.mean)
        outputs = controllers.shape[1] // (count + 1)
        weights, biases = np.split(controllers.astype(np.float64), [count * outputs], axis=1)
        return weights.reshape(-1, outputs, count), biases


def _join(weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    return np.concatenate([weights.reshape(len(weights), -1), biases], axis=1)


def input_spread(starts: Starts, sizes: Sizes) -> InputSpread:
    """That of the moments at which M has seen something of a rollout; of all moments, if it has at none."""
    columns = (starts.mu, starts.hidden, starts.cell)[: len(sizes.inputs)]
    inputs = np.concatenate(columns, axis=1).astype(np.float64)
    later = starts.steps > 0
    inputs = inputs[later] if later.any() else inputs
    return InputSpread(inputs.mean(axis=0), np.maximum(inputs.std(axis=0), LEAST_DEVIATION))


class StandardisedEvolution:
    """A search whose vectors are the weights and biases of a linear C that sees (input - mean) / deviation. Towards its
    user it speaks of controllers as they are (size,)."""

    def __init__(self, search: CmaEvolution | MirroredEvolution, spread: InputSpread):
        self._search = search
        self._spread = spread

    @property
    def generation(self) -> int:
        """How many generations are done."""
        return self._search.generation

    @property
    def sigma(self) -> float:
        """The step size of the search."""
        return self._search.sigma

    @property
    def mean(self) -> np.ndarray:
        """What the search believes in, and what is reported, (size,) float32."""
        return self._spread.restore(self._search.mean[None])[0].astype(np.float32)

    def ask(self) -> np.ndarray:
        """The next generation's candidates, (population, size) float32."""
        return self._spread.restore(self._search.ask()).astype(np.float32)

    def tell(self, fitness: np.ndarray) -> None:
        """The candidates' fitness (population,), higher is better; ends the generation."""
        self._search.tell(fitness)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs: that of the search, and the spread it began with."""
        return self._search.state_dict() | self._spread.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved search stood, with the spread that it began with. Raises ValueError if it is damaged or
        was another search."""
        spread = self._spread.saved_in(state)
        self._search.load_state_dict(state)
        self._spread = spread
