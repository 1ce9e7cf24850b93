"""JSON of commands about images and their features: `smn embed`, `smn data`."""

from typing import Annotated, Literal

from typing_extensions import TypedDict


class PreprocessingJson(TypedDict):
    """How an image becomes a network's input: shorter side to `size`, centre crop, [0, 1], less `mean`, by `std`."""

    size: Annotated[int, "side of the square input, in pixels"]
    mean: Annotated[list[float], "of red, green and blue, on the scale 0 to 1"]
    std: Annotated[list[float], "of red, green and blue, above 0"]
    interpolation: Annotated[str, "of the resizing: `bicubic`, `bilinear`, ..."]


class BadImageJson(TypedDict):
    """An image that was left out."""

    path: Annotated[str, "of the image"]
    reason: Annotated[str, "why it cannot be used, in words"]


class EmbedJson(TypedDict):
    """What `smn embed` wrote."""

    schema: Literal["smn.embed/1"]
    file: Annotated[str, "path of the features, a row an image"]
    paths: Annotated[
        str | None,
        "path of the list of images beside a `.npy` or `.faiss`, in the order of its rows; else null: the file has it",
    ]
    images: Annotated[int, "rows written"]
    features: Annotated[int, "columns: numbers an image"]
    bad: Annotated[list[BadImageJson], "images that were left out"]
    network: Annotated[
        str | None,
        "name of the adapter or run, without its ending; null for a base alone and for a cascade",
    ]
    arch: Annotated[str, "timm architecture"]
    preprocessing: Annotated[PreprocessingJson, "how the images were prepared"]
    precision: Annotated[str, "`fp32` or `bf16`: what the network computed in; features are float32"]
    l2: Annotated[bool, "whether every row has length 1"]
    readout: Annotated[
        str | None,
        "kind of the adapter's readout that the rows are of: `centred`, `whitened`, `stages`; null for features",
    ]


class SplitNoteJson(TypedDict):
    """Which data set, and how it is split."""

    name: Annotated[str, "of the data set, as `smn data --help` lists it"]
    seed: Annotated[int | None, "of a split drawn here; null where the split is given"]
    split: Annotated[str, "where the split comes from, in words"]


class DataNoteJson(SplitNoteJson):
    """What `smn-data.json` says beside the folders `train` and `test`."""

    train: Annotated[int, "training images"]
    test: Annotated[int, "test images"]
    classes: Annotated[list[str], "names of the class folders, sorted"]
    licence: Annotated[str | None, "as the makers of the set state it; null if they state none"]
    url: Annotated[str, "page of the data set"]


class DataJson(DataNoteJson):
    """What `smn data` wrote, or found there."""

    schema: Literal["smn.data/1"]
    dir: Annotated[str, "folder that holds `train/CLASS/` and `test/CLASS/`"]
