"""Checkpoint files: read without running any code that they carry."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.archives import check_archive
from utils.commandline import UserError, first_line
from utils.files import write_atomically

# The 2018 implementation stores a controller's reward as a NumPy scalar, and these names rebuild one. They make
# numbers and nothing else. NumPy 1 wrote `numpy.core`, NumPy 2 writes `numpy._core`: one function, two names.
_SCALAR: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
_NUMPY_SCALAR: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint. Raises UserError if it cannot be written; the old file is kept then."""
    write_atomically(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path, remedy: str) -> dict[str, Any]:
    """Read a checkpoint, zip or older format, onto the CPU; no code in it is run.

    Raises UserError, ending in `remedy`, if the file is missing, damaged, or holds anything but plain data.
    """
    try:
        check_archive(path)
        with torch.serialization.safe_globals(_NUMPY_SCALAR), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said once, below
            state = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_expanded(state)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except pickle.UnpicklingError:
        raise UserError(f"{path}: not a checkpoint of plain numbers, so it was not loaded; {remedy}") from None
    except Exception as error:  # a damaged file makes PyTorch raise all kinds
        if isinstance(error, OSError) and error.filename:
            raise
        raise UserError(f"{path}: damaged checkpoint ({first_line(error)}); {remedy}") from None
    if not isinstance(state, dict) or "state_dict" not in state:
        raise UserError(f"{path}: not a checkpoint (no 'state_dict' in it); {remedy}")
    return state


def _refuse_expanded(state: Any) -> None:
    """Raises ValueError if a tensor is larger than what the file holds of it, as an expanded one is: it costs nothing
    until somebody computes with it."""
    if isinstance(state, Tensor) and state.nbytes > state.untyped_storage().nbytes():
        raise ValueError(f"a tensor claims to be of {state.nbytes} bytes")
    if isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            _refuse_expanded(value)


def file_to_resume(folder: Path) -> Path | None:
    """What a stage goes on from: its checkpoint.tar, or best.tar where that is all there is; None if neither is."""
    files = (folder / "checkpoint.tar", folder / "best.tar")
    return next((path for path in files if path.exists()), None)


def fit_weights(model: nn.Module, state: dict[str, Any], path: Path, remedy: str) -> None:
    """Put the weights of a checkpoint that was read from `path` into `model`. Raises UserError if they do not fit, or
    are not all finite: a model that has diverged."""
    try:
        model.load_state_dict(state["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its weights do not fit the model ({first_line(error)}); {remedy}") from None
    if not all_finite(model):
        raise UserError(f"{path}: has weights that are NaN or infinite; {remedy}")


def all_finite(model: nn.Module) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(weight.isfinite().all()) for weight in model.state_dict().values())


def require_best(folder: Path) -> None:
    """Raises UserError if a stage that is done has no best.tar: somebody has removed it."""
    path = folder / "best.tar"
    if not path.exists():
        raise UserError(f"{path}: missing, although training is complete; restore it, or add --noreload to start over")
