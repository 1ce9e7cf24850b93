"""ResNet-50 end to end through the command line, on weights made with a seed: sizes, times, exactness.

    python benchmarks/resnet50.py --images FOLDER --work FOLDER

Random weights show what the machinery costs, not what adaptation gains.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file

PLAIN_TIMM = """
import sys, timm, torch
from safetensors.torch import save_file
model = timm.create_model("resnet50", checkpoint_path=sys.argv[1]).eval()
model.reset_classifier(0)
images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
with torch.inference_mode():
    save_file({"features": model(images)}, sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    weights, run, adapter, checkpoint = (
        work / name for name in ("resnet50.safetensors", "run", "a.safetensors", "c.safetensors")
    )
    torch.manual_seed(0)
    save_file(timm.create_model("resnet50").state_dict(), weights)
    adapt = ["adapt", options.images, "--arch", "resnet50", "--weights", weights, "--out", run, "--overwrite"]
    timed(*adapt, "--steps", options.steps, "--batch-size", 16, "--size", 64, "--keep", "last", "--lr-scores", 0.1)
    packed = timed("pack", run, "--out", adapter, "--overwrite")
    timed("apply", adapter, "--weights", weights, "--out", checkpoint, "--overwrite")
    timed("verify", adapter, "--weights", weights, "--checkpoint", checkpoint)
    print({key: packed[key] for key in ("codec", "density", "fp32_bytes", "bits_bytes", "file_bytes", "ratio")})
    subprocess.run([sys.executable, "-c", PLAIN_TIMM, str(checkpoint), str(work / "out.safetensors")], check=True)
    print("outputs of another process equal the live network:", torch.equal(live(adapter, weights), load_file(
        work / "out.safetensors")["features"]))  # fmt: skip


def timed(*words: object) -> dict:
    """Run a command, print its seconds, the start of Python included, and return its JSON."""
    started = time.monotonic()
    command = [sys.executable, "-m", "smn_cli", *map(str, words), "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    print(f"smn {words[0]}: {time.monotonic() - started:.1f} s")
    return json.loads(done.stdout)


def live(adapter: Path, weights: Path) -> torch.Tensor:
    """Features of the network with the adapter put on in place."""
    import smn_cli

    model = timm.create_model("resnet50", checkpoint_path=str(weights)).eval()
    smn_cli.apply_adapter(model, adapter)
    model.reset_classifier(0)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(images)


if __name__ == "__main__":
    main()
