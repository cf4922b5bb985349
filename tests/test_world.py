import numpy as np
import pytest

from iso3d_core.cameras import orbit
from iso3d_core.priors.words import direction_name, elevation_name
from iso3d_core.train.data import GROUP_VIEWS, GROUPS, REFERENCES, TARGETS, draw_poses, relative_cameras, render_item
from iso3d_core.train.draw import COLOR_NAMES, color_name
from iso3d_core.train.kinds import KINDS
from iso3d_core.train.solids import Material, Part, box, capsule, cylinder, ellipsoid, move, scale, torus, turn
from iso3d_core.train.world import (
    COMMON_KINDS,
    HELD_OUT_KINDS,
    HELD_OUT_SEED,
    RADIUS,
    TRAINING_KINDS,
    Light,
    held_out,
    make_object,
    reference_camera,
)

SOME_KINDS = (
    "mug", "lamp", "rocket", "snowman", "tree", "house", "car",
    "robot", "mushroom", "dumbbell", "bottle", "duck", "plane", "cactus",
)  # fmt: skip
AROUND = orbit([20.0, 140.0, 260.0], [10.0, 30.0, -5.0])
# A circle's area over that of the polygon with so many sides drawn into it.
POLYGON = {sides: sides / 2 * np.sin(2 * np.pi / sides) / np.pi for sides in (14, 32)}


# ---- solids --------------------------------------------------------------------------------------

# name: shape, exact volume, volume of its mesh over the exact one (low, high)
SOLIDS = {
    "box": (box(0.6, 1.0, 0.4), 0.24, (1.0, 1.0)),
    "ball": (ellipsoid(0.7), 4 / 3 * np.pi * 0.7**3, (0.97, POLYGON[32])),
    "spheroid": (ellipsoid(0.5, 0.8), 4 / 3 * np.pi * 0.5**2 * 0.8, (0.97, POLYGON[32])),
    "dome": (ellipsoid(0.7, start_deg=0), 2 / 3 * np.pi * 0.7**3, (0.98, POLYGON[32])),
    "cylinder": (cylinder(0.5, 1.2), np.pi * 0.25 * 1.2, (POLYGON[32], POLYGON[32])),
    "cone": (cylinder(0.6, 1.2, top=0.0), np.pi * 0.36 * 1.2 / 3, (POLYGON[32], POLYGON[32] + 1e-3)),
    "frustum": (cylinder(0.6, 1.0, top=0.3), np.pi / 3 * (0.36 + 0.18 + 0.09), (POLYGON[32], POLYGON[32])),
    "torus": (torus(0.6, 0.2), 2 * np.pi**2 * 0.6 * 0.2**2, (POLYGON[14] * POLYGON[32], POLYGON[14] * POLYGON[32])),
    "capsule": (
        capsule((-0.3, 0, 0), (0.3, 0.2, 0.1), 0.3),
        np.pi * 0.09 * 0.41**0.5 + 4 / 3 * np.pi * 0.027,
        (0.97, 1.0),
    ),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_have_the_volume_of_their_formula(name):
    shape, volume, (low, high) = SOLIDS[name]
    points = np.random.default_rng(0).uniform(-1, 1, (60_000, 3))
    share = volume / 8
    noise = 4 * 8 * np.sqrt(share * (1 - share) / len(points))
    smaller = 1 - (POLYGON[14] if name == "torus" else 0.99 if name in ("ball", "spheroid", "dome") else 1)
    inside = 8 * shape.contains(points).mean()
    assert -noise - smaller * volume <= inside - volume <= noise
    mesh = shape.mesh()
    assert low * volume * (1 - 1e-6) <= mesh.volume <= high * volume * (1 + 1e-6)  # positive: faces look outward


@pytest.mark.parametrize("name", SOLIDS)
def test_mesh_and_exact_solid_agree(name):
    shape = SOLIDS[name][0]
    mesh = shape.mesh()
    center, normal = mesh.triangles_center, mesh.face_normals
    used = mesh.area_faces > 1e-5
    assert shape.contains(center[used] - 0.01 * normal[used]).all()
    assert not shape.contains(center[used] + 0.02 * normal[used]).any()


def test_parts_are_placed():
    place = move(0.2, 0, 0.1) @ turn("z", 90) @ scale(2, 1, 1)
    part = Part("body", box(0.2, 0.2, 0.2), Material((1, 0, 0)), place)
    assert np.allclose(part.mesh().bounds, [[0.1, -0.2, 0], [0.3, 0.2, 0.2]])
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, 3))
    low, high = part.mesh().bounds
    assert np.array_equal(part.contains(points), ((points > low) & (points < high)).all(axis=1))


