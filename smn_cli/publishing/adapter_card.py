"""The model card of an adapter on the hub: what it is for, what it weighs, what it was measured to do."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from smn_cli.adapters.stored import StoredAdapter
from smn_cli.errors import FileError, UsageError
from smn_cli.publishing.metadata import front_matter
from smn_cli.publishing.templating import render
from smn_cli.recognise import read_json

_SCHEMA = "smn.eval/1"


class Score(NamedTuple):
    """One metric, such as knn.top1, of base and adapted network, and the difference with its interval."""

    metric: str
    base: float
    adapted: float
    gain: dict[str, float]


def read_evaluation(path: Path) -> dict[str, Any]:
    """What `smn eval --json` wrote of an adapter.

    Raises:
        FileError: it cannot be read, or is not that.
        UsageError: it is of a base alone.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise FileError(f"`eval` {path} cannot be read: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        raise FileError(f"`eval` {path} is not what smn eval --json wrote: expected the schema {_SCHEMA}")
    if "gain" not in content:
        raise UsageError(f"`eval` {path} is of a base alone: score the adapter with smn eval --adapter --json")
    try:
        scores_in(content)
        _check_measured(_measured(content))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise FileError(f"`eval` {path} is damaged: {type(error).__name__} {error}") from None
    return content


def _check_measured(found: dict[str, Any]) -> None:
    """Refuse what the page could not show."""
    data = found["data"]
    numbers = [data["train"], data["test"], found["scored_size"]]
    if not all(type(number) is int for number in numbers) or not isinstance(data["classes"], list):
        raise TypeError("the counts of images, the size or the classes are none")
    if not isinstance(found["verdict"], str):
        raise TypeError("the verdict is no text")


def scores_in(evaluation: dict[str, Any]) -> list[Score]:
    """The metrics that base and adapted network share, in the order of the file."""
    found = []
    for metric, gain in evaluation["gain"].items():
        kind, _, name = metric.partition(".")
        base, adapted = (float(evaluation[network][kind][name]) for network in ("base", "adapted"))
        found.append(Score(metric, base, adapted, {key: float(gain[key]) for key in ("value", "low", "high")}))
    return found


def adapter_card(adapter: StoredAdapter, repository: str, evaluation: dict[str, Any] | None = None) -> str:
    """README.md beside an adapter.

    Args:
        adapter: as it is stored.
        repository: USER/NAME that it goes to.
        evaluation: of `read_evaluation`; paths in it are left out.
    """
    header, scores = adapter.header, [] if evaluation is None else scores_in(evaluation)
    has_base = bool(header.tag)
    front = front_matter(
        adapter,
        library="smn",
        licence=header.licence,
        base_model_relation="adapter" if has_base else None,
        metrics=["accuracy"] if scores else None,
        **_results(repository, scores),
    )
    return render(
        "adapter.md.j2",
        front=front,
        name=repository.partition("/")[2],
        repository=repository,
        adapter=adapter,
        header=header,
        size=header.preprocessing.get("size"),
        # names of a file, which may be a stranger's, in code that people copy
        loads_base=f"{json.dumps(adapter.made_for)}, pretrained=True"
        if has_base
        else f"{json.dumps(header.arch)}, checkpoint_path=FILE",
        weights_option="" if has_base else " --weights FILE",
        extras=_extras(adapter),
        scores=scores,
        sizes=_sizes(adapter),
        **({} if evaluation is None else _measured(evaluation)),
    )


def _measured(evaluation: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": {key: evaluation["data"][key] for key in ("train", "test", "classes")},
        "scored_size": evaluation["preprocessing"]["size"],
        "verdict": evaluation["verdict"],
    }


def _results(repository: str, scores: list[Score]) -> dict[str, Any]:
    """As the hub's leaderboards read them; it asks for the name of a data set, which only its owner knows."""
    if not scores:
        return {}
    from huggingface_hub import EvalResult

    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name="images of its maker",
            metric_type="accuracy",
            metric_name=f"{score.metric}, gain {score.gain['low']:+.4f} to {score.gain['high']:+.4f}",
            metric_value=round(score.adapted, 4),
        )
        for score in scores
    ]
    return {"eval_results": results, "model_name": repository.partition("/")[2]}


def _extras(adapter: StoredAdapter) -> str:
    extras = []
    if adapter.header.norm_stats:
        extras.append("normalisation statistics")
    if adapter.head is not None:
        extras.append(f"a classifier of {len(adapter.head.classes)} classes")
    if adapter.readout is not None:
        extras.append(f"a readout ({adapter.readout.kind})")
    return f", with {' and '.join(extras)}" if extras else ""


def _sizes(adapter: StoredAdapter) -> dict[str, int]:
    return {
        "masked weights as float32": 4 * adapter.header.num_weights,
        "the adapter file": adapter.size_bytes,
        "its mask": adapter.payload_bytes,
        "its statistics": adapter.norm_stats_bytes,
        "its classifier": adapter.head_bytes,
        "its readout": adapter.readout_bytes,
        "its header, digests and checksum": adapter.size_bytes - adapter.part_bytes,
    }
