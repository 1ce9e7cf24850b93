"""JSON of commands that train or foretell it: `smn adapt`, `plan`, `cascade`, `demo`."""

from typing import Annotated, Literal

from typing_extensions import NotRequired, TypedDict

from smn_cli.schemas.scores import ControlledComparisonJson
from smn_cli.schemas.settings import SettingsJson


class AdaptJson(TypedDict):
    """What became of a run of `smn adapt`."""

    schema: Literal["smn.adapt/1"]
    run: Annotated[str, "path of the run folder"]
    steps: Annotated[int, "steps taken, over all resumes"]
    kept_step: Annotated[int, "step that the kept state is of; 0 is the base, or what the run started from"]
    trained: Annotated[bool, "whether any step was taken; false if an alarm stopped the run before the first"]
    identity: Annotated[bool, "whether nothing beat the base, so that the base itself is kept"]
    judge_gain: Annotated[
        float | None,
        "what the judge put the kept state above the base, in its own measure; null if it did not, or did not judge it",
    ]
    alarms: Annotated[list[str], "what went wrong, in words; empty if all is well"]
    density: Annotated[float, "fraction of the masked weights that is kept, 0 to 1; 1 with `--train full`"]
    images: Annotated[int, "training images, without those held out"]
    classes: Annotated[list[str], "of the labels, in the order of the classifier's logits; empty without labels"]
    seconds: Annotated[float, "spent on the steps of this call, to a tenth"]


class PlannedImagesJson(TypedDict):
    """The images that a run would have."""

    found: Annotated[int, "images in the given places"]
    used: Annotated[int, "images that the run would use"]
    looked_at: Annotated[int, "images opened for this plan, a sample"]
    bad: Annotated[dict[str, str], "unusable images of that sample: path to reason"]


class PlannedSecondsJson(TypedDict):
    """Seconds that a run would take, by part."""

    checking: Annotated[float, "opening every image"]
    looking: Annotated[float, "the frozen network's look at the images"]
    prototypes: Annotated[float, "clustering that look"]
    trunk: Annotated[float, "the frozen first blocks' look at the views that are kept; 0 where none are"]
    steps: Annotated[float, "training"]
    evaluations: Annotated[float, "the judge's looks"]
    total: Annotated[float, "their sum"]


class PlannedMemoryJson(TypedDict):
    """Peak memory in bytes, without loader processes."""

    process: Annotated[int | None, "of the process; null where the system does not tell"]
    device: Annotated[int | None, "of the accelerator; null on a CPU"]


class SmallerPlanJson(TypedDict):
    """The same run on smaller images."""

    size: Annotated[int, "their side in pixels"]
    seconds: Annotated[float, "of the whole run"]
    step_s: Annotated[float, "seconds a step, median"]


class PlanContentJson(TypedDict):
    """What a run would do and take."""

    images: Annotated[PlannedImagesJson, "the images"]
    plan: Annotated[SettingsJson, "all settings, as in the run folder's `config.json`"]
    weights: Annotated[int, "weights that are masked, or trained"]
    alarms: Annotated[list[str], "what would stop the run before its first step, in words"]
    step_s: Annotated[float, "seconds a step, median"]
    measured_steps: Annotated[int, "steps that this is the median of"]
    images_per_s: Annotated[float, "images a second while training"]
    seconds: Annotated[PlannedSecondsJson, "of the whole run"]
    memory_bytes: Annotated[PlannedMemoryJson, "peak"]
    run_folder_bytes: Annotated[int, "most that the run folder takes"]
    smaller: NotRequired[
        Annotated[SmallerPlanJson, "absent where a size was asked for, or the backbone's own is small already"]
    ]
    adapter_bytes: Annotated[list[int] | None, "least and most; null with `--train full`, which makes no adapter"]


class PlanJson(PlanContentJson):
    """What `smn plan` expects of `smn adapt` with the same words."""

    schema: Literal["smn.plan/1"]
    arch: Annotated[str, "timm architecture"]
    device: Annotated[str, "where the steps were measured: `cpu`, `cuda`, ..."]
    workers: Annotated[int, "loader processes"]


class ExpertJson(TypedDict):
    """What became of an expert; one that keeps the dispatcher's mask has kept step 0."""

    num_images: Annotated[int, "in its cluster"]
    num_steps: Annotated[int, "steps it took; 0 if the cluster was too small or an alarm stopped it"]
    kept_step: Annotated[int, "step that its mask is of"]
    judge_gain: Annotated[float | None, "what its judge put it above the dispatcher; null if it did not"]


class CascadeSizesJson(TypedDict):
    """Bytes of a cascade, and what they are held against."""

    bytes: Annotated[
        dict[str, int],
        "by part: `dispatcher`, `expert-0`, `expert-1`, ..., `router`, `combination`, `metadata` and their sum, `file`",
    ]
    dispatcher_file_bytes: Annotated[int, "the dispatcher's own adapter file"]
    separate_files_bytes: Annotated[int, "dispatcher and experts as adapter files of their own"]
    ratio: Annotated[float, "the whole file over `dispatcher_file_bytes`"]
    combination_bytes: Annotated[
        dict[str, int], "what each kind of `--combine` would take: `none`, `random`, `whitened`, `blocks`, `pca`"
    ]


class CascadeJson(CascadeSizesJson):
    """What `smn cascade` made."""

    schema: Literal["smn.cascade/1"]
    cascade: Annotated[str, "path of the cascade's folder"]
    file: Annotated[str, "path of the cascade's file in it"]
    images: Annotated[int, "that were clustered and trained on"]
    experts: Annotated[list[ExpertJson], "in the router's order"]
    cluster: Annotated[str, "`gmm` or `kmeans`"]
    combine: Annotated[str, "`none`, `random`, `whitened`, `blocks` or `pca`"]
    dim: Annotated[int, "width of the combined features"]
    mode: Annotated[str, "`conditional` (one expert an image) or `unconditional` (all of them)"]
    seconds: Annotated[float, "of this call, to a tenth"]


class DemoProofJson(TypedDict):
    """What the demo proved."""

    digest: Annotated[str, "of the rebuilt network, 64 hex characters"]
    outputs_equal: Annotated[bool, "always true: plain timm computes what the live network does, bit for bit"]


class DemoJson(DemoProofJson, ControlledComparisonJson):
    """What `smn demo` made and measured."""

    schema: Literal["smn.demo/1"]
    adapter: Annotated[str, "path of the adapter"]
    adapter_bytes: Annotated[int, "its size"]
    checkpoint: Annotated[str, "path of the rebuilt checkpoint"]
    density: Annotated[float, "fraction of the masked weights that is kept, 0 to 1"]
    seconds: Annotated[float, "of the whole demo, to a tenth"]
