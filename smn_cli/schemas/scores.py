"""JSON of `smn eval`: scores of base and adapted network, gains with intervals, gates."""

from typing import Annotated, Literal

from typing_extensions import NotRequired, TypedDict

from smn_cli.schemas.images import PreprocessingJson

_OtherK = Annotated[float, "`top1@K`: accuracy with each further `--k`, 0 to 1"]


# PEP 728, which mypy does not know yet
class KnnJson(TypedDict, extra_items=_OtherK):  # type: ignore[call-arg, unused-ignore]
    """Nearest neighbours."""

    k: Annotated[int, "neighbours that vote for `top1`: the first `--k`, at most the training images there are"]
    temperature: Annotated[float, "a neighbour's vote is exp(cosine / temperature)"]
    top1: Annotated[float, "accuracy, 0 to 1"]


class LinearJson(TypedDict):
    """Linear probe."""

    top1: Annotated[float, "accuracy, 0 to 1"]
    C: Annotated[
        float,
        "inverse penalty of the logistic regression: `--linear-c`, or chosen on the training images (of parts of the "
        "labels the median)",
    ]


class ClassifierJson(TypedDict):
    """The classifier that an adapter carries."""

    top1: Annotated[float, "accuracy, 0 to 1; images of a class that it does not know count as wrong"]
    classes: Annotated[int, "that it tells apart"]


class ScoresJson(TypedDict):
    """Scores of one network; a metric's name is its path here, such as `knn.top1`."""

    knn: NotRequired[Annotated[KnnJson, "unless only `--linear` was asked for"]]
    linear: NotRequired[Annotated[LinearJson, "with `--linear`"]]
    classifier: NotRequired[Annotated[ClassifierJson, "of an adapted network that carries a classifier"]]


class GainJson(TypedDict):
    """A mean difference over the test images, adapted minus base."""

    value: Annotated[float, "the difference, -1 to 1"]
    low: Annotated[float, "lower end of its 95 % bootstrap interval"]
    high: Annotated[float, "upper end of it"]


class ShareJson(TypedDict):
    """A share of images."""

    value: Annotated[float, "the share, 0 to 1"]
    low: Annotated[float, "lower end of its 95 % interval (Wilson's)"]
    high: Annotated[float, "upper end of it"]


class ClassAccuracyJson(TypedDict):
    """How often the test images of one class are told right."""

    name: Annotated[str, "of the class"]
    images: Annotated[int, "test images of it"]
    base: NotRequired[Annotated[ShareJson, "under the base; absent of `classifier.top1`"]]
    adapted: NotRequired[Annotated[ShareJson, "under the adapted network; absent for a base alone"]]
    gain: NotRequired[
        Annotated[
            GainJson,
            "of the class, where both are there; the interval is one for few images (Newcombe's), and of many classes "
            "one in twenty leaves out 0 by chance",
        ]
    ]


class ConfusionJson(TypedDict):
    """One cell of the confusion matrix."""

    label: Annotated[str, "class that the images are of"]
    predicted: Annotated[str | None, "class that they are taken for; null for one that the labels do not have"]
    base: NotRequired[Annotated[int, "images, under the base; absent as above"]]
    adapted: NotRequired[Annotated[int, "images, under the adapted network; absent as above"]]


class ChangedImageJson(TypedDict):
    """A test image that one of the networks is right about, and the other wrong."""

    path: Annotated[str, "of the image"]
    label: Annotated[str, "its class"]
    base: Annotated[str | None, "class that the base takes it for"]
    adapted: Annotated[str | None, "class that the adapted network takes it for"]


class MetricDetailsJson(TypedDict):
    """What lies behind one metric of a network: classes, confusion, and the images that changed."""

    classes: Annotated[list[ClassAccuracyJson], "every class that has test images"]
    confusion: Annotated[list[ConfusionJson], "every cell that is not empty, those of right answers among them"]
    better: NotRequired[
        Annotated[list[ChangedImageJson], "that are right now and were wrong; absent where there is nothing to compare"]
    ]
    worse: NotRequired[Annotated[list[ChangedImageJson], "that are wrong now and were right; absent likewise"]]


class GateJson(TypedDict):
    """What became of a gate."""

    gate: Annotated[str, "`knn.top1>=0.7`, or of a gain `gain(knn.top1)>=0`"]
    value: Annotated[float | None, "what was measured; null if the metric was not computed, which fails the gate"]
    passed: Annotated[bool, "whether it held"]


class WayNoteJson(TypedDict):
    """One way from a cascade's networks to features."""

    dim: Annotated[int, "width of the features"]
    fitted_on: Annotated[str, "images that its whitening was fitted on, in words; `nothing` if it has none"]


class WayJson(WayNoteJson, ScoresJson):
    """One way from a cascade's networks to features, and its scores."""


class ComparisonJson(TypedDict):
    """Base and adapted network on the same images."""

    base: Annotated[ScoresJson, "of the base"]
    adapted: NotRequired[Annotated[ScoresJson, "of the adapted network, the first of several; absent for a base alone"]]
    gain: NotRequired[Annotated[dict[str, GainJson], "by metric, such as `knn.top1`; absent for a base alone"]]
    verdict: NotRequired[
        Annotated[
            Literal["better", "same", "worse"],
            "`worse` if any interval lies below 0, else `better` if any is above, else `same`; absent for a base alone",
        ]
    ]


