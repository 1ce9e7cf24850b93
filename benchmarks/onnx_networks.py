"""What examples/onnx_server.py answers, from a whole network for each name: the other side of onnx_serving.py.

    SMN_SERVED=FOLDER uvicorn --app-dir benchmarks onnx_networks:app

FOLDER holds NAME.onnx of `smn export --static`, and config.json of an export of adapters over the same base. All are in
memory before the server answers.
"""

import json
import os
from io import BytesIO
from pathlib import Path

from onnxruntime import InferenceSession
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from smn_cli.onnx.layout import CONFIG, FEATURES, IMAGES
from smn_cli.onnx.serving import prepare_image

folder = Path(os.environ["SMN_SERVED"])
preprocessing = json.loads((folder / CONFIG).read_bytes())["preprocessing"]
networks = {
    path.stem: InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in sorted(folder.glob("*.onnx"))
}


def features(name: str, image: bytes) -> list[float]:
    try:
        prepared = prepare_image(Image.open(BytesIO(image)), preprocessing)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise HTTPException(415, "the body is no image that can be read") from None
    row: list[float] = networks[name].run([FEATURES], {IMAGES: prepared[None]})[0][0].tolist()
    return row


async def embed(request: Request) -> JSONResponse:
    name = request.path_params["adapter"]
    if name not in networks:
        raise HTTPException(404, f"no adapter {name}: there are {', '.join(networks)}")
    return JSONResponse({"features": await run_in_threadpool(features, name, await request.body())})


app = Starlette(routes=[Route("/{adapter}", embed, methods=["POST"])])
