"""A cascade in memory and the one read from its file are the same network, bit for bit, and small."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smn_cli.adapters.adapter import Adapter
from smn_cli.cascade.cascade import make_cascade
from smn_cli.cascade.combining import KINDS, MODES
from smn_cli.cascade.file import cascade_from_bytes, load_cascade, save_cascade
from smn_cli.cascade.schema import is_cascade
from smn_cli.errors import MismatchError, UsageError
from tests.adapters.forging import toy_adapter, toy_base
from tests.cascade.small_cascades import (
    NUM_EXPERTS,
    features_of,
    images,
    small_adapters,
    small_cascade,
    small_model,
    toy_cascade,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "mode"), [(kind, MODES[number % 2]) for number, kind in enumerate(KINDS)])
def test_live_and_read_cascades_embed_alike(kind: str, mode: str) -> None:
    cascade, model, batch = small_cascade(kind, mode), small_model(), images(9, seed=2)
    read = cascade_from_bytes(cascade.to_bytes())
    assert read.to_bytes() == cascade.to_bytes()
    embedded = cascade.embed(model, batch)
    assert embedded.shape == (9, cascade.combination.dim)
    assert torch.equal(read.embed(model, batch), embedded)


CHILD = """
import sys
from safetensors.torch import save_file
from smn_cli import load_cascade
from tests.cascade.small_cascades import images, small_model
import torch
torch.set_num_threads(2)
save_file({"embedded": load_cascade(sys.argv[1]).embed(small_model(), images(9, seed=2))}, sys.argv[2])
"""


def test_a_model_that_gives_no_features_is_refused_and_left_as_the_base() -> None:
    cascade, model = small_cascade(), small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.classifier = torch.nn.Linear(cascade.combination.num_features, 3)
    with pytest.raises(UsageError, match=r"gives \(9, 3\) for 9 images: .*num_classes=0"):
        cascade.embed(model, images(9))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.slow
def test_another_process_embeds_the_same_bits(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    cascade = small_cascade("random")
    save_cascade(tmp_path / "cascade.safetensors", cascade)
    paths = [str(tmp_path / name) for name in ("cascade.safetensors", "out.safetensors")]
    subprocess.run([sys.executable, "-c", CHILD, *paths], cwd=ROOT, check=True, timeout=120)
    expected = cascade.embed(small_model(), images(9, seed=2))
    assert torch.equal(load_file(paths[1])["embedded"], expected)


def test_conditional_features_are_the_dispatchers_and_one_experts() -> None:
    cascade, model, batch = small_cascade(), small_model(), images(12, seed=4)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = features_of(cascade.dispatcher, model, batch)
    routes = cascade.router.route(first)
    assert len(routes.unique()) > 1  # type: ignore[no-untyped-call]
    blocks = [first, *(features_of(expert, model, batch) for expert in cascade.experts)]
    assert not torch.equal(blocks[0], blocks[1])
    assert torch.equal(blocks[0], blocks[-1])  # an expert that is the dispatcher
    expected = cascade.combination.combine(blocks, routes)
    assert torch.allclose(cascade.embed(model, batch), expected, atol=1e-6)
    both = cascade.combination_for("unconditional").combine(blocks)
    assert torch.equal(cascade.embed(model, batch, mode="unconditional"), both)
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("statistics", [False, True])
def test_experts_rebuild_to_what_they_were_made_of(statistics: bool) -> None:
    base = small_model().state_dict()
    dispatcher, *experts = small_adapters(base, statistics=statistics)
    original = small_cascade()
    cascade = make_cascade(
        base, dispatcher, experts, router=original.router, combination=original.combination, provenance={}
    )
    read = cascade_from_bytes(cascade.to_bytes())
    for expert, coded in zip(experts, read.experts, strict=True):
        rebuilt, expected = coded.rebuild(base), expert.rebuild(base)
        assert all(torch.equal(rebuilt[name], tensor) for name, tensor in expected.items())
        assert coded.header.density == expert.header.density
        alone = coded.plain(base)
        assert type(alone) is Adapter
        assert alone.header.adapted_digest == expert.header.adapted_digest
        assert alone.header.provenance == expert.header.provenance


def test_an_expert_takes_far_fewer_bytes_than_alone_and_a_copy_none() -> None:
    cascade = small_cascade()
    base = small_model().state_dict()
    alone = [len(expert.plain(base).to_bytes()) for expert in cascade.experts]
    assert all(len(expert.coded) < 0.45 * whole for expert, whole in zip(cascade.experts, alone, strict=True))
    assert cascade.sizes()[f"expert-{NUM_EXPERTS - 1}"] == 0
    assert cascade.experts[0].header.provenance == {"images": 61}  # what differs


@pytest.mark.parametrize("mode", MODES)
def test_an_image_has_the_same_features_alone_and_in_a_batch(mode: str) -> None:
    cascade, model, batch = small_cascade(), small_model(), images(9, seed=5)
    together = cascade.embed(model, batch, mode=mode)
    apart = [cascade.embed(model, part, mode=mode) for part in batch.split([1, 2, 1, 5])]  # type: ignore[no-untyped-call]
    assert torch.allclose(torch.cat(apart), together, rtol=0, atol=1e-6)  # convolutions round by batch


def test_sizes_add_up_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cascade.safetensors"
    save_cascade(path, small_cascade("blocks"))
    sizes = load_cascade(path).sizes()
    assert sizes["file"] == path.stat().st_size == sum(size for name, size in sizes.items() if name != "file")
    assert sizes["metadata"] > 0


def test_a_cascade_is_told_from_an_adapter(tmp_path: Path) -> None:
    for name, data in (("cascade", toy_cascade().to_bytes()), ("adapter", toy_adapter().to_bytes()), ("text", b"no")):
        (tmp_path / name).write_bytes(data)
    assert [is_cascade(tmp_path / name) for name in ("cascade", "adapter", "text", "absent")] == [True] + [False] * 3


def test_another_base_is_refused_and_the_model_left_alone() -> None:
    model = small_model()
    with torch.no_grad():
        next(model.parameters()).add_(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(MismatchError, match="made for other weights"):
        small_cascade().embed(model, images(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_experts_unlike_the_dispatcher_are_refused() -> None:
    original, base = toy_cascade(), toy_base()
    dispatcher, *experts = small_adapters(base)

    def refused(changed: Adapter, message: str, error: type[Exception] = MismatchError) -> None:
        with pytest.raises(error, match=message):
            make_cascade(
                base,
                dispatcher,
                [*experts[:-1], changed],
                router=original.router,
                combination=original.combination,
            )

    refused(toy_adapter(), "expert 2 carries other statistics")
    refused(toy_adapter(statistics=False), "expert 2 prepares images unlike")
    other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in base.items()}
    refused(small_adapters(other)[0], "expert 2 is for another base")
    fewer = small_adapters({name: tensor for name, tensor in base.items() if name != "fc.weight"})[0]
    refused(fewer, "expert 2 is for another base")
    with pytest.raises(UsageError, match="2 experts do not fit a router of 3"):
        make_cascade(base, dispatcher, experts[:2], router=original.router, combination=original.combination)


def test_a_fitted_combination_serves_its_own_mode_only() -> None:
    with pytest.raises(UsageError, match="'random' was fitted for conditional"):
        small_cascade("random").embed(small_model(), images(2), mode="unconditional")
    with pytest.raises(UsageError, match="mode 'both' is unknown"):
        small_cascade().embed(small_model(), images(2), mode="both")
    with pytest.raises(UsageError, match="no file of its own"):
        small_cascade().experts[0].save("anywhere")
