"""The coordinates in which controllers are searched.

A random change of C's weights is mostly wasted. M's state has a mean far from zero, so that the change is above all a
constant pull on the wheel; and a few directions hold nearly all of the variance of what C sees. So the search moves
in centred inputs along their principal components. What it finds is the paper's linear layer all the same: the
coordinates are folded into its weights and biases.
"""

import torch
from torch import Tensor

from models.controller import Architecture


class Coordinates:
    """Maps points of the search (N, size) to controllers (N, size), the origin to `start`.

    A point is a controller whose first layer sees inputs of mean 0 and, all together, variance 1.

    start: (size,) the parameters of a controller.
    mean (I,), covariance (I, I): of the inputs of its first layer. Without them a point is a change of parameters.
    """

    def __init__(
        self, architecture: Architecture, start: Tensor, mean: Tensor | None = None, covariance: Tensor | None = None
    ):
        self._inputs, self._outputs = architecture.layers[0]
        self._start, self._mean, self._covariance = start.double(), mean, covariance
        if covariance is None:
            return
        variances, directions = torch.linalg.eigh(covariance.double())
        self._basis = directions / variances.sum().sqrt()

    def to_controllers(self, points: Tensor) -> Tensor:
        """points (N, size) -> controllers (N, size) float32, as rows of `Controller.to_vector`."""
        points = points.double()
        if self._covariance is not None:
            count = self._inputs * self._outputs
            weights, biases, rest = points.tensor_split([count, count + self._outputs], dim=1)
            weights = weights.unflatten(1, (self._outputs, self._inputs)) @ self._basis.T
            biases = biases - weights @ self._mean.double()
            points = torch.cat([weights.flatten(1), biases, rest], dim=1)
        return (self._start + points).float()

    def state_dict(self) -> dict[str, Tensor | None]:
        """The arguments but for the architecture."""
        return {"start": self._start, "mean": self._mean, "covariance": self._covariance}
