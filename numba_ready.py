"""Numba, ready to load and run compiled functions. The server that workers are forked from imports this, because to get
ready takes longer than all else at a worker's start. It lies here, and not in utils, because the server looks for it in
the working directory alone: there, another project may have a utils. Where it is not found, workers start as well."""

from numba import njit


@njit("int64(int64)")
def _any_function(number):
    return number
