"""Adapters and their base as a folder for ONNX Runtime, compared with torch before it is there."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import smn_cli
from smn_cli.adapters.adapter import Adapter
from smn_cli.atomic import atomic_folder
from smn_cli.backbones.loading import Backbone
from smn_cli.errors import BackboneError, UsageError
from smn_cli.onnx.graph import layers_of, write_base, write_static
from smn_cli.onnx.layout import ADAPTERS, CONFIG, CONFIG_SCHEMA, FEATURES, IMAGES, STATIC_GRAPH
from smn_cli.onnx.serving import OnnxBase
from smn_cli.seeding import fixed_generator

TOLERANCE = 1e-3
"""Largest difference from torch's features, as a share of their norm, at which an export is let out."""


@dataclass(frozen=True)
class Exported:
    """What lies in an export's folder.

    Attributes:
        names: of the adapters, by which their files are called; none of a static graph.
        inputs: names of the weights that adapters change.
        difference: from torch's features, as a share of their norm: the largest of base and adapters.
    """

    names: tuple[str, ...]
    inputs: tuple[str, ...]
    difference: float


def export_adapters(
    adapters: Sequence[Adapter], files: Sequence[Path], backbone: Backbone, folder: Path, *, is_static: bool = False
) -> Exported:
    """Write a folder of `OnnxBase`, or with `is_static` one graph of one adapted network.

    Args:
        adapters, files: over one base; what each file is called is what its adapter will be called.
        backbone: the base, as it is run.
        folder: not there, or empty.

    Raises:
        UsageError: two adapters are called alike, or were made for images of different sizes.
        MismatchError, AdapterFileError: as in `Adapter.rebuild`.
        BackboneError: torch cannot export the network, or ONNX Runtime computes something else.
    """
    names = tuple(path.stem for path in files)
    if len({*names}) < len(names):
        raise UsageError(f"two adapters are called alike among {', '.join(names)}: rename a file")
    if len({adapter.preprocessing for adapter in adapters}) > 1:
        sizes = ", ".join(
            f"{name} {adapter.preprocessing.size} px" for name, adapter in zip(names, adapters, strict=True)
        )
        raise UsageError(f"the adapters want images prepared in different ways ({sizes}): export them apart")
    model, preprocessing = backbone.model.cpu().eval(), adapters[0].preprocessing
    images = torch.rand(2, 3, preprocessing.size, preprocessing.size, generator=fixed_generator())
    with atomic_folder(folder) as making:
        if is_static:
            (adapter,) = adapters
            with adapter.applied(model):
                write_static(model, making, preprocessing.size, layers_of(adapter))
                return Exported((), (), _compare_static(model, making, images))
        inputs = sorted({name for adapter in adapters for name in _changed(adapter)})
        write_base(model, making, preprocessing.size, inputs=inputs)
        (making / ADAPTERS).mkdir()
        for path, name in zip(files, names, strict=True):
            shutil.copyfile(path, making / ADAPTERS / f"{name}.safetensors")
        content = {
            "schema": CONFIG_SCHEMA,
            "smn": smn_cli.__version__,
            "arch": backbone.arch,
            "tag": backbone.tag,
            "base_digest": adapters[0].header.base_digest,
            "preprocessing": preprocessing.to_json(),
            "num_features": backbone.num_features,
            "inputs": inputs,
        }
        (making / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
        return Exported(names, tuple(inputs), _compare(adapters, names, model, making, images))


def _changed(adapter: Adapter) -> list[str]:
    return [entry.name for entry in adapter.header.masks] + [name for name, _ in adapter.header.norm_stats]


@torch.inference_mode()
def _compare(
    adapters: Sequence[Adapter], names: Sequence[str], model: nn.Module, folder: Path, images: torch.Tensor
) -> float:
    base = OnnxBase(folder)
    differences = [_difference(model(images).numpy(), base.run(images.numpy()))]
    for adapter, name in zip(adapters, names, strict=True):
        with adapter.applied(model):
            expected = model(images).numpy()
        found = base.run(images.numpy(), base.adapter(folder / ADAPTERS / f"{name}.safetensors"))
        differences.append(_difference(expected, found))
    return max(differences)


@torch.inference_mode()
def _compare_static(model: nn.Module, folder: Path, images: torch.Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / STATIC_GRAPH), providers=["CPUExecutionProvider"])
    (found,) = session.run([FEATURES], {IMAGES: images.numpy()})
    return _difference(model(images).numpy(), found)


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    difference = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not difference <= TOLERANCE:  # also where it is no number
        raise BackboneError(
            f"ONNX Runtime computes other features than torch ({difference:.2g} of their norm): not exported"
        )
    return difference
