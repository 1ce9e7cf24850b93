"""A network as an ONNX graph whose weights keep their names, so that some of them can be inputs."""

import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smn_cli.adapters.adapter import Adapter
from smn_cli.adapters.fingerprint import IGNORED_SUFFIX
from smn_cli.errors import BackboneError, UsageError
from smn_cli.onnx.layout import FEATURES, GRAPH, IMAGES, LOGITS, READOUT, STATIC_GRAPH, WEIGHTS

_LENGTH_BYTES = 8
MAX_PROTOBUF_BYTES = 2_000_000_000


class WithOutputs(nn.Module):
    """Features, and what linear layers make of them.

    Args:
        model: (B, 3, H, W) to features (B, F).
        layers: weight (d, F) and bias (d,) by the output's name.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self.layers = nn.ModuleDict()
        for name, (weight, bias) in layers.items():
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.layers[name] = layer

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features (B, F), then (B, d) of each layer."""
        features = self.model(images)
        return features, *(layer(features) for layer in self.layers.values())


def write_base(model: nn.Module, folder: Path, size: int, *, inputs: Collection[str]) -> None:
    """Write the base's graph and its weights, each of them once.

    Args:
        model: without classifier, in eval mode, on the CPU, with weights of float32.
        folder: that exists.
        size: of the images, in pixels; how many there are is left open.
        inputs: names of the weights that may be given at every run.

    Raises:
        BackboneError: torch cannot export this network, or a weight is not in the graph under its name.
    """
    proto = _exported(model, size, [FEATURES])
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(IGNORED_SUFFIX)}
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / WEIGHTS)
    places = _places(folder / WEIGHTS)
    held = {initializer.name: initializer for initializer in proto.graph.initializer}
    if lost := [name for name in inputs if name not in held]:
        raise BackboneError(
            f"the graph of {type(model).__name__} has no weight {lost[0]}: it cannot be swapped; "
            f"a later torch than {torch.__version__} may keep it"
        )
    from onnx import helper

    for name, initializer in held.items():
        if name in places:
            _point(initializer, *places[name])
    for name in inputs:
        shape = list(held[name].dims)
        proto.graph.input.append(helper.make_tensor_value_info(name, held[name].data_type, shape))
    (folder / GRAPH).write_bytes(proto.SerializeToString())


def write_static(model: nn.Module, folder: Path, size: int, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Write one network as one plain file, with further outputs by name.

    Raises:
        BackboneError: torch cannot export this network.
        UsageError: it is too large for one file.
    """
    proto = _exported(WithOutputs(model, layers).eval(), size, [FEATURES, *layers])
    if proto.ByteSize() > MAX_PROTOBUF_BYTES:
        raise UsageError(f"`static`: {type(model).__name__} is larger than the 2 GB of an ONNX file: leave it out")
    (folder / STATIC_GRAPH).write_bytes(proto.SerializeToString())


def layers_of(adapter: Adapter) -> dict[str, tuple[Tensor, Tensor]]:
    """What reads an adapter's features, weight (d, F) and bias (d,) by the name of its output.

    A readout of the stages is left out, which the graph does not give.
    """
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    if adapter.readout is not None and not adapter.readout.reads_stages:
        layers[READOUT] = adapter.readout.layer()
    if adapter.head is not None:
        weight, bias = adapter.head.tensors().values()
        layers[LOGITS] = weight, bias
    return layers


def _exported(model: nn.Module, size: int, outputs: list[str]) -> Any:
    images = torch.zeros(2, 3, size, size)
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                optimize=False,  # it would fold weights together, which then have no names of their own
                input_names=[IMAGES],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        except Exception as error:  # what goes wrong in tracing has no class of its own
            reason = " ".join(str(error).split())[:200]
            versions = f"torch {torch.__version__}, onnxscript {version('onnxscript')}"
            raise BackboneError(
                f"torch cannot export {type(model).__name__} to ONNX: {reason} ({versions}: take two of about one age)"
            ) from None
    assert program is not None
    return _without_traces(program.model_proto)


def _without_traces(proto: Any) -> Any:
    """Leave out where each node was traced: paths of this machine, and half of the file."""
    for part in (proto, proto.graph, *proto.functions, *proto.graph.initializer, *proto.graph.input):
        part.ClearField("metadata_props")
    proto.graph.ClearField("value_info")
    for holder in (proto.graph, *proto.functions):
        for node in holder.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own insides, which a user can do nothing about."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Offset in the file, and bytes, of every tensor of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
    start = _LENGTH_BYTES + length
    return {
        name: (start + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _point(initializer: Any, offset: int, length: int) -> None:
    """Let an initializer lie in the weights' file."""
    from onnx import TensorProto

    for field in ("raw_data", "float_data", "int64_data", "int32_data", "double_data"):
        initializer.ClearField(field)
    initializer.ClearField("external_data")
    initializer.data_location = TensorProto.EXTERNAL
    for key, value in {"location": WEIGHTS, "offset": str(offset), "length": str(length)}.items():
        entry = initializer.external_data.add()
        entry.key, entry.value = key, value
