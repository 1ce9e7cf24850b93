"""Many adapters over one ONNX session: milliseconds alone and in turn, memory, and a server under load.

    python benchmarks/onnx_serving.py --weights FILE --adapters A.safetensors B.safetensors ... --work FOLDER

All adapters are over the one base of FILE. They are exported once; then, side by side in one run, medians of --rounds:
torch (timm's network), the session's base, one adapter again and again, and adapters in turn, one image each. Memory is
that of the process before and after all adapters were expanded. With `wrk` on the machine, examples/onnx_server.py then
answers requests for --tenants adapters in turn (the given ones under further names), and beside it a server that holds
as many whole ONNX networks (onnx_networks.py): --seconds each, in turn, --loads times. Markdown on stdout.
"""

import argparse
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import onnxruntime
import torch

from smn_cli.adapters.adapter import load_adapter
from smn_cli.cli import main as smn
from smn_cli.onnx import OnnxBase
from smn_cli.onnx.layout import CONFIG, STATIC_GRAPH
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
    parser.add_argument("--loads", type=int, default=3)
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs; {versions()}; onnxruntime {onnxruntime.__version__}\n", flush=True)
    folder = export(options)
    alone(folder, options)
    if shutil.which("wrk"):
        under_load(folder, export_whole(folder, options), options)


def export(options: argparse.Namespace) -> Path:
    """A folder of as many tenants as wanted, the given adapters in turn."""
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    given = options.adapters[: options.tenants]
    files = [options.work / f"tenant{number:02d}.safetensors" for number in range(len(given))]
    for path, file in zip(given, files, strict=True):
        shutil.copyfile(path, file)
    started, folder = time.monotonic(), options.work / "onnx"
    smn_does("export", *map(str, files), "--onnx", str(folder), "--weights", str(options.weights))
    print(f"exported in {time.monotonic() - started:.0f} s; each of {len(files)} adapters compared with torch\n")
    for number in range(len(given), options.tenants):
        shutil.copyfile(files[number % len(given)], folder / "adapters" / f"tenant{number:02d}.safetensors")
    return folder


def export_whole(folder: Path, options: argparse.Namespace) -> Path:
    """A folder of as many whole networks, for onnx_networks.py."""
    networks = options.work / "networks"
    networks.mkdir()
    shutil.copyfile(folder / CONFIG, networks / CONFIG)
    for number, path in enumerate(options.adapters[: options.tenants]):
        whole = options.work / f"whole{number}"
        smn_does("export", str(path), "--static", "--onnx", str(whole), "--weights", str(options.weights))
        for tenant in range(number, options.tenants, len(options.adapters)):
            shutil.copyfile(whole / STATIC_GRAPH, networks / f"tenant{tenant:02d}.onnx")
    return networks


def smn_does(*words: str) -> None:
    try:
        smn(list(words))
    except SystemExit as end:
        if end.code:
            sys.exit(f"smn {' '.join(words)} ended with {end.code}")


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


def under_load(adapters: Path, networks: Path, options: argparse.Namespace) -> None:
    """Both servers at once, asked in turn: what wrk says of them, and their memory."""
    script, root = options.work / "requests.lua", Path(__file__).parents[1]
    script.write_text(LUA.replace("TENANTS", str(options.tenants)).replace("IMAGE", str(options.image.absolute())))
    load = ["wrk", "-t1", "-c4", "--latency", "-s", str(script), f"-d{options.seconds}s"]
    with (
        server(root / "examples", "onnx_server:app", adapters) as first,
        server(root / "benchmarks", "onnx_networks:app", networks) as second,
    ):
        ways = {f"{options.tenants} adapters over one session": first, f"{options.tenants} whole networks": second}
        told: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(options.loads):
            for way, (port, _, _) in ways.items():
                done = subprocess.run([*load, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
                told[way].append(figures(done.stdout))
        print(f"| {options.loads} times {options.seconds} s, 4 connections | " + " | ".join(ways) + " |\n|---|---|---|")
        for name in told[next(iter(told))][0]:
            cells = [", ".join(f"{row[name]:g}" for row in rows) for rows in told.values()]
            print(f"| {name} | " + " | ".join(cells) + " |")
        print("| start, s | " + " | ".join(f"{started_s:.0f}" for _, _, started_s in ways.values()) + " |")
        print("| memory, MB | " + " | ".join(f"{resident(pid) / MB:.0f}" for _, pid, _ in ways.values()) + " |")


def figures(text: str) -> dict[str, float]:
    """What wrk printed: requests a second, milliseconds, what went wrong."""
    unit_ms = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    found: dict[str, float] = {"requests a second": float(text.partition("Requests/sec:")[2].split()[0])}
    for share in ("50%", "90%", "99%"):
        match = re.search(rf"{share}\s+([\d.]+)(us|ms|s)", text)
        assert match, text
        value, unit = match.groups()
        found[f"{share}, ms"] = float(f"{float(value) * unit_ms[unit]:.3g}")
    timeouts, refused = re.search(r"timeout (\d+)", text), re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    found["answered too late, or not 200"] = sum(int(each[1]) for each in (timeouts, refused) if each)
    return found


@contextmanager
def server(folder: Path, app: str, served: Path) -> Iterator[tuple[int, int, float]]:
    """A server in a process of its own: port, process, seconds until it answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "uvicorn", "--app-dir", str(folder), app, "--port", str(port), "--log-level", "warning"]
    started = time.monotonic()
    with subprocess.Popen([sys.executable, *words], env={**os.environ, "SMN_SERVED": str(served)}) as process:
        try:
            wait_for(port)
            yield port, process.pid, time.monotonic() - started
        finally:
            process.terminate()


def wait_for(port: int) -> None:
    for _ in range(1500):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    sys.exit("the server does not answer")


def resident(process: int | str = "self") -> int:
    """Bytes of memory of a process."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        return int(status.read_text().partition("VmRSS:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
