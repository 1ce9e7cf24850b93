"""The example server over HTTP: a real server, two adapters, wrong names and bodies."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smn_cli.adapters.adapter import load_adapter, make_adapter
from smn_cli.backbones.loading import load_backbone
from smn_cli.onnx import OnnxBase
from smn_cli.onnx.export import export_adapters
from tests.adapters.forging import random_masks
from tests.conftest import CONVNET

pytestmark = pytest.mark.slow
for module in ("onnxscript", "onnxruntime", "uvicorn", "starlette"):
    pytest.importorskip(module, reason="needs the onnx extra and a web server")
httpx = pytest.importorskip("httpx", reason="asks over HTTP")

ROOT = Path(__file__).parents[2]
HOW = {"size": 64, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "interpolation": "bicubic"}


@pytest.fixture
def served(weights_file: Callable[[str], Path], tmp_path: Path) -> Path:
    backbone = load_backbone(CONVNET, weights_file(CONVNET))
    state = backbone.model.state_dict()
    files = [tmp_path / "steel.safetensors", tmp_path / "leaves.safetensors"]
    for number, path in enumerate(files):
        masks = random_masks(state, density=0.8, seed=number)
        make_adapter(state, masks, arch=CONVNET, preprocessing=HOW).save(path)
    export_adapters([load_adapter(path) for path in files], files, backbone, tmp_path / "onnx")
    return tmp_path / "onnx"


@pytest.fixture
def address(served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of the server, in a process of its own."""
    monkeypatch.undo()  # tests have no network otherwise; this one talks to itself
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "uvicorn", "--app-dir", str(ROOT / "examples"), "onnx_server:app", "--port", str(port)]
    environment = {"SMN_SERVED": str(served), "PYTHONPATH": str(ROOT), "PATH": ""}
    with subprocess.Popen([sys.executable, *words, "--log-level", "warning"], env=environment) as process:
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the server does not answer")


def test_adapters_over_http(address: str, served: Path) -> None:
    base, file = OnnxBase(served), BytesIO()
    image = Image.fromarray(np.arange(90 * 70 * 3, dtype=np.uint32).reshape(90, 70, 3).astype(np.uint8))
    image.save(file, "PNG")
    for name in ("steel", "leaves", "steel"):
        answer = httpx.post(f"{address}/{name}", content=file.getvalue(), timeout=60)
        assert answer.status_code == 200
        adapter = base.adapter(served / "adapters" / f"{name}.safetensors")
        expected = base.run(base.prepare(image)[None], adapter)[0]
        np.testing.assert_allclose(answer.json()["features"], expected, rtol=1e-5, atol=1e-6)
    assert httpx.post(f"{address}/wood", content=file.getvalue()).status_code == 404
    assert httpx.post(f"{address}/steel", content=b"no image").status_code == 415