class ReadoutJson(TypedDict):
    """Neighbours under another reading of the same features, fitted to the training images without labels."""

    base: Annotated[KnnJson, "of the base"]
    adapted: NotRequired[Annotated[KnnJson, "of the adapted network; absent for a base alone, and of the stages"]]
    gain: NotRequired[Annotated[dict[str, GainJson], "by metric; absent as above"]]


class NativeJson(TypedDict):
    """The untouched base on images of the size that it was made for."""

    size: Annotated[int, "side of those images, in pixels"]
    base: Annotated[ScoresJson, "of the base at that size"]
    gain: NotRequired[
        Annotated[dict[str, GainJson], "of the adapted network at the adapter's size over it; absent for a base alone"]
    ]
    milliseconds_an_image: Annotated[dict[str, float], "a forward pass on this machine, by side of the images"]


class ControlledComparisonJson(ComparisonJson):
    """Base and adapted network, and what needs no training."""

    readouts: NotRequired[
        Annotated[
            dict[str, ReadoutJson],
            "`centred`, `whitened` (partly), and `stages`: the base's own stages, partly whitened; absent with "
            "`--no-controls`, of cascades and without `--knn`",
        ]
    ]
    native: NotRequired[
        Annotated[NativeJson, "absent with `--no-controls`, of cascades, and where images have that size already"]
    ]


class CascadeComparisonJson(ComparisonJson):
    """Base and cascade on the same images."""

    cascade: NotRequired[
        Annotated[
            dict[str, WayJson],
            "only of a cascade, its parts and ways: `dispatcher`, `dispatcher_whitened`, `dispatcher_whitened@D` (to "
            "width D), `conditional`, `unconditional`, and both with `_whitened`, unless the cascade does that itself",
        ]
    ]


class AdapterScoresJson(ScoresJson):
    """One of several adapters, and its scores."""

    name: Annotated[str, "of the adapter's file without its ending; its path where two share that name"]
    gain: Annotated[dict[str, GainJson], "over the base, by metric"]
    verdict: Annotated[Literal["better", "same", "worse"], "as above, of this adapter"]
    readouts: NotRequired[Annotated[dict[str, ReadoutJson], "as above, of this adapter"]]
    native: NotRequired[Annotated[NativeJson, "as above, of this adapter"]]
    details: Annotated[dict[str, MetricDetailsJson], "as below, of this adapter"]


class FewScoresJson(TypedDict):
    """Scores of one network with a part of the labels, means over the draws."""

    knn: NotRequired[Annotated[KnnJson, "unless only `--linear` was asked for"]]
    linear: NotRequired[Annotated[LinearJson, "with `--linear`"]]
    spread: Annotated[
        dict[str, float | None],
        "standard deviation over the draws, by metric such as `knn.top1`; null of a single draw",
    ]


class FewAdapterScoresJson(FewScoresJson):
    """The same of an adapted network."""

    name: Annotated[str, "of the adapter's file, or of the run, without its ending; its path where two share that name"]
    gain: Annotated[dict[str, GainJson], "over the base, by metric"]


class LowShotJson(TypedDict):
    """All networks with one part of the labels."""

    fraction: Annotated[float, "of the training images, above 0, at most 1"]
    num_images: Annotated[int, "training images in each draw"]
    repeats: Annotated[int, "draws"]
    missing_classes: Annotated[int, "classes that a draw has no image of, in the worst draw"]
    base: Annotated[FewScoresJson, "of the base"]
    adapters: Annotated[list[FewAdapterScoresJson], "of every adapted network; empty for a base alone"]


class EvalScoresJson(CascadeComparisonJson, ControlledComparisonJson):
    """All scores of an evaluation."""

    details: Annotated[
        dict[str, MetricDetailsJson], "by metric such as `knn.top1`: classes, confusion, images that changed"
    ]
    adapters: NotRequired[Annotated[list[AdapterScoresJson], "only if `--adapter` was repeated: all of them, in order"]]
    low_shot: NotRequired[
        Annotated[list[LowShotJson], "only with `--label-fraction`: a fraction each, fewest labels first"]
    ]


class EvalDataJson(TypedDict):
    """The labeled images."""

    path: Annotated[str, "of the folder"]
    train: Annotated[int, "images that neighbours and probe have the labels of"]
    test: Annotated[int, "images that are scored"]
    classes: Annotated[list[str], "names of the class folders"]
    split: Annotated[str, "where the split comes from, in words"]


class EvalJson(EvalScoresJson):
    """What `smn eval` measured; written even if a gate fails, which is exit code 3."""

    schema: Literal["smn.eval/1"]
    data: Annotated[EvalDataJson, "the labeled images"]
    arch: Annotated[str, "timm architecture"]
    preprocessing: Annotated[PreprocessingJson, "how the images were prepared"]
    precision: Annotated[str, "`fp32` or `bf16`: what the networks computed in"]
    gates: Annotated[list[GateJson], "in the order `--fail-under`, `--min-gain`; empty if none was asked for"]
    passed: Annotated[bool, "whether all gates held; true if there are none"]
