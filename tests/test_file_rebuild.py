"""A checkpoint over weights in a file is the same bytes with and without a network, or a network is asked."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.array_rebuild import rebuild_arrays
from smn_cli.adapters.base_file import read_matching_base
from smn_cli.adapters.head import StoredHead
from smn_cli.backbones.loading import load_backbone
from smn_cli.errors import AdapterFileError, MismatchError
from smn_cli.file_rebuild import prove_rebuild, rebuild_from_file, save_arrays
from smn_cli.rebuild import rebuild, save_checkpoint
from tests.conftest import RESNET, random_weights

ARCH = "resnet18"
HEAD = StoredHead(
    "fc",
    ("cat", "dog"),
    np.arange(-512, 512, dtype=np.int16).reshape(2, 512).clip(-127, 127).astype(np.int8),
    np.array([0.01, 0.3], dtype=np.float32),
    np.array([1.5, -2], dtype=np.float32),
)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights(ARCH)


@pytest.fixture(scope="module")
def file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(weights, path)
    return path


def adapter_over(weights: Mapping[str, Tensor], head: StoredHead | None = None, arch: str = ARCH) -> Adapter:
    """Masks of three tensors, and statistics of one layer."""
    base = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    names = [name for name, tensor in base.items() if tensor.ndim == 4][1:4]
    masks = {name: base[name].abs() > base[name].abs().median() / 3 for name in names}
    statistics = {"bn1.running_mean": base["bn1.running_mean"] + 0.3}
    return make_adapter(base, masks, arch=arch, norm_stats=statistics, head=head)


@pytest.mark.parametrize("head", [None, HEAD], ids=["classifier of the file", "classifier of the adapter"])
@pytest.mark.parametrize("with_classifier", [True, False])
def test_a_file_gives_the_checkpoint_that_a_network_gives(
    head: StoredHead | None, with_classifier: bool, weights: dict[str, Tensor], file: Path, tmp_path: Path
) -> None:
    adapter = adapter_over(weights, head)
    quick = rebuild_from_file(adapter, file, with_classifier=with_classifier)
    network = rebuild(adapter, load_backbone(ARCH, file), with_classifier=with_classifier)
    assert quick is not None
    assert (quick.num_classes, quick.takes_any_size) == (network.num_classes, network.takes_any_size)
    assert (quick.classes, quick.readout) == (network.classes, network.readout)
    if quick.classes:  # safetensors puts two keys of metadata in any order
        assert quick.metadata() == network.metadata()
        assert quick.state.keys() == network.state.keys()
        assert all(np.array_equal(quick.state[name], tensor.numpy()) for name, tensor in network.state.items())
        return
    save_arrays(quick, tmp_path / "quick.safetensors")
    save_checkpoint(network, tmp_path / "network.safetensors")
    assert (tmp_path / "quick.safetensors").read_bytes() == (tmp_path / "network.safetensors").read_bytes()


def test_a_file_without_classifier_gives_a_checkpoint_without(weights: dict[str, Tensor], tmp_path: Path) -> None:
    bare = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    save_file(bare, tmp_path / "w.safetensors")
    quick = rebuild_from_file(adapter_over(weights), tmp_path / "w.safetensors")
    assert quick is not None
    assert (quick.state.keys(), quick.num_classes) == (bare.keys(), 0)


@pytest.mark.parametrize(
    "altered",
    [
        {"fc.bias": None},
        {"fc.bias": torch.zeros(1000, dtype=torch.float16)},
        {"fc.bias": torch.zeros(1000, dtype=torch.bfloat16)},
        {"extra": torch.zeros(3)},
        {"bn1.num_batches_tracked": None},
        {"bn1.num_batches_tracked": torch.tensor([1, 2])},
        {"fc.num_batches_tracked": torch.tensor(1)},
    ],
    ids=[
        "half a classifier",
        "half precision",
        "a type NumPy lacks",
        "a stranger",
        "no counter",
        "counters",
        "one more",
    ],
)
def test_what_a_file_has_otherwise_is_left_to_a_network(
    altered: dict[str, Tensor | None], weights: dict[str, Tensor], tmp_path: Path
) -> None:
    found = {name: tensor for name, tensor in {**weights, **altered}.items() if tensor is not None}
    save_file(found, tmp_path / "w.safetensors")
    adapter = adapter_over(weights)
    assert rebuild_from_file(adapter, tmp_path / "w.safetensors") is None
    assert prove_rebuild(adapter, tmp_path / "w.safetensors")  # the base is all the same there


def test_a_network_of_another_name_is_left_to_timm(weights: dict[str, Tensor], file: Path) -> None:
    assert rebuild_from_file(adapter_over(weights, arch="resnet34"), file) is None
    assert rebuild_from_file(adapter_over(weights, arch="resnetblur18"), file) is None


def test_a_network_that_is_no_plain_resnet_is_left_to_timm(weights_file: Callable[[str], Path]) -> None:
    path = weights_file(RESNET)
    adapter = adapter_over(load_file(path), arch=RESNET)
    assert rebuild_from_file(adapter, path) is None
    assert prove_rebuild(adapter, path)


def test_another_base_proves_nothing(weights: dict[str, Tensor], file: Path) -> None:
    adapter = adapter_over(weights | {"bn1.bias": weights["bn1.bias"] + 1})
    assert rebuild_from_file(adapter, file) is None
    assert not prove_rebuild(adapter, file)


BASE = {"a": torch.randn(300), "b": torch.randn(4, 5), "n.running_mean": torch.rand(7), "rest": torch.rand(3)}


def small(base: Mapping[str, Tensor], masks: Mapping[str, Tensor], **more: str) -> Adapter:
    statistics = {"n.running_mean": torch.arange(7.0)}
    return make_adapter(base, masks, arch="toy", norm_stats=statistics, codec=more.get("codec", "bits"))


def arrays(base: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in base.items()}


@pytest.mark.parametrize("codec", ["bits", "lzma", "context", "context2"])
def test_arrays_are_rebuilt_to_the_bits_of_tensors(codec: str) -> None:
    adapter = small(BASE, {name: torch.rand(BASE[name].shape) > 0.3 for name in ("a", "b")}, codec=codec)
    found = rebuild_arrays(adapter, arrays(BASE))
    assert found is not None
    assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in adapter.rebuild(BASE).items())


def test_tensors_that_may_be_one_and_are_masked_apart_are_left_to_a_network() -> None:
    base = BASE | {"again": BASE["a"].clone(), "alike": torch.cat([BASE["a"][:299], torch.ones(1)])}
    mask = torch.rand(300) > 0.3
    apart = {"a": mask, "again": mask.roll(1), "alike": mask}
    together = {"a": mask, "again": mask, "alike": mask.roll(1)}
    assert rebuild_arrays(small(base, apart), arrays(base)) is None
    assert rebuild_arrays(small(base, together), arrays(base)) is not None


def test_weights_of_another_type_are_left_to_a_network() -> None:
    base = BASE | {"a": BASE["a"].double()}
    assert rebuild_arrays(small(base, {"a": torch.rand(300) > 0.3}), arrays(base)) is None


def test_what_was_not_recorded_is_refused() -> None:
    adapter = small(BASE, {"a": torch.rand(300) > 0.3})
    altered = arrays(BASE) | {"rest": np.zeros(3, dtype=np.float32)}
    with pytest.raises(AdapterFileError, match="the rebuilt network is not the recorded one"):
        rebuild_arrays(adapter, altered)
    with pytest.raises(MismatchError, match=r"a has shape \(3, 100\) in the base"):
        rebuild_arrays(adapter, arrays(BASE | {"a": BASE["a"].view(3, 100)}))
    with pytest.raises(MismatchError, match=r"statistics n\.running_mean of 7 values do not fit"):
        rebuild_arrays(adapter, arrays(BASE | {"n.running_mean": torch.zeros(8)}))


def test_a_base_that_is_read_may_be_written_over_and_its_file_stays(weights: dict[str, Tensor], file: Path) -> None:
    adapter, before = adapter_over(weights), file.read_bytes()
    assert prove_rebuild(adapter, file)
    assert file.read_bytes() == before
    assert read_matching_base(file, adapter.base_fingerprint) is not None
