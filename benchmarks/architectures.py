"""Whether smn is exact on every family of networks that timm lists: the smallest of each, with random weights.

    python benchmarks/architectures.py             # goes on where it stopped; --again starts anew
    python benchmarks/architectures.py coat levit  # these families

A tenth of the weights of convolution and linear layers is cut at random. The adapter is made and read back as in a
run, applied over the weights file, and plain timm loads the checkpoint as `smn apply` prints it: its features have to
be those of the live masked network, bit for bit. Results go to `benchmarks/results/architectures.jsonl` and `.md`.
"""

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry
from torch import Tensor, nn

from smn_cli.adapters.adapter import make_adapter
from smn_cli.backbones.loading import Backbone, check_sizes, load_backbone
from smn_cli.errors import BackboneError, SmnError
from smn_cli.masking.backbone import MaskedBackbone, run_backbone
from smn_cli.masking.maskable import maskable_names
from smn_cli.masking.ties import tied_names, under_all_names
from smn_cli.rebuild import rebuild, save_checkpoint
from smn_cli.runs.read_back import read_back

RESULTS = Path(__file__).parent / "results"
ROWS, TABLE = RESULTS / "architectures.jsonl", RESULTS / "architectures.md"
SIZES = (64, 128)
"""Sides tried before the native one, which is what costs time."""
SPECIAL = (
    "coat_lite_tiny", "deit_tiny_distilled_patch16_224", "eca_nfnet_l0", "mobileone_s0", "repvgg_a0", "resnet18",
    "resnetv2_50x1_bit", "vit_tiny_patch16_224",
)  # fmt: skip
"""Beside the smallest of each family: two classifiers, branches to be fused, standardised weights, what people use."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # two would wait for each other where other jobs run
    listed = families()
    rows = {} if options.again else read_rows()
    wanted = [(family, listed[family]) for family in options.families or sorted(listed)]
    if not options.families:
        wanted += [(_registry._model_to_module[name], [name]) for name in SPECIAL]
    for family, names in wanted:
        key = family if len(names) > 1 or names[0] not in SPECIAL else names[0]
        if options.families or key not in rows:
            rows[key] = {"key": key, "family": family, **judge_family(names)}
            print(json.dumps(rows[key]), file=sys.stderr, flush=True)
            write_rows(rows)
    write_table(sorted(rows.values(), key=lambda row: (row["family"], row["key"] != row["family"])))


def families() -> dict[str, list[str]]:
    """Models by the module of timm that holds them."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in timm.list_models():
        found[_registry._model_to_module[name]].append(name)
    return found


def smallest(names: list[str]) -> tuple[str, int]:
    """The one with the fewest parameters, and how many."""
    counts = {}
    for name in names:
        with torch.device("meta"):
            counts[name] = sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    best = min(counts, key=lambda name: counts[name])
    return best, counts[best]


def judge_family(names: list[str]) -> dict[str, Any]:
    """What becomes of a family's smallest model."""
    arch, num_parameters = smallest(names)
    started = time.perf_counter()
    row: dict[str, Any] = {"model": arch, "parameters": num_parameters}
    with TemporaryDirectory() as folder:
        try:
            row |= judge(arch, Path(folder))
        except SmnError as error:
            row |= {"result": "refused", "why": str(error).replace(folder, "")}
        except Exception as error:  # a fault of smn, told in the table so that the other families are judged, too
            row |= {"result": "fault", "why": f"{type(error).__name__} {error}".splitlines()[0]}
    return {**row, "seconds": round(time.perf_counter() - started, 1)}


def judge(arch: str, folder: Path) -> dict[str, Any]:
    """From random weights to a checkpoint, and whether plain timm then computes the masked network's bits."""
    weights = folder / "weights.safetensors"
    save_file({name: tensor.clone() for name, tensor in random_weights(arch).items()}, weights)
    backbone = load_backbone(arch, weights)
    size = smallest_size(backbone)
    row: dict[str, Any] = {"px": size, "tied": len(tied_names(backbone.model))}
    masked = mask_a_tenth(backbone.model)
    masks = masked.masks()
    adapter = make_adapter(
        backbone.model.state_dict(), under_all_names(masks, backbone.model), arch=backbone.arch, codec="bits"
    )
    adapter = read_back(adapter, backbone, masks, {}, size=size)
    network = rebuild(adapter, backbone)
    checkpoint = folder / "adapted.safetensors"
    save_checkpoint(network, checkpoint)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    loaded = eval(network.load_line(backbone.arch, checkpoint), {"timm": timm}).eval()
    loaded.reset_classifier(0)
    with torch.inference_mode():
        live = run_backbone(backbone.model, images, masked.final_weights())
        features, base = loaded.eval()(images), backbone.model(images)
    if torch.equal(base, live):
        return {**row, "result": "wrong", "why": "the mask changed nothing"}
    if not torch.equal(features, live):
        return {**row, "result": "wrong", "why": f"{(features - live).abs().max():.2g} apart"}
    return {**row, "result": "exact"}


def smallest_size(backbone: Backbone) -> int:
    """Side of the images: the first of SIZES that the network takes, else its native one."""
    for size in SIZES:
        try:
            check_sizes(backbone, [size])
            return min(size, backbone.native_size)
        except BackboneError:
            continue
    check_sizes(backbone, [backbone.native_size])
    return backbone.native_size


def random_weights(arch: str) -> dict[str, Tensor]:
    """Seeded weights in which no statistic is trivial and no residual branch starts at zero."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = timm.create_model(arch).state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and not tensor.any():
            tensor.normal_(0, 0.02)
        elif name.endswith(("gamma", "gamma1", "gamma2", "gamma3")) and tensor.is_floating_point():
            tensor.fill_(0.5)  # CaiT and its kin start at a hundred thousandth
    return state


def mask_a_tenth(model: nn.Module) -> MaskedBackbone:
    """Scores for all that a mask may touch by itself; one in ten below the threshold."""
    names = maskable_names(model, include_depthwise=True, include_stem=True)
    generator = torch.Generator().manual_seed(2)
    scores = {name: torch.rand(model.get_parameter(name).shape, generator=generator) - 0.1 for name in names}
    return MaskedBackbone(model, scores)


def read_rows() -> dict[str, dict[str, Any]]:
    """What was found before, by family or special model."""
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def write_rows(rows: dict[str, dict[str, Any]]) -> None:
    """All rows, in order."""
    ROWS.write_text("".join(json.dumps(rows[key]) + "\n" for key in sorted(rows)))


def write_table(rows: list[dict[str, Any]]) -> None:
    """The Markdown table, counts first."""
    counts = {kind: sum(row["result"] == kind for row in rows) for kind in ("exact", "refused", "wrong", "fault")}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    lines = [
        f"{len({row['family'] for row in rows})} families of timm {timm.__version__}, the smallest model of each and "
        f"{len(SPECIAL)} others, random weights, a tenth of the maskable weights cut: {told}. "
        f"`python benchmarks/architectures.py`, torch {torch.__version__}.",
        "",
        "| family | model | parameters | tied tensors | px | result | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = row["result"] + (f": {row['why']}" if "why" in row else "")
        cells = [row["family"], row["model"], f"{row['parameters']:,}", row.get("tied", "-"), row.get("px", "-")]
        lines.append("| " + " | ".join(map(str, [*cells, result, row["seconds"]])) + " |")
    TABLE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
