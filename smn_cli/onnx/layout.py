"""What lies in a folder of `smn export`, and under which names."""

GRAPH = "base.onnx"
"""The network; weights that an adapter may change are inputs whose defaults are the base's."""
WEIGHTS = "base.safetensors"
"""The base's tensors, where the graph finds them too: each weight is on disk once."""
CONFIG = "config.json"
ADAPTERS = "adapters"
STATIC_GRAPH = "model.onnx"
CONFIG_SCHEMA = "smn.onnx/1"

IMAGES, FEATURES, READOUT, LOGITS = "images", "features", "readout", "logits"
"""Inputs and outputs of the graphs."""
