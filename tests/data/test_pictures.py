"""Pictures hold what they are made of, where it belongs."""

from __future__ import annotations

import torch

from lexel.data.pictures import centre, columns, heat_map, token_colours, token_picture


def test_columns_hold_every_picture_at_its_place() -> None:
    pictures = [[torch.rand(3, 4, 5), torch.rand(3, 6, 3)], [torch.rand(1, 7, 2)]]
    page = columns(pictures, gap=2)
    assert page.shape == (3, 4 + 2 + 6, 5 + 2 + 2)
    assert torch.equal(page[:, :4, :5], pictures[0][0])
    assert torch.equal(page[:, 6:, :3], pictures[0][1])
    assert torch.equal(page[:, :7, 7:], pictures[1][0].expand(3, 7, 2))
    assert (page[:, 4:6, :7] == 1).all()
    assert (page[:, :, 5:7] == 1).all()


def test_the_centre_is_cropped_only_where_there_is_more() -> None:
    image = torch.rand(3, 10, 4)
    assert torch.equal(centre(image, 6, 6), image[:, 2:8])


def test_like_codes_have_like_colours() -> None:
    clusters = torch.randn(3, 1, 16) * 10 + torch.randn(3, 20, 16)
    colours = token_colours(clusters.reshape(60, 16)).reshape(3, 20, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    within = (colours - colours.mean(1, keepdim=True)).norm(dim=-1).mean()
    between = torch.cdist(colours.mean(1), colours.mean(1)).max()
    assert between > within


def test_codes_of_few_dimensions_have_colours_too() -> None:
    for dim in (1, 2):
        assert token_colours(torch.randn(9, dim)).shape == (9, 3)


def test_each_token_is_a_square_of_its_colour() -> None:
    colours = torch.rand(2, 3, 3)
    picture = token_picture(colours, 4)
    assert picture.shape == (3, 8, 12)
    assert torch.equal(picture[:, 4:7, 8:11], colours[1, 2][:, None, None].expand(3, 3, 3))
    assert (picture[:, 3] == 1).all()


def test_more_error_is_more_light() -> None:
    heat = heat_map(torch.linspace(0, 1.2, 121).reshape(1, -1), 1.0)
    assert heat.shape == (3, 1, 121)
    light = (heat[:, 0].double() * torch.tensor([[0.2126], [0.7152], [0.0722]])).sum(0)
    assert (light.diff()[:100] > 0).all()
    assert (heat[..., 100:] == heat[..., -1:]).all()
