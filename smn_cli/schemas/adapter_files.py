"""JSON of commands about adapter files: `smn pack`, `apply`, `inspect`, `verify`, `diff`, `merge`."""

from typing import Annotated, Any, Literal

from typing_extensions import NotRequired, TypedDict


class SizesJson(TypedDict):
    """What an adapter weighs, and against what."""

    codec: Annotated[str, "of the mask: `bits`, `lzma`, `context` or `context2`"]
    density: Annotated[float, "fraction of all masked weights that is kept, 0 to 1"]
    fp32_bytes: Annotated[int, "the backbone as float32"]
    lzma_bytes: Annotated[int, "the backbone after lzma"]
    lzma_is_estimate: Annotated[bool, "whether `lzma_bytes` is extrapolated from a sample"]
    bits_bytes: Annotated[int, "the mask at one bit a weight"]
    file_bytes: Annotated[int, "the whole file, the sum of the five parts below"]
    mask_bytes: Annotated[int, "the coded mask"]
    norm_stats_bytes: Annotated[int, "normalisation statistics; 0 if none are carried"]
    head_bytes: Annotated[int, "the classifier; 0 if none is carried"]
    readout_bytes: Annotated[int, "the readout; 0 if none is carried"]
    metadata_bytes: Annotated[int, "header, digests, checksum"]
    ratio: Annotated[float, "`fp32_bytes` over `file_bytes`"]
    lzma_ratio: Annotated[float, "`lzma_bytes` over `file_bytes`"]


class PackJson(SizesJson):
    """What `smn pack` wrote."""

    schema: Literal["smn.pack/1"]
    file: Annotated[str, "path of the adapter"]
    readout: Annotated[str | None, "of the readout that it carries: `centred`, `whitened` or `stages`; null for none"]
    license: Annotated[str, "of the adapter, as it says; empty if it does not"]
    description: Annotated[str, "of the adapter, in a line; empty if there is none"]


class ApplyJson(TypedDict):
    """What `smn apply` rebuilt."""

    schema: Literal["smn.apply/1"]
    checkpoint: Annotated[str, "path of the checkpoint"]
    folder: Annotated[str | None, "folder it lies in with the config that loads it; null if a file was asked for"]
    arch: Annotated[str, "timm architecture"]
    digest: Annotated[str, "of the rebuilt network, 64 hex characters"]
    verified: Annotated[bool, "always true: base and result are the recorded ones, or the command fails"]
    num_classes: Annotated[int, "of the checkpoint's classifier, or numbers of its readout; 0 if it has neither"]
    classes: Annotated[list[str], "of a classifier that came with the adapter, in the order of its logits; else empty"]
    readout: Annotated[str | None, "kind of the readout that stands in the classifier's place; null for none"]
    checkpoint_bytes: Annotated[int, "size of the checkpoint"]
    adapter_bytes: Annotated[int, "size of the file it was made from"]
    load_with: Annotated[str, "line of Python that loads it"]


class MaskJson(TypedDict):
    """The mask of one tensor."""

    name: Annotated[str, "of the tensor, as timm has it"]
    shape: Annotated[list[int], "of the tensor"]
    kept: Annotated[int, "weights kept"]
    density: Annotated[float, "fraction kept, 0 to 1"]


class CombinationJson(TypedDict):
    """How the features of a cascade's networks become one."""

    kind: Annotated[str, "`none`, `random`, `whitened`, `blocks` or `pca`"]
    dim: Annotated[int, "width of the result"]
    seed: Annotated[int, "of its random part"]


class ExpertInFileJson(TypedDict):
    """One expert of a cascade file."""

    adapted_digest: Annotated[str, "of the rebuilt expert, 64 hex characters"]
    density: Annotated[float, "fraction of its masked weights that is kept, 0 to 1"]
    provenance: Annotated[dict[str, Any], "where it comes from, for people; as the file has it"]


class CascadeInFileJson(TypedDict):
    """What a cascade file holds besides its dispatcher."""

    mode: Annotated[str, "`conditional` (one expert an image) or `unconditional` (all of them)"]
    router: Annotated[str, "`gmm` or `kmeans`"]
    combination: Annotated[CombinationJson, "how features become one"]
    experts: Annotated[list[ExpertInFileJson], "in the router's order"]
    provenance: Annotated[dict[str, Any], "where the cascade comes from, for people; as the file has it"]


class CascadePartJson(TypedDict):
    """What only a cascade has."""

    cascade: NotRequired[
        Annotated[CascadeInFileJson, "what a cascade holds besides its dispatcher; absent of an adapter"]
    ]


class ReadoutInFileJson(TypedDict):
    """A readout that an adapter carries."""

    kind: Annotated[str, "`centred`, `whitened` (partly) or `stages`"]
    dim: Annotated[int, "numbers that it gives an image"]
    features: Annotated[int, "numbers that it takes"]
    images: Annotated[int, "that it was fitted to"]
    bits: Annotated[int, "of a stored number: 8 of a matrix, 16 of a mean alone"]
    digest: Annotated[str, "of its stored numbers, 64 hex characters"]


