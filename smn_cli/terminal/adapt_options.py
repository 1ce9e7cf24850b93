"""The options that shape a run, worded once for all commands that start or plan one."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from smn_cli.config.options import AdaptOptions

DEFAULTS = AdaptOptions()

OPTIONS: dict[str, Any] = {
    "recipe": Annotated[
        str, typer.Option("--recipe", help="default; swav without a teacher; paper for its exact settings.")
    ],
    "train": Annotated[
        str, typer.Option("--train", help="mask; or a baseline: norm (statistics only), full, head (nothing).")
    ],
    "labels": Annotated[
        str | None, typer.Option("--labels", help="folders: class folders label the images; a classifier is learned.")
    ],
    "label_fraction": Annotated[
        float | None, typer.Option("--label-fraction", help="Share of the labeled images used, even over the classes.")
    ],
    "keep": Annotated[str | None, typer.Option("--keep", help="best (or the base, if nothing beat it), or last.")],
    "steps": Annotated[int | None, typer.Option("--steps", help="Length of the run; by default from the images.")],
    "epochs": Annotated[int | None, typer.Option("--epochs", help="The same, in passes over the images.")],
    "batch_size": Annotated[int, typer.Option("--batch-size", help="Images a step.")],
    "size": Annotated[int | None, typer.Option("--size", help="Side of the global views, in pixels.")],
    "teacher_size": Annotated[
        int | None, typer.Option("--teacher-size", help="Side of the views that the frozen network sees.")
    ],
    "local_views": Annotated[int | None, typer.Option("--local-views", help="Small views an image.")],
    "prototypes": Annotated[int | None, typer.Option("--prototypes", help="By default from the images.")],
    "queue": Annotated[int | None, typer.Option("--queue", help="Embeddings kept for the codes.")],
    "lr_scores": Annotated[float | None, typer.Option("--lr-scores", help="Learning rate of the scores.")],
    "lr_head": Annotated[float | None, typer.Option("--lr-head", help="Learning rate of the head.")],
    "norm_stats": Annotated[
        str | None, typer.Option("--norm-stats", help="frozen, or adapt to re-estimate and carry them.")
    ],
    "max_bad": Annotated[float, typer.Option("--max-bad", help="Fraction of bad images put up with.")],
    "precision": Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16; by default what trains fastest on the device.")
    ],
    "compile": Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile first.")],
    "grad_checkpoint": Annotated[
        bool, typer.Option("--grad-checkpoint", help="Less memory, a third more time: activations are computed twice.")
    ],
    "mask_kind": Annotated[
        str, typer.Option("--mask-kind", help="threshold; topk to keep a given fraction of every tensor.")
    ],
    "density": Annotated[float | None, typer.Option("--density", help="The fraction that topk keeps.")],
    "density_start": Annotated[
        float | None, typer.Option("--density-start", help="It falls from here to --density, step by step.")
    ],
    "score_init": Annotated[
        str | None, typer.Option("--score-init", help="Where scores start: magnitude, constant, kaiming (topk only).")
    ],
    "mask_only": Annotated[
        list[str],
        typer.Option(
            "--mask-only",
            metavar="SPEC",
            help="Weights that may be cut: blocks:N, name:PATTERN, all-but:PATTERN, random:P, largest:P, smallest:P; "
            "may be repeated.",
        ),
    ],
    "include_stem": Annotated[
        bool | None, typer.Option("--include-stem/--no-include-stem", help="Whether to mask the first layer.")
    ],
    "include_depthwise": Annotated[
        bool | None,
        typer.Option("--include-depthwise/--no-include-depthwise", help="Whether to mask depthwise convolutions."),
    ],
    "seed": Annotated[int, typer.Option("--seed", help="Two runs with one seed are equal.")],
}
"""Fields of `AdaptOptions` that can be asked for, with their options; the defaults are the fields' own."""


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `OPTIONS` in the place of its parameter `options`, an `AdaptOptions`."""
    own = inspect.signature(command).parameters.values()
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(DEFAULTS, name), annotation=option)
        for name, option in OPTIONS.items()
    ]
    merged: list[inspect.Parameter] = []
    for parameter in own:
        merged += shared if parameter.name == "options" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    @wraps(command)
    def with_options(**given: Any) -> None:
        values = {name: given.pop(name) for name in OPTIONS}
        options = AdaptOptions(**values | {"mask_only": tuple(values["mask_only"] or ())})
        command(options=options, **given)

    with_options.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]  # what Typer reads
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
    return with_options
