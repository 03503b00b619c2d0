"""Weight clustering: few shared values, and none for what is zero."""

import numpy as np
import pytest
from assets.toy_task import Toy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compressors.clustering import WeightClustering, clustered_values
from search.testing_exports import ExportedModelContract

TOY = Toy()


class TestWeightClustering(ExportedModelContract):
    options = [{"clusters": 16}, {"clusters": 2}]

    def make(self):
        return WeightClustering()

    def task(self):
        return TOY


def test_values_that_lie_in_clumps_become_the_means_of_the_clumps():
    weights = np.array([[-1.1, -0.9, 0.0], [2.0, 2.2, 2.4]], np.float32)
    found = clustered_values(weights, 2)
    np.testing.assert_allclose(found, [[-1.0, -1.0, 0.0], [2.2, 2.2, 2.2]], rtol=1e-6)
    assert found.dtype == np.float32


@given(arrays(np.float32, (4, 6), elements=st.floats(-4, 4, width=16)), st.integers(1, 12))
def test_there_are_as_few_values_as_asked_for_and_zeros_stay(weights, clusters):
    found = clustered_values(weights, clusters)
    assert len(np.unique(found[weights != 0])) <= clusters
    assert (found[weights == 0] == 0).all()
    if len(np.unique(weights[weights != 0])) <= clusters:
        np.testing.assert_array_equal(found, weights)


def test_no_single_weight_is_nearer_to_another_centroid():
    weights = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    found = clustered_values(weights, 16)
    centroids = np.unique(found)
    assert 14 <= len(centroids) <= 16  # a cluster that no weight is in has no value
    nearest = centroids[np.abs(weights[..., None] - centroids).argmin(-1)]
    assert np.mean(nearest == found) > 0.999
    errors = [np.mean((clustered_values(weights, k) - weights) ** 2) for k in (4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] == pytest.approx(0.01, abs=0.005)  # Lloyd and Max: 0.0095 for a normal
