"""What the server that workers are forked from gets ready for them. It lies here, and not in utils, because the server
looks for it in the working directory alone: there, another project may have a utils. Where it is not found, workers
start as well."""

import sys
from types import TracebackType

from numba import njit


@njit("int64(int64)")
def _any_function(number: int) -> int:
    """To be ready to load and run compiled functions takes Numba longer than all else at a worker's start."""
    return number


def _say_nothing_to_no_parent(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A parent that is stopped after it has asked for a worker, and before it has sent what to run, has said its one
    line on the console, and needs no traceback below it. What a worker itself raises does not come here."""
    if kind is not EOFError:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _say_nothing_to_no_parent
