"""The names that are announced are those of the metrics that come."""

from smn_cli.evaluation.metric_names import metric_names

KS = (200, 20)


def test_scores_that_were_not_asked_for_have_no_names() -> None:
    assert metric_names(knn=True, linear=False, ks=KS).values == ["knn.top1", "knn.top1@20"]
    assert metric_names(knn=False, linear=True, ks=KS).values == ["linear.top1"]


def test_a_base_alone_has_no_gains_and_no_classifier() -> None:
    names = metric_names(knn=True, linear=True, ks=(5,), is_adapted=False, has_classifier=True, has_controls=True)
    assert names.gains == []
    assert "classifier.top1" not in names.values
    assert "native.linear.top1" in names.values


def test_classifier_and_stages_have_values_but_no_gain() -> None:
    names = metric_names(knn=True, linear=True, ks=(5,), has_classifier=True, has_controls=True, has_stages=True)
    assert set(names.values) - set(names.gains) == {"classifier.top1", "stages.knn.top1"}


def test_a_k_is_cut_to_the_training_images_but_not_where_each_part_cuts_it() -> None:
    names = metric_names(knn=True, linear=False, ks=(5, 20, 200), num_train=36, fractions=(0.5,))
    few = ["knn.top1@label:0.5", "knn.top1@20@label:0.5", "knn.top1@200@label:0.5"]
    assert names.values == ["knn.top1", "knn.top1@20", "knn.top1@36", *few]
    assert metric_names(knn=True, linear=False, ks=(200, 100, 5), num_train=36).values == ["knn.top1", "knn.top1@5"]
