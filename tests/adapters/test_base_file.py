"""A base straight from its file: taken where names, types, shapes and bytes are the recorded ones, and only there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from smn_cli.adapters.base_file import read_matching_base
from smn_cli.adapters.fingerprint import array_digest, fingerprint, tensor_digest

BASE = {
    "conv.weight": torch.arange(24, dtype=torch.float32).view(2, 3, 2, 2) / 7,
    "bn.running_var": torch.tensor([0.5, 2.0]),
    "table": torch.tensor([[1, 2], [3, 4]]),
    "scalar": torch.tensor(3.5, dtype=torch.float64),
}


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
     torch.bool],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_an_array_has_the_digest_of_the_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 100).to(dtype)
    assert array_digest("name", tensor.numpy()) == tensor_digest("name", tensor)
    assert array_digest("name", tensor.numpy().T) == tensor_digest(
        "name", tensor.permute(tuple(reversed(range(len(shape)))))
    )


def test_the_base_is_taken_from_among_other_tensors(tmp_path: Path) -> None:
    others = {"fc.weight": torch.ones(3, 2), "bn.num_batches_tracked": torch.tensor(7)}
    save_file(BASE | others, tmp_path / "w.safetensors")
    found = read_matching_base(tmp_path / "w.safetensors", fingerprint(BASE))
    assert found is not None
    assert found.keys() == BASE.keys()
    assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in BASE.items())


@pytest.mark.parametrize(
    "altered",
    [
        {"bn.running_var": torch.tensor([0.5, 2.0000002])},
        {"bn.running_var": torch.tensor([0.5, 2.0]).double()},
        {"bn.running_var": torch.tensor([0.5, 2.0]).bfloat16()},
        {"bn.running_var": torch.tensor([[0.5, 2.0]])},
        {"bn.running_var": None},
    ],
    ids=["value", "type", "type that NumPy lacks", "shape", "missing"],
)
def test_anything_else_is_left_to_whoever_builds_the_network(altered: dict[str, Tensor | None], tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in (BASE | altered).items() if tensor is not None}
    save_file(tensors, tmp_path / "w.safetensors")
    assert read_matching_base(tmp_path / "w.safetensors", fingerprint(BASE)) is None


@pytest.mark.parametrize("data", [b"", b"no weights", bytes(8), (1 << 62).to_bytes(8, "little") + b"{}"])
def test_what_cannot_be_read_is_left_to_them_too(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(data)
    assert read_matching_base(tmp_path / "w.safetensors", fingerprint(BASE)) is None
    assert read_matching_base(tmp_path / "absent.safetensors", fingerprint(BASE)) is None
    assert read_matching_base(tmp_path / "w.pth", fingerprint(BASE)) is None