class InspectJson(CascadePartJson):
    """What `smn inspect` found in an adapter or a cascade; of a cascade, most is about its dispatcher."""

    schema: Literal["smn.inspect/1"]
    file: Annotated[str, "path of the file"]
    arch: Annotated[str, "timm architecture"]
    tag: Annotated[str, "timm's name of the pretrained weights; empty if they came from a file"]
    base_digest: Annotated[str, "of the base it was made for, 64 hex characters"]
    adapted_digest: Annotated[str, "of the rebuilt network, 64 hex characters"]
    codec: Annotated[str, "of the mask"]
    needs_base: Annotated[bool, "whether that codec needs the base's weights to decode"]
    density: Annotated[float, "fraction of all masked weights that is kept, 0 to 1"]
    weights: Annotated[int, "masked weights in all"]
    masks: Annotated[list[MaskJson], "a masked tensor each, in the order of the bit stream"]
    norm_stats: Annotated[list[str], "names of the carried normalisation statistics; empty if they are frozen"]
    classes: Annotated[list[str], "of a carried classifier, in the order of its logits; empty if there is none"]
    readout: Annotated[ReadoutInFileJson | None, "a carried readout; null if there is none"]
    preprocessing: Annotated[dict[str, Any], "`size`, `mean`, `std`, `interpolation`, as the file has it"]
    provenance: Annotated[dict[str, Any], "where the adapter comes from, for people; as the file has it"]
    license: Annotated[str, "of the adapter, as it says; empty if it does not"]
    description: Annotated[str, "of the adapter, in a line; empty if there is none"]
    bytes: Annotated[
        dict[str, int],
        "by part, and their sum, `file`. Parts of an adapter: `mask`, `norm_stats`, `head`, `readout`, `metadata`; of "
        "a cascade: `dispatcher`, `expert-0`, `expert-1`, ..., `router`, `combination`, `metadata`",
    ]


class VerifiedExpertsJson(TypedDict):
    """What was proved of a cascade's experts."""

    experts: NotRequired[Annotated[list[str], "digests of the rebuilt experts; only of a cascade"]]


class VerifyJson(VerifiedExpertsJson):
    """What `smn verify` proved; it fails with exit code 4 or 6 where it cannot."""

    schema: Literal["smn.verify/1"]
    file: Annotated[str, "path of the adapter or cascade"]
    base_digest: Annotated[str, "of the base, 64 hex characters"]
    adapted_digest: Annotated[str, "of the rebuilt network (of a cascade: the dispatcher), 64 hex characters"]
    readout: Annotated[
        str | None, "kind of a carried readout, which takes as many features as the network has; null if there is none"
    ]
    checkpoint: Annotated[str | None, "path of the checkpoint that was checked, too; null if none was given"]
    canonical: Annotated[
        bool | None, "whether the file is byte for byte as smn writes it; null without `quick`, which alone looks"
    ]
    verified: Annotated[bool, "always true; with `quick`, of the file alone"]
    quick: Annotated[bool, "whether only the file was looked at, neither the base nor the rebuilt network"]


class AgreementJson(TypedDict):
    """Two masks of one tensor, bit by bit."""

    name: Annotated[str, "of the tensor, as timm has it"]
    weights: Annotated[int, "in the tensor"]
    both_cut: Annotated[int, "weights that both adapters cut"]
    either_cut: Annotated[int, "weights that at least one of them cuts"]
    agreement: Annotated[float, "share of weights that both keep or both cut, 0 to 1"]
    jaccard: Annotated[float, "`both_cut` over `either_cut`; 1 if neither cuts any"]


class DiffJson(TypedDict):
    """What `smn diff` found."""

    schema: Literal["smn.diff/1"]
    files: Annotated[list[str], "paths of the two adapters"]
    base_digest: Annotated[str, "of their base, 64 hex characters"]
    same_network: Annotated[bool, "whether both rebuild to the same digest"]
    density: Annotated[list[float], "of each, 0 to 1"]
    agreement: Annotated[float, "share of all weights that both keep or both cut, 0 to 1"]
    jaccard: Annotated[float, "weights that both cut over weights that either cuts; 1 if neither cuts any"]
    masks: Annotated[list[AgreementJson], "by tensor, sorted by name"]
    norm_stats: Annotated[list[str], "names of carried statistics that differ, or that only one carries"]
    differs: Annotated[
        dict[str, list[Any]],
        "what else differs: dotted names of header fields (`provenance.plan.seed`) to the values of both, null where "
        "one has none; `readout.digest` is of a readout's stored numbers",
    ]


class MergeJson(TypedDict):
    """What `smn merge` wrote."""

    schema: Literal["smn.merge/1"]
    file: Annotated[str, "path of the merged adapter"]
    files: Annotated[list[str], "paths of the adapters it was made of"]
    how: Annotated[str, "`and`, `or` or `majority`"]
    base_digest: Annotated[str, "of their base, 64 hex characters"]
    adapted_digest: Annotated[str, "of the merged network, 64 hex characters"]
    density: Annotated[float, "of the merged mask, 0 to 1"]
    densities: Annotated[list[float], "of the masks it was made of, in the order of `files`"]
    codec: Annotated[str, "of the merged mask"]
    bytes: Annotated[int, "size of the merged file"]


class ExportJson(TypedDict):
    """What `smn export` wrote."""

    schema: Literal["smn.export/1"]
    folder: Annotated[str, "path of the folder"]
    arch: Annotated[str, "timm architecture"]
    static: Annotated[bool, "whether it is one plain graph of one adapter"]
    adapters: Annotated[list[str], "by the names of their files; none of a plain graph"]
    inputs: Annotated[list[str], "weights that can be given at every run"]
    difference: Annotated[float, "from torch's features, as a share of their norm"]
    files: Annotated[dict[str, int], "bytes by name"]
