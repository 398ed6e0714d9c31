"""The inverse of the symmetric beta distribution's cumulative distribution function, without scipy."""

import numpy as np
from numpy.typing import NDArray

TERMS = 60  # each halves the error, since the series is used up to x = 1/2


def beta_quantile(shares: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """The x in 0..1 such that Beta(shape, shape) lies below x with probability `shares`, to about 1e-14.

    With u = x**shape the distribution function is a power series in x times u, all of whose coefficients are positive
    (DLMF 8.17.7): rising and convex in u. Newton's method from the right therefore falls onto the root and cannot miss
    it. Symmetry gives the upper half.
    """
    k = np.arange(TERMS)
    factors = np.concatenate([[1.0], np.cumprod((k[1:] - shape) / k[1:])]) * shape / (shape + k)
    exponents = 1 + k / shape
    target = np.minimum(shares, 1 - shares)
    middle = 0.5**shape
    scale = 0.5 / np.sum(factors * middle**exponents)  # the distribution function is 1/2 at x = 1/2
    u = np.full_like(target, middle)
    for _ in range(12):
        value = scale * np.sum(factors * u[:, None] ** exponents, axis=1)
        slope = scale * np.sum(factors * exponents * u[:, None] ** (exponents - 1), axis=1)
        u = np.maximum(u - (value - target) / slope, 0)
    x = u ** (1 / shape)
    return np.where(shares <= 0.5, x, 1 - x)
