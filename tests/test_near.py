"""How near things are: spread over outlines, and laid under an image."""

import torch

from iso3d_core.near import spread, under


def test_what_is_not_known_is_as_near_as_the_nearest_known_pixel():
    near = torch.zeros(2, 1, 5, 5)
    near[0, 0, 1, 1], near[0, 0, 3, 3] = 0.5, 1.0
    mask = torch.ones(2, 1, 5, 5)
    mask[:, :, 0] = 0
    out = spread(near, mask)
    assert out[0, 0, 1, 1] == out[0, 0, 1, 0] == out[0, 0, 2, 1] == 0.5
    assert out[0, 0, 3, 3] == out[0, 0, 4, 4] == out[0, 0, 4, 3] == 1
    assert not out[:, :, 0].any()
    assert torch.equal(out[1], mask[1])  # nothing is known of it: flat
    assert near[0].count_nonzero() == 2  # left as it was


def test_an_object_is_laid_under_an_image_of_another_size():
    near = torch.zeros(1, 1, 8, 8)
    near[:, :, 2:6, 2:4], near[:, :, 2:6, 4:6] = 1.0, 0.6
    alpha = torch.zeros(1, 1, 20, 30)
    alpha[:, :, 3:13, 5:25] = 1
    out = under(alpha, near)
    assert torch.equal(out > 0, alpha > 0)
    assert (out[:, :, 3:13, 5:15] == 1).all()
    assert torch.allclose(out[:, :, 3:13, 15:25], torch.tensor(0.6))
