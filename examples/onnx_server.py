"""Many adapters behind one address: POST an image to /steel, get the features of adapter "steel" as JSON.

    smn export steel.safetensors leaves.safetensors --onnx served/
    pip install 'smn-cli[onnx]' starlette uvicorn
    SMN_SERVED=served uvicorn --app-dir examples onnx_server:app

One ONNX Runtime session holds the base; an adapter takes the memory of the weights that it changes.
"""

import os
from functools import lru_cache
from io import BytesIO

from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from smn_cli.onnx import OnnxAdapter, OnnxBase

base = OnnxBase(os.environ["SMN_SERVED"])
files = {path.stem: path for path in sorted((base.folder / "adapters").glob("*.safetensors"))}


@lru_cache(maxsize=int(os.environ.get("SMN_ADAPTERS", "64")))
def expanded(name: str) -> OnnxAdapter:
    """From the small file at the first request; the least used one makes room."""
    return base.adapter(files[name])


def features(name: str, image: bytes) -> list[float]:
    try:
        prepared = base.prepare(Image.open(BytesIO(image)))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise HTTPException(415, "the body is no image that can be read") from None
    row: list[float] = base.run(prepared[None], expanded(name))[0].tolist()
    return row


async def embed(request: Request) -> JSONResponse:
    name = request.path_params["adapter"]
    if name not in files:
        raise HTTPException(404, f"no adapter {name}: there are {', '.join(files)}")
    return JSONResponse({"features": await run_in_threadpool(features, name, await request.body())})


app = Starlette(routes=[Route("/{adapter}", embed, methods=["POST"])])
