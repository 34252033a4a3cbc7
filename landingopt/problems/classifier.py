"""Classification of features by orthonormal directions, one for each class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.samplers import Terms
from landingopt.sums import LinearModelSum, check_count


class OrthogonalClassifier(LinearModelSum):
    r"""Multinomial logistic regression with orthonormal class directions.

    With a row a_i of features and its class y_i, the scores are u_i = a_i^T X, one for each of the k
    classes, and

    .. math:: \min_{X^T X = I} \; \frac1N \sum_i \log \sum_j e^{s u_{ij}} - s u_{i y_i} .

    The gradient of a term with respect to its scores is s (softmax(s u_i) - e_{y_i}). Because the
    directions have length 1, the scale s (an inverse temperature) is what length would be: how sure the
    classifier may be.

    Parameters
    ----------
    features : array (N, n)
        Real, float32 or float64 precision: an array of any library, a ``numpy.memmap``, or an object
        with ``__len__`` and slices. There is no intercept: subtract the mean of the rows first.
    labels : integer array (N,)
        The class of each row, in 0..k-1; in memory.
    scale : float, optional
        s > 0. By default 1 over the root mean square of the features' entries: in orthonormal
        directions picked at random, s u_ij then has a root mean square of about 1, and multiplying the
        features by a number changes nothing. (One pass over the features.)
    n_classes : int, optional
        k, between 2 and n; by default the largest label and one.
    chunk_terms : int, optional
        Rows that a full pass works on at a time.

    Attributes
    ----------
    shape : tuple
        (n, k).
    n_terms : int
        N.
    scale : float
    labels : array (N,)
    test_features, test_labels : arrays, or None
        What :meth:`digits` holds out.

    Raises
    ------
    TypeError
        Features that are not real floating point numbers, labels that are not integers.
    ValueError
        Lengths that disagree, labels outside 0..k-1, fewer features than classes, a scale that is not
        positive, features that are all zero where no scale is given.

    Notes
    -----
    Cost: ``fun`` is one product of N n k multiplications and N k exponentials, ``grad`` and
    ``value_and_gradient`` two products.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.OrthogonalClassifier.digits()
    >>> problem
    OrthogonalClassifier(n_terms=1438, n=64, p=10, float64)
    >>> result = lo.minimize(problem, method=lo.landing_sgd(), rng=0)
    >>> problem.accuracy(result.feasible_x, problem.test_features, problem.test_labels) > 0.9
    True
    """

    def __init__(
        self,
        features: Any,
        labels: Any,
        *,
        scale: float | None = None,
        n_classes: int | None = None,
        chunk_terms: int | None = None,
    ):
        super().__init__(self._losses, self._dlosses, features, chunk_terms=chunk_terms)
        if _xp.is_complex(self.like):
            raise TypeError(
                f"features have dtype {_xp.dtype_name(self.like)}; real features are needed."
            )
        given, classes = _checked_labels(labels, self.n_terms, n_classes)
        n = self.shape[0]
        if classes > n:
            raise ValueError(
                f"{classes} orthonormal directions need as many features, and there are {n}; add "
                "features (products of them, say), or merge classes."
            )
        self.shape = (n, classes)
        if scale is None:
            self.scale = 1.0 / self._root_mean_square()
        else:
            self.scale = _checked_scale(scale)
        xp = _xp.namespace(self.like)
        place = {} if xp is np else {"device": _xp.device_of(self.like)}
        self.labels: Array = xp.asarray(given, **place)
        self._units: Array = _xp.from_host(np.eye(classes), self.like)
        self.test_features: Array | None = None
        self.test_labels: Array | None = None

    @classmethod
    def digits(
        cls,
        test_share: float = 0.2,
        rng: Any = 0,
        *,
        scale: float | None = None,
        dtype: Any = np.float64,
    ) -> OrthogonalClassifier:
        """The handwritten digits of scikit-learn: 1797 images of 64 pixels, 10 classes.

        Pixels are scaled to 0..1 and centred by the mean of the training images. Needs scikit-learn.

        Parameters
        ----------
        test_share : float
            Share of the images that are picked at random and held out, as ``test_features`` and
            ``test_labels``; in [0, 1).
        rng : numpy.random.Generator or seed
            Which ones.
        scale : float, optional
        dtype : NumPy dtype
            A real one.

        Raises
        ------
        ImportError
            scikit-learn is not installed.
        ValueError
            A share outside [0, 1).

        Examples
        --------
        >>> OrthogonalClassifier.digits(test_share=0.5).test_features.shape
        (898, 64)
        """
        if not 0.0 <= test_share < 1.0:
            raise ValueError(f"test_share must lie in [0, 1), got {test_share!r}.")
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                'OrthogonalClassifier.digits needs scikit-learn: pip install "landingopt[examples]"'
            ) from error
        pixels, digits = load_digits(return_X_y=True)
        pixels = np.asarray(pixels, dtype=np.float64) / 16.0
        order = np.random.default_rng(rng).permutation(len(pixels))
        held_out = int(test_share * len(pixels))
        test, train = order[:held_out], order[held_out:]
        mean = pixels[train].mean(axis=0)
        problem = cls(
            (pixels[train] - mean).astype(dtype), digits[train], scale=scale, n_classes=10
        )
        if held_out:
            problem.test_features = (pixels[test] - mean).astype(dtype)
            problem.test_labels = digits[test]
        return problem

    def __repr__(self) -> str:
        return super().__repr__().replace("LinearModelSum", "OrthogonalClassifier")

    def accuracy(self, x: Array, features: Any = None, labels: Any = None) -> float:
        """The share of the rows whose largest score is that of their class.

        Parameters
        ----------
        x : array (n, k)
        features, labels : optional
            Other rows and their classes, as for the class; by default those that f is made of.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            Features without labels, labels without features, or such that do not go together.
        """
        if (features is None) != (labels is None):
            raise ValueError("accuracy needs features and labels of the same rows, or neither.")
        if features is None:
            return self._accuracy(x)
        others = OrthogonalClassifier(features, labels, scale=self.scale, n_classes=self.shape[1])
        if others.shape != self.shape:
            raise ValueError(
                f"features have {others.shape[0]} columns; those of the problem have {self.shape[0]}."
            )
        return others._accuracy(x)

    def _accuracy(self, x: Array) -> float:
        xp = _xp.namespace(self.like)
        hits = 0
        for start in range(0, self.n_terms, self.chunk_terms):
            part = slice(start, min(start + self.chunk_terms, self.n_terms))
            found = xp.argmax(self.rows(part) @ x, axis=1) == self.labels[part]
            hits += int(np.count_nonzero(_xp.to_host(found)))
        return hits / self.n_terms

    def _losses(self, u: Array, terms: Terms) -> Array:
        """log sum exp(s u) - s u_y for each row, shifted by the largest score: no overflow."""
        xp = _xp.namespace(u)
        z = self._shifted(u)
        own = xp.sum(z * self._targets(terms), axis=1)
        return xp.log(xp.sum(xp.exp(z), axis=1)) - own

    def _dlosses(self, u: Array, terms: Terms) -> Array:
        """s (softmax(s u) - e_y) for each row."""
        xp = _xp.namespace(u)
        shares = xp.exp(self._shifted(u))
        shares = shares / xp.sum(shares, axis=1, keepdims=True)
        return (shares - self._targets(terms)) * self.scale

    def _shifted(self, u: Array) -> Array:
        z = u * self.scale
        return z - _xp.namespace(u).max(z, axis=1, keepdims=True)

    def _targets(self, terms: Terms) -> Array:
        """The unit vector of the class, for each term."""
        own = self.labels[terms] if isinstance(terms, slice) else _xp.take(self.labels, terms)
        return _xp.namespace(self._units).take(self._units, own, axis=0)

    def _root_mean_square(self) -> float:
        xp = _xp.namespace(self.like)
        total = 0.0
        for start in range(0, self.n_terms, self.chunk_terms):
            rows = self.rows(slice(start, min(start + self.chunk_terms, self.n_terms)))
            total += float(xp.mean(rows * rows)) * (rows.shape[0] / self.n_terms)
        if not 0.0 < total < math.inf:
            what = "are all zero" if total == 0.0 else "have entries that are NaN or infinite"
            raise ValueError(f"features {what}; no scale can be chosen for them.")
        return math.sqrt(total)


def _checked_labels(labels: Any, n_terms: int, n_classes: int | None) -> tuple[np.ndarray, int]:
    """The labels on the host, and how many classes there are."""
    given = np.asarray(_xp.to_host(labels) if hasattr(labels, "dtype") else labels)
    if given.dtype.kind not in "iu":
        raise TypeError(
            f"labels have dtype {given.dtype}; integers from 0 on are needed: "
            "numpy.unique(labels, return_inverse=True)[1] numbers any labels."
        )
    if given.shape != (n_terms,):
        raise ValueError(
            f"labels have shape {given.shape}; one for each of the {n_terms} rows of the features, "
            f"shape ({n_terms},), is needed."
        )
    lowest, highest = int(given.min()), int(given.max())
    classes = highest + 1 if n_classes is None else check_count("n_classes", n_classes)
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"labels lie in {lowest}..{highest}; they must lie in 0..{classes - 1}: "
            "numpy.unique(labels, return_inverse=True)[1] numbers any labels."
        )
    if classes < 2:
        raise ValueError("there is one class only; at least two are needed to tell apart.")
    return given.astype(np.int64), classes


def _checked_scale(scale: Any) -> float:
    try:
        value = float(scale)
    except (TypeError, ValueError):
        raise TypeError(f"scale must be one positive number, got {scale!r}.") from None
    if not 0.0 < value < math.inf:
        raise ValueError(f"scale must be positive and finite, got {value}.")
    return value
