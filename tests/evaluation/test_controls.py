"""Controls: readings of the same features that need no training, and the base at its own size."""

from dataclasses import replace

import pytest
import torch

from smn_cli.evaluation.compare import LabeledFeatures, ScoringProtocol, compare, score
from smn_cli.evaluation.controls import NativeBase, controlled, readout_scores
from smn_cli.evaluation.knn import knn_predict
from smn_cli.evaluation.readouts import fit_readout, fit_stage_readout

NEIGHBOURS = ScoringProtocol(knn=True, linear=True, ks=(5,))


def features(*, spread: float, offset: float = 0.0, seed: int = 0) -> LabeledFeatures:
    """Three clouds far from the origin, so that all directions are alike until they are centred."""
    generator = torch.Generator().manual_seed(seed)

    def cloud(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 3
        return torch.eye(3, 6)[labels] + offset + spread * torch.randn(count, 6, generator=generator), labels

    return LabeledFeatures(*cloud(90), *cloud(45))


def test_each_reading_is_fitted_to_the_training_images_and_scored_by_neighbours() -> None:
    own = features(spread=0.4, offset=5.0)
    own = replace(own, stages=features(spread=0.3, seed=1))
    found = readout_scores(own, NEIGHBOURS)
    assert list(found) == ["centred", "whitened", "stages"]
    assert own.stages is not None
    readouts = {
        "centred": (own, fit_readout(own.train, "centred")),
        "whitened": (own, fit_readout(own.train, "whitened")),
        "stages": (own.stages, fit_stage_readout(own.stages.train)),
    }
    for kind, (space, readout) in readouts.items():
        predicted = knn_predict(readout(space.train), space.train_labels, readout(space.test), ks=[5], num_classes=3)
        assert found[kind].metrics == {
            "knn.top1": pytest.approx(float((predicted[5] == own.test_labels).double().mean()))
        }
    assert found["centred"].metrics["knn.top1"] > score(own, NEIGHBOURS).metrics["knn.top1"] - 0.05


def test_a_probe_alone_has_no_readings() -> None:
    assert readout_scores(features(spread=0.4), ScoringProtocol(knn=False, linear=True)) == {}


def test_what_stands_beside_is_told_by_name() -> None:
    base, adapted, native = (score(features(spread=spread), NEIGHBOURS) for spread in (0.9, 0.6, 0.05))
    readings = [readout_scores(features(spread=spread), NEIGHBOURS) for spread in (0.9, 0.6)]
    at_native = NativeBase(224, compare(native, None), {64: 1.0, 224: 9.0}).beside(adapted)
    found = controlled(compare(base, adapted), readings[0], readings[1], at_native)
    assert at_native.is_better
    assert found.metrics["native.knn.top1"] == native.metrics["knn.top1"]
    assert found.control_gains["native.linear.top1"] < 0 < found.control_gains["whitened.knn.top1"]
    content = found.to_json()
    assert content["native"]["milliseconds_an_image"] == {"64": 1.0, "224": 9.0}
    assert content["native"]["gain"]["knn.top1"]["high"] < 0
    whitened = content["readouts"]["whitened"]
    assert whitened["gain"]["knn.top1"]["value"] == pytest.approx(
        whitened["adapted"]["top1"] - whitened["base"]["top1"]
    )
    assert content["verdict"] == "better"  # about features as they are, of one size


def test_a_base_alone_has_readings_without_gains() -> None:
    own = features(spread=0.9)
    content = controlled(compare(score(own, NEIGHBOURS), None), readout_scores(own, NEIGHBOURS), {}, None).to_json()
    assert content["readouts"]["centred"].keys() == {"base"}
    assert "native" not in content


def test_where_images_have_the_base_s_own_size_that_gate_is_about_the_base_itself() -> None:
    base, adapted = (score(features(spread=spread), NEIGHBOURS) for spread in (0.9, 0.5))
    found = controlled(compare(base, adapted), {}, {}, None)
    assert found.metrics["native.knn.top1"] == base.metrics["knn.top1"]
    assert found.control_gains["native.knn.top1"] == found.gains["knn.top1"].value
