"""The sketch: one volume, rendered by the cameras of the world."""

import pytest
import torch

from iso3d_core.cameras import orbit, project, unit_sphere_matrix
from iso3d_core.priors.sketch import SIDE, Sketch

AZIMUTHS, ELEVATIONS = torch.tensor([0.0, 70.0, 200.0]), torch.tensor([0.0, 30.0, -10.0])


@pytest.fixture
def sketch() -> Sketch:
    torch.manual_seed(0)
    return Sketch(16, rank=8, widths=(16, 16, 8))


def cameras(azimuth_deg: torch.Tensor, elevation_deg: torch.Tensor | float) -> torch.Tensor:
    return unit_sphere_matrix(orbit(azimuth_deg, elevation_deg))[None]  # [1, V, 16]


def volume_of(solid: torch.Tensor, color: torch.Tensor | None = None) -> torch.Tensor:
    """[z, y, x] bool and color [3] -> a volume whose density and colors are as good as 0 or 1."""
    out = torch.full((1, 4, SIDE, SIDE, SIDE), -20.0)
    out[0, 3][solid] = 20.0
    out[0, :3] = (torch.zeros(3) if color is None else color)[:, None, None, None] * 40 - 20
    return out


def cell_centers() -> torch.Tensor:
    """[z, y, x, 3] world points (x, y, z)."""
    axis = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1)


def test_an_empty_volume_is_white(sketch):
    out = sketch.render(volume_of(torch.zeros(SIDE, SIDE, SIDE, dtype=torch.bool)), cameras(AZIMUTHS, ELEVATIONS))
    assert out.shape == (1, 3, 4, SIDE, SIDE)
    torch.testing.assert_close(out[:, :, :3], torch.ones(1, 3, 3, SIDE, SIDE), atol=1e-3, rtol=0)
    torch.testing.assert_close(out[:, :, 3], torch.zeros(1, 3, SIDE, SIDE), atol=1e-3, rtol=0)


def test_a_small_cube_is_seen_where_the_cameras_project_it(sketch):
    place = torch.tensor([0.45, -0.3, 0.5])
    solid = ((cell_centers() - place).abs() < 0.12).all(dim=-1)
    out = sketch.render(volume_of(solid, torch.tensor([1.0, 0.0, 0.0])), cameras(AZIMUTHS, ELEVATIONS))[0]
    middle = cell_centers()[solid].mean(dim=0)
    x, y = torch.meshgrid(*[(torch.arange(SIDE) + 0.5) / SIDE * 2 - 1] * 2, indexing="xy")
    views = orbit(AZIMUTHS, ELEVATIONS)
    for view in range(3):
        coverage = out[view, 3]
        assert float(coverage.max()) > 0.99
        found = torch.stack([(coverage * x).sum(), (coverage * y).sum()]) / coverage.sum()
        torch.testing.assert_close(found, project(middle[None], views[view])[0], atol=0.02, rtol=0)
        row, column = divmod(int(coverage.argmax()), SIDE)
        torch.testing.assert_close(out[view, :3, row, column], torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)


def test_what_is_in_front_hides_what_is_behind(sketch):
    x = cell_centers()[..., 0]
    volume = volume_of((x.abs() > 0.4) & (x.abs() < 0.7) & (cell_centers()[..., 1:].abs() < 0.4).all(dim=-1))
    volume[0, 0][x > 0] = 20.0  # red on the side of azimuth 0
    volume[0, 2][x < 0] = 20.0  # blue on the other
    front, back = sketch.render(volume, cameras(torch.tensor([0.0, 180.0]), 0.0))[0, :, :3, SIDE // 2, SIDE // 2]
    torch.testing.assert_close(front, torch.tensor([1.0, 0.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(back, torch.tensor([0.0, 0.0, 1.0]), atol=1e-3, rtol=0)


def test_every_other_pixel_is_a_part_of_the_whole(sketch):
    embedding, seen = torch.randn(2, 1, 16), cameras(AZIMUTHS, ELEVATIONS).expand(2, -1, -1)
    whole, part = sketch(embedding, seen), sketch(embedding, seen, every=2, offset=(1, 0))
    torch.testing.assert_close(part, whole[..., 1::2, 0::2])


def test_gradients_reach_every_weight_even_behind_solid_matter(sketch):
    sketch(torch.randn(2, 1, 16), cameras(AZIMUTHS, ELEVATIONS).expand(2, -1, -1)).square().sum().backward()
    for name, parameter in sketch.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert float(parameter.grad.abs().max()) > 0, name
    volume = volume_of(torch.ones(SIDE, SIDE, SIDE, dtype=torch.bool)).requires_grad_()
    sketch.render(volume, cameras(AZIMUTHS, ELEVATIONS)).sum().backward()
    assert torch.isfinite(volume.grad).all()
