"""What an adapter says of itself, and the preparation of images that it asks for."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes, make_adapter
from smn_cli.data.preprocessing import Preprocessing
from smn_cli.data.views.loader import image_batches
from smn_cli.errors import AdapterFileError
from tests.adapters.forging import toy_adapter, toy_base, toy_masks

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prepared(interpolation: str = "bicubic", size: int = 160) -> Adapter:
    """The toy adapter with a preparation of images."""
    told = Preprocessing(size, MEAN, STD, interpolation).to_json()
    return make_adapter(toy_base(), toy_masks(), arch="toy", preprocessing=told)


def test_the_repr_tells_base_density_bytes_and_pixels() -> None:
    adapter = toy_adapter()
    size_bytes = len(adapter.to_bytes())
    kept = 44 + 13  # of 54 and 15
    assert repr(adapter) == f"Adapter('toy.made_up', density={kept / 69:.4f}, size_bytes={size_bytes}, image_size=32)"
    assert (adapter.arch, adapter.size_bytes) == ("toy", size_bytes)
    assert adapter.density == kept / 69
    bare = make_adapter(toy_base(), toy_masks(), arch="toy")
    assert repr(bare) == f"Adapter('toy', density={kept / 69:.4f}, size_bytes={len(bare.to_bytes())})"


def test_the_preparation_is_the_one_it_was_made_with_or_refused() -> None:
    assert prepared("bilinear").preprocessing == Preprocessing(160, MEAN, STD, "bilinear")
    with pytest.raises(AdapterFileError, match="preprocessing is unusable"):
        _ = toy_adapter().preprocessing
    with pytest.raises(AdapterFileError, match="preprocessing is unusable"):
        toy_adapter().transform()


def photograph(path: Path, mode: str) -> Path:
    """500 x 375 pixels of smooth colours and noise, in a mode that has to be converted."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:375, 0:500]
    smooth = np.stack([rows * 0.6, columns * 0.5, (rows + columns) * 0.25], axis=-1)
    image = Image.fromarray((smooth + generator.integers(0, 30, (375, 500, 3))).astype(np.uint8))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(generator.integers(0, 255, (375, 500), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image.convert(mode).save(path, exif=exif)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_the_transform_gives_the_bits_that_smn_itself_feeds_to_a_network(
    tmp_path: Path, mode: str, interpolation: str
) -> None:
    path = photograph(tmp_path / "photo.png", mode)
    adapter = prepared(interpolation)
    transform = pickle.loads(pickle.dumps(adapter.transform()))
    own = next(iter(image_batches([path], adapter.preprocessing)))[0]
    with Image.open(path) as image:
        found = transform(image)
    assert found.shape == (3, 160, 160)
    assert found.dtype == torch.float32
    assert found.numpy().tobytes() == own.contiguous().numpy().tobytes()


def test_an_adapter_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(toy_adapter()))
    assert again.to_bytes() == adapter_from_bytes(toy_adapter().to_bytes()).to_bytes()
