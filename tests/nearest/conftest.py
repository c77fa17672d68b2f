from collections.abc import Iterator

import pytest

from lexel.nearest import available_backends, use_backend


@pytest.fixture(params=available_backends())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every path this machine has, one after the other."""
    with use_backend(request.param):
        yield request.param


@pytest.fixture(params=sorted({"portable", available_backends()[-1]}))
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """The preferred path and the portable one, for what does not depend on the instruction set."""
    with use_backend(request.param):
        yield request.param