@pytest.mark.parametrize(
    ("pattern", "first", "second"),
    [
        ("plain", (0.1, 0.1, 0.9), None),
        ("two_tone", (0.1, 0.1, 0.2), (0.1, 0.1, 0.3)),
        ("rings", (0.1, 0.1, 0.2), (0.1, 0.1, 0.3)),
        ("checks", (0.1, 0.1, 0.1), (0.3, 0.1, 0.1)),
        ("stripes", (1.0, 0.1, 0.0), (0.7, 0.75, 0.0)),
    ],
)
def test_patterns_lay_out_two_colors(pattern, first, second):
    material = Material((1, 0, 0), (0, 1, 0), pattern)
    assert material.albedo(np.array([first])).tolist() == [[1, 0, 0]]
    if second is not None:
        assert material.albedo(np.array([second])).tolist() == [[0, 1, 0]]


def test_an_unknown_pattern_is_an_error():
    with pytest.raises(ValueError, match="unknown pattern 'dots'"):
        Material((1, 0, 0), (0, 1, 0), "dots").albedo(np.zeros((1, 3)))


def test_every_named_color_has_its_name():
    assert all(color_name(color) == name for name, color in COLOR_NAMES.items())


# ---- objects -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every_kind():
    return {kind: make_object(7, kind) for kind in KINDS}


def same(a, b):
    return (
        a.kind == b.kind
        and [(p.name, p.shape, p.material) for p in a.parts] == [(p.name, p.shape, p.material) for p in b.parts]
        and all(np.array_equal(p.place, q.place) for p, q in zip(a.parts, b.parts, strict=True))
    )


@pytest.mark.parametrize("seed", [0, 5, HELD_OUT_SEED + 3])
def test_a_seed_is_an_object(seed):
    np.random.seed(1)
    first = make_object(seed)
    np.random.seed(2)
    again, other = make_object(seed), make_object(seed + 1, first.kind)
    assert same(first, again)
    assert not same(first, other)
    views = [x.render(AROUND, 16) for x in (first, again, other)]
    for name in ("rgba", "albedo", "depth", "normal"):
        a, b, c = (getattr(view, name) for view in views)
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


def test_there_are_many_kinds_and_two_are_never_trained_on():
    assert len(KINDS) >= 30
    assert len(HELD_OUT_KINDS) == 2
    assert set(TRAINING_KINDS) == set(KINDS) - set(HELD_OUT_KINDS)
    assert set(COMMON_KINDS) <= set(TRAINING_KINDS)
    drawn = {make_object(seed).kind for seed in range(60)}
    assert len(drawn) > 20
    assert drawn <= set(TRAINING_KINDS)


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown kind 'cloud'; known kinds: .*mug"):
        make_object(0, "cloud")


def test_every_kind_fills_the_ball_and_stays_inside(every_kind):
    directions = np.random.default_rng(0).normal(size=(300, 3))
    outside = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for kind, obj in every_kind.items():
        assert np.linalg.norm(obj.mesh.vertices, axis=1).max() == pytest.approx(RADIUS), kind
        assert not obj.contains(outside).any(), kind
        assert np.allclose(obj.mesh.bounds.sum(axis=0), 0), kind  # centred


def test_what_a_part_contains_lies_in_its_box(every_kind):
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    for obj in every_kind.values():
        for part in obj.parts:
            assert np.array_equal(part.contains(points), part.shape.contains(part.to_local(points)))


