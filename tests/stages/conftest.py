"""What runs of a model of random weights start from."""

import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory, require_extra):
    """The configuration of a tiny CLIP model, and its weights twice."""
    require_extra("open_clip")
    from tiny_clip import write_model

    return write_model(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def shards(request, tmp_path_factory):
    """Shards of the module's `SAMPLES`."""
    from shard_data import write_shards

    return write_shards(tmp_path_factory.mktemp("shards"), request.module.SAMPLES)
