import pytest
import torch

from tests.quantizers.zoo import ZOO, Example


@pytest.fixture(params=ZOO.values(), ids=ZOO.keys())
def example(request: pytest.FixtureRequest) -> Example:
    torch.manual_seed(0)
    chosen: Example = request.param
    return chosen