def test_every_part_of_every_kind_looks_outward_and_has_a_color(every_kind):
    for kind, obj in every_kind.items():
        for part, mesh in zip(obj.parts, obj.meshes, strict=True):
            assert mesh.volume > 0, (kind, part.name)
            assert np.isfinite(mesh.vertices).all(), (kind, part.name)
            albedo = part.material.albedo(part.to_local(mesh.vertices))
            assert ((albedo >= 0) & (albedo <= 1)).all(), (kind, part.name)


@pytest.mark.parametrize("kind", SOME_KINDS)
def test_what_is_seen_is_the_surface_of_what_is_contained(kind, every_kind):
    obj = every_kind[kind]
    hits = obj._cast(AROUND, 32)
    directions = (hits.points - hits.origins) / hits.distance[:, None]
    assert len(hits.rows) > 150
    # Meshes are drawn into the exact solids, by less than 1 % of the radius; thin edges are left within 0.005.
    assert obj.contains(hits.points + 0.005 * directions).mean() >= 0.97
    steep = np.abs((hits.normal * directions).sum(axis=1)) > 0.3
    assert (~obj.contains(hits.points - 0.02 * directions))[steep].mean() >= 0.99
    # Nothing is between the camera and the hit.
    for part in (0.5, 0.8, 0.95):
        nearer = hits.origins + part * (hits.distance[:, None] - 0.02) * directions
        assert not obj.contains(nearer)[steep].mean() > 0.01


@pytest.mark.parametrize("kind", ["mug", "house"])
def test_renders_hold_what_they_say(kind, every_kind):
    obj, size = every_kind[kind], 24
    view = obj.render(AROUND, size, antialias=1)
    assert view.rgba.shape == (3, size, size, 4)
    assert view.albedo.shape == view.normal.shape == (3, size, size, 3)
    assert view.depth.shape == (3, size, size)
    assert {x.dtype for x in (view.rgba, view.albedo, view.normal, view.depth)} == {np.dtype(np.float32)}
    hit = view.rgba[..., 3] == 1
    assert np.array_equal(hit, view.depth > 0)
    assert not view.rgba[~hit].any()
    assert ((view.depth[hit] > 3.4 - 1) & (view.depth[hit] < 3.4 + 1)).all()
    assert np.allclose(np.linalg.norm(view.normal[hit], axis=-1), 1, atol=1e-5)
    assert np.allclose(view.rgba, obj.render_rgba(AROUND, size, antialias=1), atol=1e-6)
    bare = obj.render(AROUND, size, Light(ambient=1.0, strength=1.0), antialias=1)
    assert np.allclose(bare.rgba[..., :3][hit], bare.albedo[hit], atol=1e-6)
    darker = view.rgba[..., :3][hit] / np.maximum(view.albedo[hit], 1e-6)
    assert darker.min() >= 0.9 * 0.7 - 1e-4
    assert darker.max() <= 0.9 + 1e-4  # a white thing stays darker than the white background


