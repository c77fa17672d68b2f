import pytest

from lexel.nearest import native


@pytest.fixture(params=["portable", *native.LEVELS])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every path this machine has, one after the other."""
    monkeypatch.setenv("LEXEL_NEAREST", request.param)
    return request.param


@pytest.fixture(params=["", "portable"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The preferred path and the portable one, for what does not depend on the instruction set."""
    monkeypatch.setenv("LEXEL_NEAREST", request.param)
    return request.param
