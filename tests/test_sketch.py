"""The sketch: one volume, rendered by the cameras of the world."""

from pathlib import Path

import pytest
import torch

from iso3d_core.cameras import orbit, project, unit_sphere_matrix
from iso3d_core.config import FieldConfig, GenerateConfig, RenderConfig, WarmStart
from iso3d_core.fields.hashgrid import look_up
from iso3d_core.fields.scene import Scene
from iso3d_core.methods.isotropic3d import photometric_objective, solid_entropy
from iso3d_core.metrics import overlap, silhouette_iou
from iso3d_core.near import nearness
from iso3d_core.overlay import laid_over
from iso3d_core.priors.guess import ReferenceDepth, fit_reference, probed_elevation
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.sketch import SIDE, Sketch
from iso3d_core.train.evaluate import reference_of
from iso3d_core.train.probe import fit_elevation
from iso3d_core.train.world import make_object, reference_camera
from iso3d_core.weights import find_bundle

AZIMUTHS, ELEVATIONS = torch.tensor([0.0, 70.0, 200.0]), torch.tensor([0.0, 30.0, -10.0])


@pytest.fixture
def sketch() -> Sketch:
    torch.manual_seed(0)
    out = Sketch(16, rank=8, widths=(16, 16, 8))
    for layer in out.refine:  # as if it had been trained: zeros let no gradient through
        torch.nn.init.normal_(layer[-1].weight, std=0.1)
    return out


def test_further_layers_start_without_effect_and_then_have_one():
    torch.manual_seed(0)
    plain = Sketch(16, rank=8, widths=(16, 16, 8), refined=False)
    refined = Sketch(16, rank=8, widths=(16, 16, 8))
    refined.load_state_dict(plain.state_dict(), strict=False)
    embedding = torch.randn(2, 1, 16)
    torch.testing.assert_close(refined.volume(embedding), plain.volume(embedding))
    for layer in refined.refine:
        torch.nn.init.ones_(layer[-1].weight)
        assert not torch.allclose(refined.volume(embedding), plain.volume(embedding))
        torch.nn.init.zeros_(layer[-1].weight)
    assert Sketch(**refined.config).refine


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


def test_how_likely_cells_are_solid(sketch):
    embedding = torch.randn(2, 1, 16)
    likely = sketch.solid(embedding)
    assert likely.shape == (2, SIDE, SIDE, SIDE)
    torch.testing.assert_close(likely, (sketch.volume(embedding)[:, 3] - 2).sigmoid())


def test_distances_are_those_of_what_is_met_first(sketch):
    """A ball of radius .5 is 3.4 - .5 away from all around, and the distance grows towards its edge."""
    volume = volume_of(cell_centers().norm(dim=-1) < 0.5)
    distance, coverage = sketch.distances(volume, cameras(AZIMUTHS, ELEVATIONS), 32)
    assert distance.shape == coverage.shape == (1, len(AZIMUTHS), 1, 32, 32)
    cell = 2 / SIDE
    for view, seen in zip(distance[0, :, 0], coverage[0, :, 0], strict=True):
        middle = view[15:17, 15:17].mean()
        assert float(middle) == pytest.approx(sketch.distance - 0.5, abs=1.5 * cell)
        assert float(view[16, 13]) > float(middle) - 0.2 * cell
        assert float(view[(seen > 0.5)].max()) > float(middle) + 2 * cell
        assert seen[0].max() < 0.05
    shown = sketch.render(volume, cameras(AZIMUTHS, ELEVATIONS), 32)
    torch.testing.assert_close(coverage[:, :, 0], shown[:, :, 3])


# ---- what the embedded bundle's sketch says of an image ----------------------------------------------


@pytest.fixture(scope="module")
def prior():
    return MultiViewPrior.load("tiny", "cpu", "float32")


def test_it_guesses_where_the_reference_was_seen_from(prior):
    errors = []
    for i, kind in enumerate(("mug", "car", "house", "table", "cake", "snowman")):
        obj = make_object(2_000_200 + i, kind)
        reference = reference_of(obj)
        elevation, mask = prior.guess_reference(reference, prior.embed(reference), 64)
        assert mask.shape == (1, 1, 64, 64)
        truth, camera = reference_camera(obj.seed)
        seen = torch.from_numpy(obj.render_rgba(camera, 64)[0, ..., 3]) > 0.5
        assert silhouette_iou(mask[0, 0] > 0.5, seen) > 0.5
        errors.append(abs(elevation - truth))
    assert sorted(errors)[3] <= 10  # the median; half the range of elevations would be 25


def test_a_probe_of_the_embedding_keeps_the_guessed_elevation_near(prior, monkeypatch):
    objects = [make_object(2_000_220 + i) for i in range(16)]
    embeddings = [prior.embed(reference_of(obj)) for obj in objects]

    def error():
        found = [
            fit_reference(prior.sketch, e, reference_of(obj), SIDE)[0] - reference_camera(obj.seed)[0]
            for obj, e in zip(objects, embeddings, strict=True)
        ]
        return sum(map(abs, found)) / len(found)

    with_probe = error()
    monkeypatch.setattr(prior.sketch, "elevation", None)
    assert with_probe < min(error(), 8)
    steep = {"weight": torch.zeros(256), "bias": torch.tensor(1000.0)}
    monkeypatch.setattr(prior.sketch, "elevation", steep)
    assert fit_reference(prior.sketch, embeddings[0], reference_of(objects[0]), SIDE)[0] == 40


def test_elevations_are_read_off_directions():
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(500, 12), dim=-1)
    weight = 20 * torch.randn(12)
    probe = fit_elevation(directions, directions @ weight + 15)
    embedding = 7 * directions[3].reshape(1, 1, 12)  # its length does not matter
    assert probed_elevation(probe, embedding) == pytest.approx(float(directions[3] @ weight) + 15, abs=0.5)