def test_an_antialiased_pixel_is_the_mean_of_its_samples(every_kind):
    fine = every_kind["mug"].render_rgba(AROUND, 32, antialias=1)
    coarse = every_kind["mug"].render_rgba(AROUND, 16, antialias=2)
    mean = fine.reshape(3, 16, 2, 16, 2, 4).mean(axis=(2, 4))
    assert np.allclose(coarse[..., 3], mean[..., 3])
    premultiplied = (fine[..., :3] * fine[..., 3:]).reshape(3, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.allclose(coarse[..., :3] * coarse[..., 3:], premultiplied, atol=1e-5)


# ---- words ---------------------------------------------------------------------------------------


def test_captions_name_kind_color_and_direction(every_kind):
    for kind, obj in every_kind.items():
        text = obj.caption(obj.turn_deg + 90, 20)
        assert f" {kind} with " in text
        first = obj.parts[0]
        assert f"{color_name(first.material.color)} " in text
        assert first.name in text
        assert text.endswith("seen from the left slightly above")
        assert text.startswith(obj.caption())
        assert "  " not in text


def test_directions_turn_counter_clockwise_seen_from_above():
    names = [direction_name(a) for a in range(0, 360, 45)]
    assert names == ["front", "front left", "left", "back left", "back", "back right", "right", "front right"]
    for azimuth, name in ((22, "front"), (-22, "front"), (23, "front left"), (-90, "right"), (720 + 180, "back")):
        assert direction_name(azimuth) == name


def test_elevations_have_names():
    assert [elevation_name(e) for e in (-10, 0, 15, 40)] == ["from below", "level", "slightly above", "above"]


# ---- the fixed sets ------------------------------------------------------------------------------


def test_the_held_out_objects_are_fixed_and_unseen():
    objects = held_out()
    assert len(objects) == 36
    assert [o.seed for o in objects] == list(range(HELD_OUT_SEED, HELD_OUT_SEED + 36))
    kinds = [o.kind for o in objects]
    assert len(set(kinds)) == 36
    assert {*COMMON_KINDS, *HELD_OUT_KINDS} <= set(kinds)
    for i in (0, 17, 35):
        assert same(objects[i], make_object(HELD_OUT_SEED + i, kinds[i]))
    assert [o.kind for o in held_out(5)] == kinds[:5]


def test_the_reference_camera_is_in_front_between_ten_below_and_forty_above():
    drawn = [reference_camera(seed, 2.5) for seed in range(200)]
    elevations = np.array([elevation for elevation, _ in drawn])
    assert elevations.min() >= -10
    assert elevations.max() <= 40
    assert np.ptp(elevations) > 45
    for elevation, camera in drawn[:20]:
        assert np.allclose(camera.cam_to_world, orbit(0.0, elevation, 2.5).cam_to_world)
    assert reference_camera(3)[0] == drawn[3][0]
    assert float(reference_camera(3)[1].positions.norm()) == pytest.approx(3.4)


def test_poses_are_groups_of_four_around_and_four_free_references():
    for seed in range(50):
        poses = draw_poses(seed)
        assert poses.azimuth.shape == poses.elevation.shape == (TARGETS + REFERENCES,)
        assert ((poses.azimuth >= 0) & (poses.azimuth < 360)).all()
        assert ((poses.elevation >= -10) & (poses.elevation <= 40)).all()
        groups = poses.azimuth[:TARGETS].reshape(GROUPS, GROUP_VIEWS)
        assert np.allclose((groups - groups[:, :1]) % 360, [0, 90, 180, 270])
        assert (np.ptp(poses.elevation[:TARGETS].reshape(GROUPS, GROUP_VIEWS), axis=1) == 0).all()
        assert len(np.unique(poses.elevation)) == GROUPS + REFERENCES
    assert np.array_equal(draw_poses(3).azimuth, draw_poses(3).azimuth)


def test_cameras_are_measured_from_the_reference_view():
    cameras = relative_cameras(np.array([[100.0, 10.0]]), np.array([[5.0, 30.0]]), np.array([[10.0]]))
    assert np.allclose(cameras.cam_to_world, orbit([90.0, 0.0], [5.0, 30.0]).cam_to_world, atol=1e-6)


def test_an_item_is_twelve_targets_and_four_references_on_white():
    targets, references, captions = render_item(4, 32)
    assert targets.shape == (TARGETS, 32, 32, 4)
    assert (targets[targets[..., 3] == 0][:, :3] == 255).all()
    assert (targets[targets[..., 3] == 255][:, :3] < 255).any(axis=-1).all()  # white things are not the background
    assert references.shape == (REFERENCES, 64, 64, 3)
    assert targets.dtype == references.dtype == np.uint8
    assert len(captions) == REFERENCES
    kind = make_object(4).kind
    assert all(f" {kind} with " in text and " seen from the " in text for text in captions)
    for images in (targets[..., :3], references):
        assert (images[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()  # the corners are background
        assert ((images != 255).any(axis=-1).mean(axis=(1, 2)) > 0.02).all()
    again = render_item(4, 32)
    assert np.array_equal(again[0], targets)
    assert np.array_equal(again[1], references)
    assert again[2] == captions
    assert render_item(4, 32, "mug")[2][0].split(" with ")[0].endswith("mug")
