"""Real images that a dependency ships: scikit-learn's digits, as files a user could have."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from smn_cli.atomic import atomic_folder

DESCRIPTION = (
    "scikit-learn's digits: 1,797 real scans of handwritten digits by 43 people (UCI optical recognition of "
    "handwritten digits), 8 x 8 grey, in 10 classes"
)


def write_digits(folder: Path) -> None:
    """Write the digits as PNG files, `train/CLASS/NNNN.png` and, every fifth, `test/CLASS/NNNN.png`.

    Args:
        folder: not there, or empty.
    """
    digits = load_digits()
    with atomic_folder(folder) as making:
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            part = "test" if number % 5 == 0 else "train"
            path = making / part / str(label) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.minimum(pixels * 16, 255).astype(np.uint8)).save(path)