def test_it_guesses_what_is_solid(prior):
    found = []
    for i, kind in enumerate(("cactus", "snowman", "bottle", "car")):
        obj = make_object(2_000_300 + i, kind)
        solid = prior.guess_solid(prior.embed(reference_of(obj)))
        exact = obj.contains(cell_centers().reshape(-1, 3).double().numpy()).reshape(SIDE, SIDE, SIDE)
        found.append(overlap(solid.numpy() > 0.5, exact))
    assert min(found) > 0.3
    assert sum(found) / 4 > 0.5


def test_it_guesses_how_near_things_are(prior):
    """Nearer to the true nearness than flat masks are: in views where the sketch has something, and in the image."""
    guess, ratios = ReferenceDepth.load(find_bundle("tiny").folder), {"views": [], "image": []}
    for i, kind in enumerate(("mug", "car", "house", "table", "cake", "snowman")):
        obj = make_object(2_000_400 + i, kind)
        reference = reference_of(obj)
        around = orbit(torch.tensor([0.0, 90.0, 200.0]), 15.0)
        mask, truth = true_nearness(obj, around, 64)
        found = prior.guess_nearness(prior.embed(reference), around, mask)
        assert found.shape == mask.shape
        known = (found > 0).float()
        assert not (known * (mask <= 0.5)).any()
        assert float((known * truth.sign()).sum() / truth.sign().sum()) > 0.5
        ratios["views"].append(spread_error(found, truth, known) / spread_error(known, truth, known))
        _, camera = reference_camera(obj.seed)
        alpha = reference.rgba[None, 3:]
        seen, near = true_nearness(obj, camera, 64)
        found, truth = guess(reference), laid_over(alpha, near, seen)
        assert found.shape == alpha.shape
        assert ((found > 0) == (alpha > 0.5)).all()
        both = alpha * (laid_over(alpha, seen, seen) > 0.999)
        ratios["image"].append(spread_error(found, truth, both) / spread_error(alpha, truth, both))
    for ratio in ratios.values():
        assert sorted(ratio)[3] < 0.8
        assert sum(ratio) / 6 < 0.9


def test_a_view_where_the_sketch_has_nothing_is_flat(prior):
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, :, :2, :2] = mask[1, :, 12:20, 12:20] = 1
    embedding = prior.embed(reference_of(make_object(2_000_401, "car")))
    found = prior.guess_nearness(embedding, orbit(torch.tensor([0.0, 90.0]), 15.0), mask)
    assert torch.equal(found[0], mask[0])
    assert found[1, 0, 12:20, 12:20].unique().numel() > 2


def test_a_bundle_without_a_sketch_takes_masks_as_flat(prior, monkeypatch):
    assert ReferenceDepth.load(Path("nowhere")) is None
    monkeypatch.setattr(prior.unet, "sketch", None)
    mask = torch.rand(2, 1, 8, 8)
    assert torch.equal(prior.guess_nearness(torch.zeros(1, 1, 256), orbit(torch.tensor([0.0, 90.0]), 0.0), mask), mask)


def true_nearness(obj, around, size):
    seen = obj.render(around, size, antialias=1)
    distance, hit = (torch.from_numpy(x).float()[:, None] for x in (seen.depth, seen.rgba[..., 3]))
    return hit, nearness(distance, hit)


def spread_error(found, truth, mask):
    """Of nearness, its mean over the mask left out: what a depth map says beyond the outline."""
    inside = mask > 0.5
    found, truth = ((x - (x * inside).sum() / inside.sum()) * inside for x in (found, truth))
    return float((found - truth).square().sum())


def test_solid_cells_draw_the_field_there_and_survive_the_hull():
    field = FieldConfig(2, base=8, growth=2.0, features=2, log2_table=12, hidden=16, blob_bias=0.0)
    warm = WarmStart(rays=256, lambda_solid=1.0)
    settings = GenerateConfig(field=field, render=RenderConfig(samples=16, occupancy=16), warm_start=warm)
    scene = Scene(settings.field, settings.render)
    solid = ((cell_centers() - torch.tensor([0.5, 0.0, 0.0])).norm(dim=-1) < 0.3).float()
    views = orbit(torch.tensor([0.0, 90.0, 180.0, 270.0]), 10.0)
    empty = torch.zeros(4, 1, 16, 16)  # masks that leave no hull at all
    objective = photometric_objective(scene, views, torch.ones(4, 3, 16, 16), empty, settings, solid)
    inside, outside = torch.tensor([[0.5, 0.0, 0.0]]), torch.tensor([[-0.5, 0.0, 0.0]])
    assert scene.occupancy.permits(inside).all()
    assert not scene.occupancy.permits(outside).any()
    before = float(solid_entropy(scene, solid, torch.Generator().manual_seed(0)).detach())
    optimizer = torch.optim.Adam(scene.field.parameters(), lr=0.01)
    for step in range(60):
        optimizer.zero_grad()
        solid_entropy(scene, solid, torch.Generator().manual_seed(step)).backward()
        optimizer.step()
    assert float(solid_entropy(scene, solid, torch.Generator().manual_seed(0)).detach()) < 0.7 * before
    assert objective(0, torch.Generator().manual_seed(0))[0] > 0
    x, y, z = 5, 20, 28  # the grid's order is z, y, x
    grid = torch.zeros(SIDE, SIDE, SIDE)
    grid[z, y, x] = 1
    assert float(look_up(grid[None], cell_centers()[z, y, x][None])) == pytest.approx(1)
