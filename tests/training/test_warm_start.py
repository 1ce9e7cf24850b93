"""A run that starts from another one's mask has exactly that mask before its first step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smn_cli.backbones.loading import load_backbone
from smn_cli.config.options import AdaptOptions
from smn_cli.data.images.validate import ImageSet
from smn_cli.data.labels.labeled_images import find_labeled_images
from smn_cli.errors import MismatchError, UsageError
from smn_cli.masking.binarize import binarize
from smn_cli.runs.pack import pack_run
from smn_cli.training.run_context import RunRequest
from smn_cli.training.session import Session
from smn_cli.training.warm_start import WarmStart, mirrored_scores, read_start_masks
from tests.conftest import CONVNET, RESNET
from tests.small_runs import Workshop, digests, equal, masks_of, metrics, scores_of

Make = Callable[..., Workshop]
WISHES: dict[str, Any] = {"batch_size": 8, "steps": 3, "size": 32, "teacher_size": 32, "lr_scores": 0.2, "keep": "last"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3, width=32), st.booleans()), min_size=1, max_size=20), st.floats(-1, 1))
def test_mirrored_scores_give_the_mask_at_the_same_distance(values: list[tuple[float, bool]], threshold: float) -> None:
    scores = torch.tensor([score for score, _ in values])
    mask = torch.tensor([is_kept for _, is_kept in values])
    found = mirrored_scores(scores, mask, threshold)
    assert torch.equal(binarize(found, threshold), mask)
    assert torch.allclose((found - threshold).abs(), (scores - threshold).abs(), atol=1e-5)


@pytest.mark.slow
def test_labels_after_no_labels(workshop: Make, labeled_folder: Path, tmp_path: Path) -> None:
    place = workshop(CONVNET)
    first = place.finish("first", **{**WISHES, "recipe": "default", "queue": None, "prototypes": None})
    kept = masks_of(first)
    assert any(not bool(mask.all()) for mask in kept.values())
    backbone = place.backbone()
    masks = read_start_masks(first.folder.path, backbone)
    assert equal({k: m.byte() for k, m in masks.items()}, {k: m.byte() for k, m in kept.items()})
    adapter = tmp_path / "a.safetensors"
    pack_run(first.folder, backbone).save(adapter)
    assert equal(
        {k: m.byte() for k, m in read_start_masks(adapter, backbone).items()}, {k: m.byte() for k, m in kept.items()}
    )
    asked = AdaptOptions(**WISHES, labels="folders")
    labeled = find_labeled_images([labeled_folder], asked)
    assert labeled is not None

    def start(name: str, **more: Any) -> Session:
        request = RunRequest(tmp_path / name, ImageSet(labeled.paths), asked, labeled=labeled)
        return Session.start(request, place.backbone(), **more)

    plain, second = start("plain"), start("second", start=WarmStart(masks))
    assert equal({k: m.byte() for k, m in masks_of(second).items()}, {k: m.byte() for k, m in kept.items()})
    own, other = plain.trainer.objective.classifier(), second.trainer.objective.classifier()
    assert own is not None
    assert other is not None
    assert not torch.equal(own.weight, other.weight)  # fitted to the features under the mask
    resumed = Session.resume(tmp_path / "second", place.backbone())  # a run killed before its first step
    for session in (second, resumed):
        for _ in session.steps():
            pass
    assert equal(scores_of(resumed), scores_of(second))
    assert len(metrics(second)) == 6  # both wrote three steps into one folder
    assert digests(second.backbone.model) == digests(place.backbone().model)


def put_on(session: Session, masks: dict[str, torch.Tensor]) -> None:
    WarmStart(masks).put_on(session.trainer, session.features)


def test_what_cannot_be_a_start_is_refused(
    workshop: Make, weights_file: Callable[[str], Path], labeled_folder: Path
) -> None:
    place = workshop(CONVNET)
    full = place.start("full", train="full")
    with pytest.raises(UsageError, match="has no mask to start from"):
        read_start_masks(full.folder.path, place.backbone())
    with pytest.raises(UsageError, match="it trains no mask"):
        put_on(full, {})
    adapted = place.finish("adapted", norm_stats="adapt", steps=1)
    with pytest.raises(UsageError, match="carries normalisation statistics"):
        read_start_masks(adapted.folder.path, place.backbone())
    with pytest.raises(MismatchError):
        read_start_masks(full.folder.path, load_backbone(RESNET, weights_file(RESNET)))
    session = place.start("default", recipe="default", queue=None, prototypes=None)
    stem = torch.ones(3, dtype=torch.bool)
    stem[0] = False
    with pytest.raises(UsageError, match="`start` cuts weights of stem, which `recipe` default leaves alone"):
        put_on(session, {"stem": stem})
    late = place.start("late", recipe="default", queue=None, prototypes=None, mask_only=("late:0.5",))
    with pytest.raises(UsageError, match="`recipe` default leaves alone: give it `mask_only` late:0"):
        put_on(late, {"stem": stem})
    kept_for_ever = place.start("part", recipe="default", queue=None, prototypes=None, mask_only=("smallest:0.5",))
    name, scores = next(iter(kept_for_ever.trainer.source.trained.items()))
    with pytest.raises(UsageError, match=f"`start` cuts weights of {name} that the run's `mask_kind` or `mask_only`"):
        put_on(kept_for_ever, {name: ~scores.isinf()})
    put_on(kept_for_ever, {name: scores.isinf()})
    assert torch.equal(kept_for_ever.trainer.source.masks()[name], scores.isinf())
