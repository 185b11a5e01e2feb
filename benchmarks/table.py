"""The table that benchmarks print: the rates of two programs that take turns, and what limits them."""

import statistics
import time
from collections.abc import Callable

ROUNDS = 3


def rate(work: Callable[[], int]) -> float:
    """How many of the things that `work` returns the number of are done in a second."""
    start = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - start)


class Table:
    """Rows whose name contains `only`; others are not measured. beside: what ours is compared with."""

    def __init__(self, beside: str, only: str = ""):
        self._only = only
        print(f"| work | ours | {beside} | ratio | aim | limit | share of it |")
        print("|---|---|---|---|---|---|---|", flush=True)

    def measures(self, *names: str) -> bool:
        """Whether any of the rows is measured."""
        return any(self._only in name for name in names)

    def row(
        self,
        name: str,
        ours: Callable[[], float],
        theirs: Callable[[], float],
        aim: str,
        limit: Callable[[], float] | float | None = None,
    ) -> None:
        """Measures and prints a row: medians over ROUNDS turns.

        Args:
            ours, theirs: measure a rate.
            limit: the rate that ours cannot exceed: measures it in turn with them, or is its multiple of theirs.
        """
        if not self.measures(name):
            return
        rounds = [(ours(), theirs(), limit() if callable(limit) else None) for _ in range(ROUNDS)]
        bounds = [theirs * limit if isinstance(limit, float) else bound for _, theirs, bound in rounds]
        cells = [name]
        cells.append(f"{statistics.median(ours for ours, _, _ in rounds):,.0f} /s")
        cells.append(f"{statistics.median(theirs for _, theirs, _ in rounds):,.1f} /s")
        cells.append(f"{statistics.median(ours / theirs for ours, theirs, _ in rounds):.1f}")
        cells.append(aim)
        known = [(ours, bound) for (ours, _, _), bound in zip(rounds, bounds, strict=True) if bound is not None]
        cells.append(f"{statistics.median(bound for _, bound in known):,.0f} /s" if known else "–")
        cells.append(f"{statistics.median(ours / bound for ours, bound in known):.0%}" if known else "–")
        print(f"| {' | '.join(cells)} |", flush=True)
