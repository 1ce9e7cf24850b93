"""Readouts against their definition, and what must not change them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.evaluation.readouts import (
    MAX_FITTED,
    LinearReadout,
    Readout,
    fit_linear_readout,
    fit_readout,
    fit_stage_readout,
)
from smn_cli.schemas.readout_kinds import LINEAR_KINDS, LinearKind


@pytest.fixture
def features() -> Tensor:
    """400 rows whose directions are of very different strength, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    strength = torch.logspace(0, -2, 32)
    return torch.randn(400, 32, generator=generator) * strength + torch.linspace(1, 2, 32)


def test_raw_leaves_features_as_they_are(features: Tensor) -> None:
    assert fit_readout(features, "raw")(features) is features


@pytest.mark.parametrize("kind", ["centred", "whitened"])
def test_rows_have_unit_length_and_length_means_nothing(features: Tensor, kind: str) -> None:
    readout = fit_readout(features, kind)  # type: ignore[arg-type]
    rows = readout(features)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(400))
    lengths = torch.linspace(0.1, 9, 400)[:, None]
    torch.testing.assert_close(fit_readout(features * lengths, kind)(features * 3), rows, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]


def test_centred_is_the_unit_length_of_what_is_left_without_the_mean(features: Tensor) -> None:
    unit = functional.normalize(features, dim=1)
    expected = functional.normalize(unit - unit.mean(dim=0), dim=1)
    torch.testing.assert_close(fit_readout(features, "centred")(features), expected, rtol=1e-4, atol=1e-5)


def test_whitening_is_that_of_the_covariance_s_eigenvectors(features: Tensor) -> None:
    unit = functional.normalize(features.double(), dim=1)
    centred = unit - unit.mean(dim=0)
    squares, directions = torch.linalg.eigh(centred.T @ centred)
    squares, directions = squares.flip(0)[:10], directions.flip(1)[:, :10]
    lifted = (squares + 0.1 * squares.mean()).sqrt()
    rows = functional.normalize(centred @ directions * lifted**-0.5, dim=1)
    found = fit_readout(features, "whitened", max_dim=10)(features).double()
    torch.testing.assert_close(found @ found.T, rows @ rows.T, rtol=1e-4, atol=1e-4)  # signs are free


def test_power_one_is_centring_and_power_zero_makes_directions_equal(features: Tensor) -> None:
    few = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    as_they_are = fit_readout(few, "whitened", power=1.0)(few)
    centred = fit_readout(few, "centred")(few)
    torch.testing.assert_close(as_they_are @ as_they_are.T, centred @ centred.T, rtol=1e-4, atol=1e-4)
    weight = fit_readout(features, "whitened", power=0.0, shrink=0.0).weight
    assert weight is not None
    unit = functional.normalize(features, dim=1)
    spread = ((unit - unit.mean(dim=0)) @ weight).square().mean(dim=0)
    torch.testing.assert_close(spread, spread[:1].expand_as(spread), rtol=1e-3, atol=0)


def test_directions_are_at_most_an_eighth_of_the_images_and_never_more_than_the_rank() -> None:
    flat = torch.randn(64, 3) @ torch.randn(3, 32)
    for rows, dim in ((torch.randn(64, 32), 8), (flat, 3), (torch.randn(4, 32), 1)):
        weight = fit_readout(rows, "whitened").weight
        assert weight is not None
        assert weight.shape == (32, dim)


def test_equal_rows_give_numbers() -> None:
    rows = torch.ones(20, 4)
    for kind in ("centred", "whitened"):
        assert fit_readout(rows, kind)(torch.rand(3, 4)).isfinite().all()


def test_a_readout_without_mean_and_weight_is_the_raw_one() -> None:
    rows = torch.rand(2, 3)
    assert Readout()(rows) is rows


