"""What combinations would weigh, without fitting them."""

from smn_cli.cascade.combining import KINDS, WHITENED_DIM


def combination_bytes(num_blocks: int, num_features: int, dim: int | None = None) -> dict[str, int]:
    """Bytes of each kind of combination's tensors, where there are images enough for all its components.

    Args:
        num_blocks, num_features: E + 1 and F.
        dim: width of the result; None for each kind's own default, see `fit_combination`. "none" has no choice.
    """
    wanted = dim or num_features
    of_block = wanted // num_blocks
    signed = dim or min(WHITENED_DIM, num_blocks * num_features)
    bytes_by_kind = {
        "none": 0,
        "random": 2 * wanted + 4,
        "whitened": signed * (signed + 1) // 2 + 6 * signed,
        "blocks": num_blocks * _projection_bytes(of_block, num_features),
        "pca": _projection_bytes(wanted, num_blocks * num_features),
    }
    return {kind: bytes_by_kind[kind] for kind in KINDS}


def _projection_bytes(dim: int, num_features: int) -> int:
    """Axes of 8 bits a value, a scale and an offset for each."""
    return dim * num_features + 8 * dim
