"""Many adapters over one ONNX session: milliseconds alone and in turn, memory, and a server under load.

    python benchmarks/onnx_serving.py --weights FILE --adapters A.safetensors B.safetensors ... --work FOLDER

All adapters are over the one base of FILE. They are exported once; then, side by side in one run, medians of --rounds:
torch (timm's network), the session's base, one adapter again and again, and adapters in turn, one image each. Memory is
that of the process before and after all adapters were expanded. With `wrk` on the machine, examples/onnx_server.py then
answers --seconds of requests for --tenants adapters in turn (the given ones under further names). Markdown on stdout.
"""

import argparse
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import onnxruntime
import torch

from smn_cli.adapters.adapter import load_adapter
from smn_cli.cli import main as smn
from smn_cli.onnx import OnnxBase
from smn_cli.rebuild import backbone_for
from smn_cli.runs.run_config import versions
from smn_cli.seeding import fixed_generator

MB = 2**20
LUA = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("POST", "/tenant" .. string.format("%02d", n % TENANTS), nil, body)
end
local file = io.open("IMAGE", "rb")
body = file:read("*all")
file:close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True, help="what the server is sent")
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs; {versions()}; onnxruntime {onnxruntime.__version__}\n", flush=True)
    folder = export(options)
    alone(folder, options)
    if shutil.which("wrk"):
        under_load(folder, options)


def export(options: argparse.Namespace) -> Path:
    """A folder of as many tenants as wanted, the given adapters in turn."""
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    files = []
    for number, path in zip(range(options.tenants), cycle(options.adapters), strict=False):
        files.append(options.work / f"tenant{number:02d}.safetensors")
        shutil.copyfile(path, files[-1])
    started, folder = time.monotonic(), options.work / "onnx"
    words = ["export", *map(str, files), "--onnx", str(folder), "--weights", str(options.weights)]
    try:
        smn(words)
    except SystemExit as end:
        if end.code:
            sys.exit(f"smn {' '.join(words)} ended with {end.code}")
    print(f"exported in {time.monotonic() - started:.0f} s; each of {options.tenants} adapters compared with torch\n")
    return folder


def alone(folder: Path, options: argparse.Namespace) -> None:
    """Milliseconds and memory in one process."""
    base, stored = OnnxBase(folder), load_adapter(options.adapters[0])
    model = backbone_for(stored, options.weights).model.eval()
    size = stored.preprocessing.size
    image = torch.rand(1, 3, size, size, generator=fixed_generator())
    before = resident()
    started = time.monotonic()
    adapters = [base.adapter(path) for path in sorted((folder / "adapters").iterdir())]
    for adapter in adapters:
        base.run(image.numpy(), adapter)
    each_s, grown = (time.monotonic() - started) / len(adapters), resident() - before
    turns = cycle(adapters)

    @torch.inference_mode()
    def in_torch() -> None:
        model(image)

    ways: dict[str, Callable[[], object]] = {
        "torch, the base": in_torch,
        "session, the base": lambda: base.run(image.numpy()),
        "session, one adapter": lambda: base.run(image.numpy(), adapters[0]),
        f"session, {len(adapters)} adapters in turn": lambda: base.run(image.numpy(), next(turns)),
    }
    seconds = side_by_side(ways, options.rounds)
    print("| | milliseconds an image |\n|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {1000 * statistics.median(values):.1f} |")
    on_disk = sum(path.stat().st_size for path in (folder / "adapters").iterdir())
    whole = (folder / "base.safetensors").stat().st_size
    print(
        f"\n{len(adapters)} adapters: {on_disk / MB:.1f} MB on disk beside a base of {whole / MB:.1f}, {each_s:.2f} s "
        f"to expand and run one, {grown / MB:.0f} MB of memory ({adapters[0].nbytes / MB:.1f} MB of weights each); "
        f"as many checkpoints: {len(adapters) * whole / MB:.0f} MB\n",
        flush=True,
    )


def side_by_side(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds by name, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 3):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if number >= 3:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def under_load(folder: Path, options: argparse.Namespace) -> None:
    """What wrk says of the example server, and the server's memory."""
    script = options.work / "requests.lua"
    script.write_text(LUA.replace("TENANTS", str(options.tenants)).replace("IMAGE", str(options.image.absolute())))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[1]
    words = ["-m", "uvicorn", "--app-dir", str(root / "examples"), "onnx_server:app", "--port", str(port)]
    environment = {**os.environ, "SMN_SERVED": str(folder)}
    with subprocess.Popen([sys.executable, *words, "--log-level", "warning"], env=environment) as server:
        try:
            wait_for(port)
            load = ["wrk", "-t1", "-c4", "--latency", "-s", str(script), f"http://127.0.0.1:{port}/"]
            subprocess.run([*load, f"-d{options.seconds}s"], capture_output=True, check=True)  # every adapter once
            done = subprocess.run([*load, f"-d{options.seconds}s"], capture_output=True, text=True, check=True)
            memory = Path(f"/proc/{server.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
            print(f"{done.stdout}\nserver's memory with {options.tenants} adapters: {int(memory) / 1024:.0f} MB")
        finally:
            server.terminate()


def wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    sys.exit("the server does not answer")


def resident() -> int:
    """Bytes of memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmRSS:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
