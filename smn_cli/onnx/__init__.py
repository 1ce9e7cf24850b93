"""One base graph for many adapters in ONNX Runtime: written by `smn export`, served by `OnnxBase` without torch."""

from smn_cli.onnx.serving import OnnxAdapter, OnnxBase

__all__ = ["OnnxAdapter", "OnnxBase"]
