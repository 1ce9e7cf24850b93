"""Many adapters behind one address: POST an image to /steel, get the features of adapter "steel" as JSON.

    smn export steel.safetensors leaves.safetensors --onnx served/
    pip install 'smn-cli[onnx]' starlette uvicorn
    SMN_SERVED=served uvicorn --app-dir examples onnx_server:app

One ONNX Runtime session holds the base; an adapter takes the memory of the weights that it changes. SMN_ADAPTERS of
them, 64, are expanded before the server answers, half a second each; others at their first request, while the rest is
served.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
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


most = int(os.environ.get("SMN_ADAPTERS", "64"))
one_at_a_time = ThreadPoolExecutor(1)


@lru_cache(maxsize=most)
def expanded(name: str) -> Future[OnnxAdapter]:
    """From the small file; the least used one makes room."""
    return one_at_a_time.submit(base.adapter, files[name])


for name in list(files)[:most]:
    expanded(name).result()


def features(name: str, image: bytes) -> list[float]:
    try:
        prepared = base.prepare(Image.open(BytesIO(image)))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise HTTPException(415, "the body is no image that can be read") from None
    row: list[float] = base.run(prepared[None], expanded(name).result())[0].tolist()
    return row


async def embed(request: Request) -> JSONResponse:
    name = request.path_params["adapter"]
    if name not in files:
        raise HTTPException(404, f"no adapter {name}: there are {', '.join(files)}")
    return JSONResponse({"features": await run_in_threadpool(features, name, await request.body())})


app = Starlette(routes=[Route("/{adapter}", embed, methods=["POST"])])
