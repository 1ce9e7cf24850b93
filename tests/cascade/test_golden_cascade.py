"""Cascade files of every released format version load for ever, rebuild the same bits and route alike."""

import hashlib

import torch
from safetensors.torch import load_file

from smn_cli.cascade.file import cascade_from_bytes, load_cascade
from tests.golden.make_golden import FOLDER
from tests.golden.make_golden_cascade import NAME, adapters, features, golden_cascade

SHA256 = "90e2622c5a444406e1e29970cdc0241959c7d985d33a4e08ce13dcaebf2a23cc"
FIRST = [4.412948, -1.878858, -0.557057, 0.110237]
ROUTES = [0, 0, 0, 0, 1, 1, 1]


def test_the_golden_cascade_is_never_remade() -> None:
    assert hashlib.sha256((FOLDER / NAME).read_bytes()).hexdigest() == SHA256


def test_the_golden_cascade_holds_what_it_was_made_of() -> None:
    base = load_file(FOLDER / "base.safetensors")
    cascade = load_cascade(FOLDER / NAME)
    dispatcher, *experts = adapters()
    for found, made in zip((cascade.dispatcher, *cascade.experts), (dispatcher, *experts), strict=True):
        rebuilt, expected = found.rebuild(base), made.rebuild(base)
        assert all(torch.equal(rebuilt[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(cascade.experts[0].rebuild(base)["stem.weight"], dispatcher.rebuild(base)["stem.weight"])
    assert (cascade.mode, cascade.provenance) == ("conditional", {"note": "caf\u00e9 \u2713"})


def test_the_golden_cascade_routes_and_combines_as_recorded() -> None:
    cascade = load_cascade(FOLDER / NAME)
    routes = cascade.router.route(features())
    assert routes.tolist() == ROUTES
    combined = cascade.combination.combine([features(), features() + 1, features() - 1], routes)
    assert torch.allclose(combined[0], torch.tensor(FIRST), atol=1e-6)


def test_reading_and_writing_the_golden_cascade_gives_its_bytes() -> None:
    data = (FOLDER / NAME).read_bytes()
    assert cascade_from_bytes(data).to_bytes() == data
    made = golden_cascade()
    assert made.header == load_cascade(FOLDER / NAME).header
