"""Routes are those of scikit-learn over the same projection, the same after every fit, and never an accident."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import Tensor

from smn_cli.cascade.projection import Projection, fit_projection
from smn_cli.cascade.router import CLUSTERINGS, fit_router, unit
from smn_cli.errors import DataError, UsageError


def clouds(num_images: int = 400, *, num_clouds: int = 4, width: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_clouds, width, generator=generator)
    chosen = torch.randint(0, num_clouds, (num_images,), generator=generator)
    spread = (0.3 + 0.4 * chosen)[:, None]  # or no volume would matter
    return centres[chosen] + spread * torch.randn(num_images, width, generator=generator)


@pytest.mark.parametrize("kind", CLUSTERINGS)
def test_routes_are_those_of_scikit_learn(kind: str) -> None:
    features, others = clouds(), clouds(seed=1)
    router = fit_router(features, 4, kind=kind, seed=3)
    points, test = (Projection.of(router.tensors).project(unit(each)).numpy() for each in (features, others))
    if kind == "gmm":
        expected = GaussianMixture(4, random_state=3).fit(points).predict(test)
    else:
        expected = KMeans(4, n_init=10, random_state=3).fit(points).predict(test)
    assert (router.route(others).numpy() == expected).mean() > 0.99  # half precision moves a border a little


def test_components_have_mean_zero_and_variance_one_whatever_the_number_of_images() -> None:
    for num_images in (50, 2000):
        features = clouds(num_images)
        points = Projection.of(fit_router(features, 4).tensors).project(unit(features))
        assert torch.allclose(points.mean(dim=0), torch.zeros(20).double(), atol=1e-5)
        assert torch.allclose(points.var(dim=0, correction=0), torch.ones(20).double(), atol=1e-5)


def test_the_scale_of_features_does_not_matter() -> None:
    features = clouds()
    assert torch.equal(fit_router(features, 4).route(features), fit_router(features * 8, 4).route(features / 4))


@pytest.mark.parametrize("kind", CLUSTERINGS)
def test_a_fit_depends_on_nothing_but_its_arguments(kind: str) -> None:
    one = fit_router(clouds(), 4, kind=kind, seed=7)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    two = fit_router(clouds(), 4, kind=kind, seed=7)
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


@pytest.mark.parametrize("kind", CLUSTERINGS)
def test_an_image_goes_where_it_goes_alone(kind: str) -> None:
    features = clouds()
    router = fit_router(features, 4, kind=kind)
    together = router.route(features)
    assert [int(router.route(row[None])) for row in features[:50]] == together[:50].tolist()
    assert router.route(features[:0]).shape == (0,)


@pytest.mark.parametrize("kind", CLUSTERINGS)
@settings(max_examples=25, deadline=None)
@given(num_images=st.integers(2, 12), num_experts=st.integers(1, 6), num_distinct=st.integers(1, 12))
def test_few_and_repeated_images_are_routed_or_refused(
    kind: str, num_images: int, num_experts: int, num_distinct: int
) -> None:
    features = clouds(num_images)[torch.arange(num_images) % num_distinct]
    if min(num_images, num_distinct) < num_experts:
        with pytest.raises(DataError, match="add images or ask for fewer experts"):
            fit_router(features, num_experts, kind=kind)
    else:
        routes = fit_router(features, num_experts, kind=kind).route(features)
        assert 0 <= int(routes.min()) <= int(routes.max()) < num_experts


def test_a_router_is_small() -> None:
    assert fit_router(clouds(width=1280), 5).num_bytes < 29_000


def test_what_cannot_be_clustered_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="clustering 'dbscan' is unknown"):
        fit_router(clouds(), 4, kind="dbscan")
    with pytest.raises(UsageError, match="0 experts"):
        fit_router(clouds(), 0)
    with pytest.raises(DataError, match="infinite or not numbers"):
        fit_router(torch.full((5, 4), torch.nan), 2)
    with pytest.raises(DataError, match="needs two or more"):
        fit_router(torch.ones(1, 4), 1)


def test_a_projection_holds_no_more_than_the_vectors_tell_apart() -> None:
    flat = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) @ torch.ones(3, 8).tril()
    assert len(fit_projection(flat, 8, seed=0).axes) == 3
    assert len(fit_projection(flat[:3], 8, seed=0).axes) <= 2
