"""Slow, plain versions of the maths, written from the papers' formulas and computed in float64."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def is_float32_nearest_root(value: float, num_weights: int, num_kept: int) -> bool:
    """Whether `value` is the float32 nearest to sqrt(num_weights / num_kept), decided in exact fractions."""
    ratio, exact = Fraction(num_weights, num_kept), Fraction(value)
    if np.float32(value) != value:
        return False
    below = Fraction(float(np.nextafter(np.float32(value), np.float32(0))))
    above = Fraction(float(np.nextafter(np.float32(value), np.float32(np.inf))))
    return ((below + exact) / 2) ** 2 <= ratio <= ((exact + above) / 2) ** 2


def effective_weight(weight: Array, scores: Array, threshold: float) -> Array:
    """w m sqrt(N / kept), m = [s > threshold] (arXiv 2409.07577, Eq. 1)."""
    mask = [float(score > threshold) for score in scores.flat]
    scale = math.sqrt(len(mask) / sum(mask))
    values = [w * m * scale for w, m in zip(weight.flat, mask, strict=True)]
    return np.array(values).reshape(weight.shape)


def score_gradient(weight: Array, scores: Array, upstream: Array, threshold: float) -> Array:
    """Straight-through gradient with the scale's share: g w / sqrt(d) - d^(-3/2) / (2 N) sum(g w m)."""
    mask = [float(score > threshold) for score in scores.flat]
    num_weights = len(mask)
    kept = sum(mask) / num_weights
    shared = sum(g * w * m for g, w, m in zip(upstream.flat, weight.flat, mask, strict=True))
    values = [
        g * w / math.sqrt(kept) - kept**-1.5 / (2 * num_weights) * shared
        for g, w in zip(upstream.flat, weight.flat, strict=True)
    ]
    return np.array(values).reshape(weight.shape)


def sinkhorn(logits: Array, epsilon: float, iterations: int) -> Array:
    """Codes (B, K): Diag(u) exp(z / epsilon) Diag(v), prototypes sum to 1/K, samples to 1/B (2006.09882, Eq. 5)."""
    num_samples, num_prototypes = logits.shape
    plan: Array = np.exp((logits - logits.max()) / epsilon)
    for _ in range(iterations):
        for k in range(num_prototypes):
            plan[:, k] /= plan[:, k].sum() * num_prototypes
        for b in range(num_samples):
            plan[b] /= plan[b].sum() * num_samples
    codes: Array = plan * num_samples
    return codes


def entropy(codes: Array) -> float:
    """Mean entropy of the rows, in nats."""
    return float(np.mean([-sum(p * math.log(p) for p in row if p > 0) for row in codes]))


def swapped_loss(view_logits: Sequence[Array], codes: Sequence[Array], temperature: float) -> float:
    """Every view predicts the codes of every other code view (2006.09882, Eq. 1, 2 and 6), by loops."""
    per_code_view = []
    for code_view, code in enumerate(codes):
        per_view = []
        for view, logits in enumerate(view_logits):
            if view == code_view:
                continue
            total = 0.0
            for row, q in zip(logits / temperature, code, strict=True):
                log_sum = math.log(sum(math.exp(value) for value in row))
                total -= sum(q_k * (value - log_sum) for q_k, value in zip(q, row, strict=True))
            per_view.append(total / len(code))
        per_code_view.append(sum(per_view) / len(per_view))
    return sum(per_code_view) / len(per_code_view)
