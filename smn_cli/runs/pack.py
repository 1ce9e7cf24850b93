"""From a run folder to the adapter of what it learned."""

from collections.abc import Callable
from typing import Any

from smn_cli.adapters.adapter import Adapter, make_adapter
from smn_cli.adapters.head import StoredHead, rounded_head
from smn_cli.adapters.swap import Change, TunedWeights
from smn_cli.backbones.loading import Backbone
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import CheckpointError, UsageError
from smn_cli.masking.binarize import count_kept
from smn_cli.masking.ties import under_all_names
from smn_cli.runs.checked_files import fitting
from smn_cli.runs.read_back import read_back
from smn_cli.runs.run_config import check_run_base, plan_of, preprocessing_in
from smn_cli.runs.run_folder import RunFolder
from smn_cli.runs.run_result import Learned, read_learned
from smn_cli.threads import computing_with


def pack_run(
    folder: RunFolder, backbone: Backbone, *, codec: str = "auto", learned: Callable[[], Learned] | None = None
) -> Adapter:
    """The adapter of a run's last checkpoint, read back and compared with the run's network.

    Args:
        folder: of the run.
        backbone: the base it was started with.
        codec: a codec's name, or "auto" for the smallest.
        learned: gives what `read_learned` gives of the folder, if that is under way already.

    Raises:
        CheckpointError: the run is damaged.
        MismatchError: the base is another one, or the adapter would not give the network that was trained.
    """
    config = folder.read_config()
    with computing_with(1) as num_threads:
        check_run_base(config, backbone)
        with fitting(folder.path):
            found = read_learned(folder) if learned is None else learned()
        adapter = adapter_of(found, folder, backbone, codec=codec)
        size = preprocessing_in(config, folder).size
        return read_back(adapter, backbone, found.masks, found.norm_stats, size=size, num_threads=num_threads)


def adapter_of(learned: Learned, folder: RunFolder, backbone: Backbone, *, codec: str = "auto") -> Adapter:
    """The same of what a run has learned, neither read back nor compared: to tell its size.

    Raises:
        CheckpointError, UsageError: there is no mask, it keeps nothing of a tensor, or the settings do not fit.
    """
    config = folder.read_config()
    with computing_with(1), fitting(folder.path):
        _check_masks(learned, plan_of(config, folder), folder)
        return _packed(learned, config, backbone, codec)


def _check_masks(learned: Learned, plan: AdaptPlan, folder: RunFolder) -> None:
    if not plan.mode.has_mask:
        raise UsageError(
            f"{folder.path} trained the weights themselves (`train` {plan.train}): there is no mask to pack"
        )
    empty = [name for name, mask in learned.masks.items() if not count_kept(mask)]
    if empty:
        raise CheckpointError(f"{folder.path}: the mask of {empty[0]} is empty; lower `lr_scores` and train again")


def _packed(learned: Learned, config: dict[str, Any], backbone: Backbone, codec: str) -> Adapter:
    return make_adapter(
        backbone.model.state_dict(),
        under_all_names(learned.masks, backbone.model),
        arch=backbone.arch,
        tag=backbone.tag,
        norm_stats=under_all_names(learned.norm_stats, backbone.model),
        preprocessing=config["preprocessing"],
        provenance=_provenance(learned, config),
        codec=codec,
        head=_head_of(learned, config, backbone),
    )


def _provenance(learned: Learned, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": config["images"]["good"],
        "plan": _settings(config["plan"]),
        **({"teachers": config["teachers"]} if config.get("teachers") else {}),
        "step": learned.step,
        "finished": learned.is_finished,
        "judge": config["judge"],
        "judge_gain": learned.judge_gain,
        "alarms": list(learned.alarms),
        "versions": config["versions"],
    }


def _settings(plan: dict[str, Any]) -> dict[str, Any]:
    """What an adapter tells of a run's settings; of a cache and a draw of the images if there was one."""
    left_out = {"reasons", "teachers", "witness", "cached_bytes"}
    left_out |= {name for name in ("cached_views", "training_images") if not plan.get(name)}
    return {key: value for key, value in plan.items() if key not in left_out}


def _head_of(learned: Learned, config: dict[str, Any], backbone: Backbone) -> StoredHead | None:
    if learned.classifier is None:
        return None
    return rounded_head(learned.classifier, name=backbone.classifier_name, classes=tuple(config["classes"]))


def change_of_run(folder: RunFolder, backbone: Backbone) -> Change:
    """What a run made of its base: an adapter, or for the full fine-tuning baseline weights.

    Raises:
        CheckpointError, MismatchError: the run is damaged, or the base another one.
    """
    config = folder.read_config()
    if plan_of(config, folder).mode.has_mask:
        return pack_run(folder, backbone, codec="bits")
    check_run_base(config, backbone)
    learned = read_learned(folder)
    return TunedWeights({**learned.weights, **learned.norm_stats}, _head_of(learned, config, backbone))
