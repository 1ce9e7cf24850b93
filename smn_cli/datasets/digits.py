"""Real images that a dependency ships: scikit-learn's digits, as files a user could have."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

DESCRIPTION = (
    "scikit-learn's digits: 1,797 real scans of handwritten digits by 43 people (UCI optical recognition of "
    "handwritten digits), 8 x 8 grey, in 10 classes"
)


def write_digits(folder: Path) -> None:
    """Write the digits as PNG files, `train/CLASS/NNNN.png` and, every fifth, `test/CLASS/NNNN.png`."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        part = "test" if number % 5 == 0 else "train"
        path = folder / part / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.minimum(pixels * 16, 255).astype(np.uint8)).save(path)
