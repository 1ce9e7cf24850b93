"""Scores with few labels: networks see the same parts, a missing class shifts nothing, k is cut to what there is."""

import json

import pytest
import torch
from torch import Tensor

from smn_cli.data.labels.label_subsets import draw_subsets
from smn_cli.evaluation.compare import LabeledFeatures, ScoringProtocol, score
from smn_cli.evaluation.intervals import crossed_gain
from smn_cli.evaluation.low_shot import LabelSubsets, score_subsets, tabulate
from smn_cli.evaluation.metric_names import at_fraction

BOTH = ScoringProtocol(linear=True, ks=(20, 5))


def features(*, spread: float, num_classes: int = 5, per_class: int = 30, seed: int = 0) -> LabeledFeatures:
    """Clouds around the unit vectors; with little spread they can be told apart without an error."""
    generator = torch.Generator().manual_seed(seed)

    def cloud(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(num_classes).repeat_interleave(count)
        return torch.eye(8)[labels] + spread * torch.randn(len(labels), 8, generator=generator), labels

    (train, train_labels), (test, test_labels) = cloud(per_class), cloud(10)
    return LabeledFeatures(train, train_labels, test, test_labels)


def part_of(whole: LabeledFeatures, part: tuple[int, ...]) -> LabeledFeatures:
    rows = torch.tensor(part)
    return LabeledFeatures(whole.train[rows], whole.train_labels[rows], whole.test, whole.test_labels)


def test_a_part_is_scored_as_if_it_were_all_training_images() -> None:
    whole = features(spread=0.6)
    subsets = draw_subsets(whole.train_labels.tolist(), [0.2, 1.0], num_repeats=3, seed=0)
    few, all_labels = score_subsets(whole, subsets, BOTH)
    for repeat, part in enumerate(subsets[0].positions):
        expected = score(part_of(whole, part), BOTH).correct
        assert expected.keys() == few.correct.keys()
        assert all(torch.equal(few.correct[name][repeat], right) for name, right in expected.items())
    expected = score(whole, BOTH).correct
    assert all(torch.equal(all_labels.correct[name], right[None]) for name, right in expected.items())


def test_classes_that_a_part_lacks_are_wrong_and_shift_no_other() -> None:
    whole = features(spread=0.05)
    kept = tuple(position for position, label in enumerate(whole.train_labels.tolist()) if label in (1, 3))
    [scores] = score_subsets(whole, [LabelSubsets(0.4, (kept,))], BOTH)
    there = torch.isin(whole.test_labels, torch.tensor([1, 3]))
    assert all(torch.equal(right[0], there) for right in scores.correct.values())


def test_a_part_with_one_image_predicts_its_class() -> None:
    whole = features(spread=0.05)
    [scores] = score_subsets(whole, [LabelSubsets(0.01, ((40,),))], BOTH)
    assert all(torch.equal(right[0], whole.test_labels == 1) for right in scores.correct.values())


def test_k_is_cut_to_the_part_and_keeps_the_name_it_was_asked_for_by() -> None:
    whole = features(spread=0.6)
    subsets = draw_subsets(whole.train_labels.tolist(), [7 / 150], num_repeats=2, seed=0)
    [scores] = score_subsets(whole, subsets, ScoringProtocol(linear=True, ks=(20, 10)))
    assert list(scores.correct) == ["knn.top1", "knn.top1@10", "linear.top1"]
    assert scores.groups["knn"]["k"] == 7
    cut = score_subsets(whole, subsets, ScoringProtocol(ks=(7,)))[0]
    assert torch.equal(scores.correct["knn.top1"], cut.correct["knn.top1"])


def test_repeats_are_nested_and_all_labels_are_one_part() -> None:
    labels = [position % 5 for position in range(100)]
    small, large, everything = draw_subsets(labels, [0.1, 0.5, 1.0], num_repeats=4, seed=3)
    assert [len(subset.positions) for subset in (small, large, everything)] == [4, 4, 1]
    assert all(set(few) < set(more) for few, more in zip(small.positions, large.positions, strict=True))
    assert len(set(small.positions)) == 4
    assert not set(small.positions) & set(draw_subsets(labels, [0.1], num_repeats=4, seed=4)[0].positions)


def test_missing_classes_are_counted_in_the_worst_repeat() -> None:
    labels = [0, 0, 1, 2]
    assert LabelSubsets(0.5, ((0, 2), (0, 1), (2, 3))).num_missing(labels) == 2
    assert LabelSubsets(1.0, ((0, 1, 2, 3),)).num_missing(labels) == 0


def test_the_table_has_means_spreads_and_gains_in_plain_json() -> None:
    base, adapted = features(spread=0.9), features(spread=0.4)
    labels = base.train_labels.tolist()
    subsets = draw_subsets(labels, [1.0, 0.1], num_repeats=3, seed=0)
    scores = [score_subsets(each, subsets, BOTH) for each in (base, adapted)]
    rows = tabulate(subsets, labels, scores[0], {"mine": scores[1]})
    assert [(row.fraction, row.num_images, row.num_repeats, row.num_missing) for row in rows] == [
        (0.1, 15, 3, 0),
        (1.0, 150, 1, 0),
    ]
    content = json.loads(json.dumps(rows[0].to_json()))
    assert content["adapters"][0]["name"] == "mine"
    accuracies = scores[0][1].correct["linear.top1"].double().mean(dim=1)
    assert content["base"]["linear"] == {
        "C": scores[0][1].groups["linear"]["C"],
        "top1": pytest.approx(float(accuracies.mean())),
    }
    assert content["base"]["spread"]["linear.top1"] == pytest.approx(float(accuracies.std()))
    gain = content["adapters"][0]["gain"]["linear.top1"]
    assert gain["value"] == pytest.approx(content["adapters"][0]["linear"]["top1"] - content["base"]["linear"]["top1"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert rows[1].to_json()["base"]["spread"]["linear.top1"] is None
    expected = crossed_gain(scores[0][1].correct["knn.top1"], scores[1][1].correct["knn.top1"])
    assert rows[0].gains["mine"]["knn.top1"] == expected


def test_the_name_of_a_metric_at_a_fraction_can_stand_in_a_gate() -> None:
    from smn_cli.evaluation.gates import Gate, parse_gate

    name = at_fraction("knn.top1@20", 0.010)
    assert parse_gate(f"{name}=0.5", on_gain=False) == Gate("knn.top1@20@label:0.01", 0.5, on_gain=False)
