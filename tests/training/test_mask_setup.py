"""Runs cut only what they may, keep exactly what they were asked to, and resume to the same bits."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from smn_cli.backbones.structure import block_names, idle_biases
from smn_cli.config.options import AdaptOptions
from smn_cli.config.plan import AdaptPlan
from smn_cli.errors import UsageError
from smn_cli.masking.backbone import MaskedBackbone, run_backbone
from smn_cli.masking.topk import count_of
from smn_cli.runs.run_result import read_learned
from smn_cli.training.mask_setup import first_scores, names_to_train, why_late
from smn_cli.training.planning import make_plan
from smn_cli.training.session import Session
from tests.conftest import CONVNET, RESNET, VIT
from tests.masking.test_backbone import build
from tests.small_runs import Workshop, equal, masks_of, metrics, scores_of

Make = Callable[..., Workshop]


def planned(*specs: str, recipe: str = "paper", **options: Any) -> AdaptPlan:
    return make_plan(AdaptOptions(recipe=recipe, mask_only=specs, **options), 1000)


def resnet50() -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model("resnet50", num_classes=0)
    return model


def count(model: nn.Module, *specs: str, recipe: str = "paper") -> int:
    return sum(model.get_parameter(name).numel() for name in names_to_train(model, planned(*specs, recipe=recipe)))


@pytest.mark.slow
def test_the_first_blocks_of_a_resnet50_have_the_papers_counts() -> None:
    model = resnet50()
    whole = count(model)
    assert (count(model, "blocks:1"), whole) == (213_504, 23_462_592)
    assert round(100 * count(model, "blocks:1") / whole, 2) == 0.91
    assert round(100 * count(model, "blocks:2") / whole, 2) == 6.08
    assert count(model, "blocks:4") == whole - 64 * 3 * 7 * 7  # all but the stem


def test_names_take_the_place_of_the_recipes_choice_and_may_be_any_parameters() -> None:
    model = resnet50()
    assert count(model, "name:*") == sum(parameter.numel() for parameter in model.parameters())
    without_norms = names_to_train(model, planned("name:*", "all-but:*bn*", "all-but:*.downsample.1.*"))
    assert [name for name, p in model.named_parameters() if p.dim() > 1] == without_norms
    assert names_to_train(model, planned("name:layer1.0.bn1.*", "name:bn1.bias")) == [
        "bn1.bias",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
    ]
    assert names_to_train(model, planned("all-but:layer[234]*", "all-but:conv1.weight")) == names_to_train(
        model, planned("blocks:1")
    )


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (("blocks:5",), r"`mask_only` blocks:5: this network has 4 \(layer1 to layer4\)"),
        (("name:conv9*",), "`mask_only` name:conv9\\* leaves no parameter"),
        (("blocks:1", "all-but:layer1*"), "`mask_only` blocks:1 all-but:layer1\\* leaves no parameter"),
    ],
)
def test_what_a_network_does_not_have_is_refused(specs: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        names_to_train(resnet50(), planned(*specs))
    with pytest.raises(UsageError, match="names none: give name:PATTERN"):
        names_to_train(nn.Sequential(nn.Linear(2, 2)), planned("blocks:1"))


def test_late_leaves_the_first_blocks_whole_that_hold_few_of_the_weights_and_what_lies_before_them() -> None:
    model = resnet50()
    late = names_to_train(model, planned("late:0.1"))
    assert late == names_to_train(model, planned("all-but:layer[12].*", "all-but:conv1.weight"))
    assert names_to_train(model, planned("late:0.06")) == names_to_train(
        model, planned("all-but:layer1.*", "all-but:conv1*")
    )
    assert (
        names_to_train(model, planned("late:0.001"))
        == names_to_train(model, planned("late:0"))
        == names_to_train(model, planned())
    )
    half = names_to_train(model, planned("name:layer[34].*.conv1.weight", "late:0.4"))
    assert half == names_to_train(model, planned("name:layer4.*.conv1.weight")), "a share of what could be cut"
    with pytest.raises(UsageError, match="late:1 leaves no parameter"):
        names_to_train(model, planned("late:1"))


def test_at_native_size_the_default_cuts_late_blocks_and_full_training_all() -> None:
    native, small = make_plan(AdaptOptions(), 1000), make_plan(AdaptOptions(size=96), 1000)
    assert (native.mask_only, native.views.global_area) == (
        ("late:0.1",),
        (0.25, 1.0),
    )
    assert (small.mask_only, small.views.global_area) == ((), (0.6, 1.0))
    assert make_plan(AdaptOptions(mask_only=("late:0",)), 1000).mask_only == ("late:0",)
    assert make_plan(AdaptOptions(train="full"), 1000).mask_only == ()
    for options in (AdaptOptions(include_stem=True), AdaptOptions(include_depthwise=True)):
        assert make_plan(options, 1000).mask_only == (), "what was asked for by name is not left out"


def test_the_plan_says_from_which_block_on_it_masks_and_why(workshop: Make) -> None:
    assert why_late(resnet50(), planned("late:0.1")) == (
        "layer3 and what follows it; the blocks before hold 6.1% of the weights and much of the work, and stay whole: "
        "they need no gradient"
    )
    assert why_late(resnet50(), planned("late:0.001")) == "every weight: the first block holds more of them"
    blockless = nn.Sequential(nn.Linear(2, 2))
    assert why_late(blockless, planned("late:0.1")) == "every weight: this network names no blocks"
    settings: dict[str, Any] = {"recipe": "default", "local_views": 0, "prototypes": None, "queue": None}
    plan = workshop(RESNET).start("run", **settings, steps=1, teacher=("stages",)).plan
    assert plan.mask_only == ("late:0.1",)
    assert plan.reasons["mask_only"] == why_late(build(RESNET), plan)


def test_a_whole_trunk_is_run_without_a_graph() -> None:
    model = build(RESNET)
    names = names_to_train(model, planned("late:0.3"))
    first = next(block for block in block_names(model) if any(name.startswith(f"{block}.") for name in names))
    outputs: dict[str, Tensor] = {}
    for block in block_names(model):
        model.get_submodule(block).register_forward_hook(lambda *args, block=block: outputs.update({block: args[2]}))
    masked = MaskedBackbone(model, first_scores(model, names, planned("late:0.3")))
    run_backbone(model, torch.randn(2, 3, 32, 32), masked.effective_weights())
    tracked = [block for block, output in outputs.items() if output.requires_grad]
    assert tracked == block_names(model)[block_names(model).index(first) :]
    assert len(tracked) < len(outputs)


@pytest.mark.parametrize("spec", ["random:0.25", "largest:0.25", "smallest:0.25"])
@pytest.mark.parametrize(("recipe", "topk"), [("paper", False), ("default", True)])
def test_only_drawn_weights_can_ever_be_cut(workshop: Make, spec: str, topk: bool, recipe: str) -> None:
    options: dict[str, Any] = {"mask_kind": "topk", "density": 0.5} if topk else {"lr_scores": 500.0}
    place = workshop(RESNET)
    session = place.start("run", recipe=recipe, queue=None, mask_only=(spec,), steps=4, **options)
    drawn = {name: scores.isfinite() for name, scores in scores_of(session).items()}
    assert all(int(part.sum()) == count_of(0.25, part.numel()) for part in drawn.values())
    for _ in session.steps():
        pass
    masks = masks_of(session)
    assert all(bool(mask[~drawn[name]].all()) for name, mask in masks.items())
    assert any(not bool(mask.all()) for mask in masks.values())
    assert all(not bool(scores.isnan().any()) for scores in scores_of(session).values())
    if topk:
        kept = {name: int(mask[drawn[name]].sum()) for name, mask in masks.items()}
        assert kept == {name: count_of(0.5, int(part.sum())) for name, part in drawn.items()}


def test_a_drawn_part_follows_from_the_seed(workshop: Make) -> None:
    place = workshop()
    starts = [place.start(name, mask_only=("random:0.5",), seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    one, two, other = (scores_of(session) for session in starts)
    assert equal(one, two)
    assert not equal(one, other)


SELECTIVE: list[dict[str, Any]] = [
    {"mask_kind": "topk", "density": 0.7},
    {"mask_kind": "topk", "density": 0.7, "density_start": 1.0},
    {"mask_only": ("random:0.3", "name:*.weight"), "lr_scores": 500.0},
    {"mask_only": ("blocks:2",), "lr_scores": 500.0},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", SELECTIVE)
def test_resumed_runs_equal_the_uninterrupted_one_bit_for_bit(workshop: Make, options: dict[str, Any]) -> None:
    place = workshop()
    whole = place.finish("whole", steps=6, **options)
    parts = place.start("parts", steps=6, save_every_s=0.0, **options).steps()
    for _ in range(3):
        next(parts)
    resumed = place.resume("parts")
    assert resumed.trainer.step == 3
    for _ in resumed.steps():
        pass
    assert equal(scores_of(resumed), scores_of(whole))
    assert equal(masks_of(resumed), masks_of(whole))
    assert metrics(resumed) == metrics(whole)


@pytest.mark.parametrize("options", SELECTIVE)
def test_what_a_run_has_learned_is_what_it_trains_with(workshop: Make, options: dict[str, Any]) -> None:
    session = workshop().start("run", steps=6, save_every_s=0.0, **options)
    for _ in zip(range(3), session.steps(), strict=False):
        pass
    session._save()
    learned = read_learned(session.folder)
    assert equal(learned.masks, masks_of(session))


def densities(session: Session) -> list[float]:
    return [line["density"] for line in metrics(session)]


def test_topk_keeps_its_density_in_every_step_and_tensor(workshop: Make) -> None:
    session = workshop().finish("run", steps=3, mask_kind="topk", density=0.8)
    for mask in masks_of(session).values():
        assert int(mask.sum()) == count_of(0.8, mask.numel())
    assert len(set(densities(session))) == 1
    assert sum(line["num_flips"] for line in metrics(session)) > 0


def test_the_density_falls_linearly_to_the_last_step(workshop: Make) -> None:
    session = workshop().finish("run", steps=5, mask_kind="topk", density=0.5, density_start=1.0)
    assert densities(session) == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5], abs=2e-3)
    for mask in masks_of(session).values():
        assert int(mask.sum()) == count_of(0.5, mask.numel())


def test_the_density_waits_for_the_head() -> None:
    plan = planned(recipe="swav", steps=100, mask_kind="topk", density=0.6, density_start=1.0)
    assert plan.head_steps == 50
    found = [plan.density_at(step) for step in (0, 50, 75, 100)]
    assert found == pytest.approx([1.0, 1.0, 0.8, 0.6])
    assert planned().density_at(3) is None


def test_what_is_kept_early_is_a_state_of_its_own_density(workshop: Make) -> None:
    session = workshop().start("run", steps=4, keep="best", mask_kind="topk", density=0.5, density_start=1.0)
    session.best_state.alarms = []
    steps = session.steps()
    next(steps)
    next(steps)
    tensors = {name: mask.clone() for name, mask in masks_of(session).items()}
    session.best_state.best_step, session.best_state.tensors = 2, tensors
    session._save()
    learned = read_learned(session.folder)
    kept = sum(int(mask.sum()) for mask in learned.masks.values()) / sum(m.numel() for m in learned.masks.values())
    assert learned.step == 2
    assert kept == pytest.approx(0.75, abs=2e-3)


def scores_under(model: nn.Module, *specs: str, **options: Any) -> dict[str, Tensor]:
    plan = planned(*specs, **options)
    return first_scores(model, names_to_train(model, plan), plan)


@pytest.mark.parametrize("recipe", ["paper", "default"])
def test_a_mask_over_attention_biases_leaves_all_keys_on(workshop: Make, recipe: str) -> None:
    place = workshop(VIT)
    session = place.start(
        "run",
        recipe=recipe,
        queue=None,
        prototypes=None,
        size=160,
        mask_only=("name:*.attn.qkv.bias",),
        steps=4,
        lr_scores=0.6,
    )
    model = session.backbone.model
    assert not any(bool(model.get_parameter(name).any()) for name in idle_biases(model))  # timm starts them at zero
    with torch.no_grad():
        for name, bias in model.named_parameters():
            if name in idle_biases(model):
                bias.normal_(0, 0.1)
    session.trainer.source.refresh()
    before = scores_of(session)
    for _ in session.steps():
        pass
    after, masks = scores_of(session), masks_of(session)
    assert after.keys() == idle_biases(model).keys()
    for name, keys in idle_biases(model).items():
        assert bool(masks[name][keys].all())
        assert torch.equal(after[name][keys], before[name][keys])
        for part in (slice(0, keys.start), slice(keys.stop, None)):
            assert bool((after[name][part] != before[name][part]).any())
    if recipe == "default":
        assert not all(bool(mask.all()) for mask in masks.values())


def test_blocks_of_every_family_leave_the_rest_without_scores() -> None:
    for arch in (CONVNET, RESNET, VIT):
        model = build(arch)
        first, second = block_names(model)[:2]
        names = set(scores_under(model, "blocks:2"))
        assert names
        assert all(name.startswith((f"{first}.", f"{second}.")) for name in names)


@pytest.mark.parametrize("arch", ["levit_128s", "efficientvit_m0", "tiny_vit_5m_224"])
def test_what_attention_reads_once_is_never_masked(arch: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(arch, num_classes=0)
    rest = [name for name, _ in model.named_parameters() if not name.endswith("attention_biases")]
    assert names_to_train(model, planned("name:*")) == rest
    with pytest.raises(UsageError, match="leaves no parameter"):
        names_to_train(model, planned("name:*.attention_biases"))
