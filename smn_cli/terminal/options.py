"""Options that several commands share, so that each is worded once."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from smn_cli.atomic import may_be_written
from smn_cli.backbones.packaged import lite0_weights
from smn_cli.config.option import any_of
from smn_cli.errors import UsageError
from smn_cli.hub import local_file
from smn_cli.recipes import Precision
from smn_cli.terminal.arch_names import complete_arch
from smn_cli.terminal.option_parameters import choosing

DEMO = "demo"
"""What `--weights` may be instead of a path: tf_efficientnet_lite0's, from the package that the demo needs."""


def weights_path(text: str) -> Path:
    """The path of a weights file, by its name or as `DEMO`, unless a file of that name lies there.

    Raises:
        BackboneError: the extra is not installed.
    """
    path = Path(text)
    return lite0_weights() if text == DEMO and not path.exists() else path


TAKES_ADAPTER: dict[str, Any] = {"parser": local_file}
"""Of a parameter that is an adapter's path: an address on the hub becomes the file in the cache."""
ImagesArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGES...", help="Folders, image files, tar, zip, parquet, text files of paths."),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help="Any timm model name, or hf-hub:USER/NAME.",
        rich_help_panel="Network",
        autocompletion=complete_arch,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--arch", help="timm model, for a base alone.", rich_help_panel="Network", autocompletion=complete_arch
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="RUN", help="Run folder instead of a file.", rich_help_panel="Network"),
]
SizeOption = Annotated[
    int | None,
    typer.Option("--size", min=16, metavar="N", help="Image side; by default the adapter's.", rich_help_panel="Data"),
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; '-' is stdout.", rich_help_panel="Output"),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights (.safetensors, .pth) instead of timm's hub; demo: the extra's.",
        parser=weights_path,
        rich_help_panel="Network",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel="Run")]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, metavar="N", help="Image loading processes; by default by the CPUs.", rich_help_panel="Run"
    ),
]
PRECISIONS = ("auto", *get_args(Precision))
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="fp32; bf16 for matrix products and convolutions; auto: what suits.",
        rich_help_panel="Run",
        **choosing(PRECISIONS),
    ),
]


def resolve_device(name: str) -> str:
    """The device a name means here.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}): try --device cpu") from None
    return name


def resolve_precision(name: str, device: str) -> Precision:
    """fp32 or bf16; "auto" is what suits the device.

    Raises:
        UsageError: there is no such precision.
    """
    import torch

    from smn_cli.evaluation.precision import fast_precision

    if name == "auto":
        return fast_precision(torch.device(device))
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}: expected {any_of(PRECISIONS)}")
    return name  # type: ignore[return-value]


def resolve_workers(workers: int | None) -> int:
    """Loader processes: as asked, or half of the CPUs less the one that trains (none on two CPUs), at most 16."""
    from smn_cli.processors import num_processors

    return workers if workers is not None else min(16, max(0, num_processors() // 2 - 1))


def check_out_file(path: Path, *, overwrite: bool) -> None:
    """Refuse an output file that cannot or should not be written, before the work is done.

    Raises:
        UsageError: its folder is missing, or it exists and may not be replaced.
    """
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: the folder {path.absolute().parent} does not exist")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder: expected a file name")
    if not may_be_written(path):
        raise UsageError(f"--out {path}: it may not be written to there; name another file")
    if path.exists() and not overwrite:
        raise UsageError(f"--out {path} exists: --overwrite replaces it")
