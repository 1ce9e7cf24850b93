"""An evaluation as a page of Markdown, such as CI servers show at a job; short, whatever the number of classes."""

from collections.abc import Iterable, Sequence

from smn_cli.evaluation.compare import Comparison
from smn_cli.evaluation.details import ChangedImage, ClassAccuracy, MetricDetails
from smn_cli.evaluation.intervals import Gain, Share
from smn_cli.evaluation.low_shot import LowShotRow
from smn_cli.reports.evaluation import Evaluation, most_changed
from smn_cli.reports.score_rows import VERDICT_WORDS, control_rows, native_notes, score_columns, score_rows
from smn_cli.reports.text import markdown, sentence

MAX_CLASSES, MAX_IMAGES = 10, 10


def markdown_summary(evaluation: Evaluation) -> str:
    """Verdict and gates first, then scores, the classes and images that changed, and what was evaluated."""
    parts = [f"## smn eval: {markdown(evaluation.headline)}"]
    if evaluation.gates:
        results = [[each.name, _found(each.value), "passed" if each.passed else "FAILED"] for each in evaluation.gates]
        parts.append(_table(["gate", "found", ""], results))
    for name, comparison in evaluation.comparisons.items():
        parts += _network(evaluation, name, comparison)
    if evaluation.rows:
        parts.append(_few_labels(evaluation.rows))
    facts = [f"{key}: {value}" for key, value in {"network": evaluation.arch, **evaluation.facts}.items()]
    return "\n\n".join([*parts, "\n".join(f"- {markdown(fact)}" for fact in facts)]) + "\n"


def _network(evaluation: Evaluation, name: str, comparison: Comparison) -> list[str]:
    parts = [f"### {markdown(name)}"] if len(evaluation.comparisons) > 1 else []
    parts.append(_table(score_columns("top-1 accuracy", comparison), score_rows(comparison)))
    if comparison.verdict is not None:
        words = f"{evaluation.subject(name)} is {VERDICT_WORDS[comparison.verdict]}"
        parts.append(f"**{markdown(sentence(words))}**")
    if controls := control_rows(comparison):
        parts.append(_table(score_columns("without training", comparison), controls))
    parts += [markdown(sentence(note)) for note in native_notes(comparison)]
    metric, details = next(iter(evaluation.details[name].items()))
    return parts + _changes(metric, details)


def _changes(metric: str, details: MetricDetails) -> list[str]:
    if details.better is None or details.worse is None:
        return []
    became = f"{len(details.better)} became right and {len(details.worse)} became wrong"
    parts = [f"Of the test images {became} ({markdown(metric)})."]
    if classes := most_changed(details, MAX_CLASSES):
        columns = ["class", "images", "base", "adapted", "gain", "95 % interval"]
        parts += ["Classes that changed most:", _table(columns, map(class_cells, classes))]
    if details.worse:
        first = f", the first {MAX_IMAGES} of {len(details.worse)}" if len(details.worse) > MAX_IMAGES else ""
        shown = details.worse[:MAX_IMAGES]
        parts += [f"Images that became wrong{first}:", _table(["image", "class", "taken for"], map(_image, shown))]
    return parts


def class_cells(each: ClassAccuracy) -> list[str]:
    """A class as a row: name, images, accuracy of base and adapted, gain and its interval."""
    return [each.name, str(each.num_images), _share(each.base), _share(each.adapted), *_gain(each.gain)]


def _few_labels(rows: Sequence[LowShotRow]) -> str:
    cells = []
    for row in rows:
        for metric, value in row.base.metrics.items():
            labels = f"{row.fraction:g} ({row.num_images})"
            cells.append([labels, metric, "base", f"{value:.4f}", "", ""])
            for name, scores in row.adapted.items():
                cells.append([labels, metric, name, f"{scores.metrics[metric]:.4f}", *_gain(row.gains[name][metric])])
    return _table(["labels", "metric", "network", "mean", "gain", "95 % interval"], cells)


def _image(each: ChangedImage) -> list[str]:
    return [each.path, each.label, each.adapted or "another class"]


def _found(value: float | None) -> str:
    return "not computed" if value is None else f"{value:.4f}"


def _share(share: Share | None) -> str:
    return "" if share is None else f"{share.value:.3f} ({share.low:.3f} .. {share.high:.3f})"


def _gain(gain: Gain | None) -> list[str]:
    return ["", ""] if gain is None else [f"{gain.value:+.4f}", f"{gain.low:+.4f} .. {gain.high:+.4f}"]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as GitHub and others know it."""
    lines = [[markdown(title) for title in columns], ["---"] * len(columns)]
    lines += [[markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