def test_of_stages_units_mean_nothing_and_what_never_moves_is_silent() -> None:
    stages = torch.randn(64, 12, generator=torch.Generator().manual_seed(0)) + 3
    units = torch.logspace(-3, 3, 12)
    one = fit_stage_readout(stages)(stages)
    other = fit_stage_readout(stages * units)(stages * units)
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=1e-3, atol=1e-3)
    still = torch.cat([stages, torch.full((64, 3), 1e3)], dim=1)
    rows = fit_stage_readout(still)(still)
    torch.testing.assert_close(rows @ rows.T, one @ one.T, rtol=1e-3, atol=1e-3)


def test_of_very_many_rows_evenly_spaced_ones_are_fitted_to() -> None:
    rows = torch.randn(2 * MAX_FITTED + 1, 4, generator=torch.Generator().manual_seed(0))
    readout, expected = fit_readout(rows, "whitened"), fit_readout(rows[::3], "whitened")
    assert readout.weight is not None
    assert expected.weight is not None
    assert torch.equal(readout.weight, expected.weight)


def read(readout: LinearReadout, features: Tensor) -> Tensor:
    """Rows of unit length, in float64."""
    rows = features.double() * (1 if readout.inputs is None else readout.inputs.double()) - readout.mean
    return functional.normalize(rows if readout.weight is None else rows @ readout.weight.T, dim=1)


@pytest.mark.parametrize("kind", ["centred", "whitened"])
def test_of_features_of_equal_length_the_linear_readout_is_the_other(features: Tensor, kind: str) -> None:
    equal = functional.normalize(features, dim=1) * 7
    rows, expected = read(fit_linear_readout(equal, kind), equal), fit_readout(equal, kind)(equal).double()  # type: ignore[arg-type]
    torch.testing.assert_close(rows @ rows.T, expected @ expected.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_what_a_linear_readout_was_fitted_to_has_mean_zero(features: Tensor, kind: LinearKind) -> None:
    readout = fit_linear_readout(features, kind)
    inputs = 1 if readout.inputs is None else readout.inputs.double()
    torch.testing.assert_close((features.double() * inputs).mean(dim=0), readout.mean)
    assert readout.weight is None or readout.weight.shape == (32, 32)
    assert (readout.weight is None, readout.inputs is None) == (kind == "centred", kind != "stages")


def test_a_linear_readout_of_stages_takes_no_notice_of_units_and_of_what_never_moves() -> None:
    stages = torch.randn(64, 12, generator=torch.Generator().manual_seed(0)) + 3
    units = torch.logspace(-3, 3, 12)
    one, other = (read(fit_linear_readout(rows, "stages"), rows) for rows in (stages, stages * units))
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=1e-3, atol=1e-3)
    still = torch.cat([stages, torch.full((64, 3), 1e3)], dim=1)
    readout = fit_linear_readout(still, "stages")
    assert readout.inputs is not None
    assert readout.inputs[12:].tolist() == [0, 0, 0]
    rows = read(readout, still)
    torch.testing.assert_close(rows @ rows.T, one @ one.T, rtol=1e-3, atol=1e-3)


def test_fewer_images_than_features_give_the_directions_that_more_columns_of_zeros_do_not_change() -> None:
    rows = torch.randn(80, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -1, 40)
    wide = torch.cat([rows, torch.zeros(80, 90)], dim=1)  # by its other side
    narrow, wider = fit_linear_readout(rows, "whitened"), fit_linear_readout(wide, "whitened")
    assert narrow.weight is not None
    assert wider.weight is not None
    assert not wider.weight[:, 40:].any()
    torch.testing.assert_close(narrow.weight, wider.weight[:, :40], rtol=1e-6, atol=1e-8)  # signs, too
    largest = narrow.weight.gather(1, narrow.weight.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_equal_rows_give_a_linear_readout_of_numbers(kind: LinearKind) -> None:
    readout = fit_linear_readout(torch.ones(20, 4), kind)
    assert read(readout, torch.rand(3, 4)).isfinite().all()


def test_of_very_many_rows_a_linear_readout_is_fitted_to_evenly_spaced_ones() -> None:
    rows = torch.randn(2 * MAX_FITTED + 1, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_linear_readout(rows, "centred").mean, rows[::3].double().mean(dim=0))
