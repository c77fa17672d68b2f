"""How far a code reaches is what the decoded image says."""

from __future__ import annotations

import pytest
import torch

from lexel.report.decoder import reach
from tests.report.models import tiny_model


@pytest.mark.parametrize("settings", [{}, {"upsampling": "resize"}, {"downsampling": 1}, {"downsampling": 8}])
@torch.no_grad()
def test_a_code_changes_what_is_within_its_reach_and_nothing_else(settings: dict[str, object]) -> None:
    vqvae = tiny_model(residual_layers=1, **settings)
    radius, f = reach(vqvae), vqvae.downsampling
    z = torch.randn(1, 4, 25, 25)
    other = z.clone()
    other[:, :, 12, 12] += 1e4  # so large that what it does at the edge of its reach is seen
    changed = (vqvae.images(z) - vqvae.images(other)).abs().amax((0, 1)) > 1e-3
    cells = torch.nn.functional.max_pool2d(changed[None].float(), f)[0].nonzero()
    assert int((cells - 12).abs().max()) == radius
