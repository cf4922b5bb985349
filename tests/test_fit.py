import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from iso3d_core.fit import MAX_BAD_STEPS, Checkpoints, fit, step_generator
from iso3d_core.types import Cancelled, InputError

TARGET = torch.tensor([0.7, -0.3, 1.2])


class Point(nn.Module):
    """Three numbers to fit, and a buffer that counts the steps (as an occupancy grid would change)."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(3))
        self.register_buffer("count", torch.zeros(()))

    def groups(self, rate=0.02):
        return [{"params": [self.place], "lr": rate}]

    def quadratic(self, step, generator):
        self.count += 1
        return (self.place - TARGET).square().sum(), {"step": float(step)}

    def noisy(self, step, generator):
        self.count += 1
        where = TARGET + 0.3 * torch.randn(3, generator=generator)
        return (self.place - where).square().sum(), {}


def run(point, objective=None, steps=20, seed=0, stage="warm start", **options):
    fit(point, point.groups(), objective or point.noisy, steps, seed, stage, **options)
    return point


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def cancel_at(step, seen=None):
    def on_progress(progress):
        if seen is not None:
            seen.append(progress.step)
        if progress.step == step:
            raise Cancelled

    return on_progress


def test_a_quadratic_is_minimised():
    point = Point()
    run(point, point.quadratic, steps=500)
    torch.testing.assert_close(point.place.detach(), TARGET, atol=1e-4, rtol=0)


def test_the_first_step_of_adam_is_the_learning_rate_for_every_group():
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    groups = [{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.01}]
    fit(nn.ParameterList([a, b]), groups, lambda *_: ((a - 3).square().sum() + 9 * b.sum(), {}), 1, 0, "x")
    torch.testing.assert_close(a.detach(), torch.full((2,), 0.5))
    torch.testing.assert_close(b.detach(), torch.full((2,), -0.01))


def test_settling_takes_the_learning_rates_down_to_zero():
    slope = torch.tensor([1.0, 1.0, -1.0])  # a steady gradient: Adam's steps are the learning rate
    places, point = [], Point()

    def downhill(step, generator):
        places.append(point.place.detach().clone())
        return (point.place * slope).sum(), {}

    run(point, downhill, steps=10, settle=0.4)
    moved = torch.stack([*places, point.place.detach()]).diff(dim=0)
    rates = [0.02] * 7 + [0.015, 0.01, 0.005]  # step 6, four from the end, is the last at full rate
    torch.testing.assert_close(moved, -torch.tensor(rates)[:, None] * slope, rtol=1e-3, atol=1e-6)


def test_progress_is_reported_after_every_step():
    point, reports = Point(), []
    run(point, point.quadratic, steps=7, on_progress=reports.append, preview=TARGET.clone)
    assert [r.step for r in reports] == list(range(1, 8))
    assert {(r.stage, r.total) for r in reports} == {("warm start", 7)}
    assert [r.values["step"] for r in reports] == list(range(7))
    assert reports[0].values["loss"] == pytest.approx(float(TARGET.square().sum()))
    assert torch.equal(reports[0].preview(), TARGET)


def test_no_steps_do_nothing(tmp_path):
    reports = []
    point = run(Point(), steps=0, on_progress=reports.append, checkpoints=Checkpoints(tmp_path / "c", "key"))
    assert same(point, Point())
    assert not reports
    assert not (tmp_path / "c").exists()


def test_cancelling_stops_at_once():
    seen, point = [], Point()
    with pytest.raises(Cancelled):
        run(point, on_progress=cancel_at(4, seen))
    assert seen == [1, 2, 3, 4]
    assert point.count == 4
    assert same(point, run(Point(), steps=4))


def test_random_numbers_depend_on_seed_stage_and_step_only():
    def draw(seed, stage, step):
        return float(torch.rand((), generator=step_generator(seed, stage, step)))

    assert draw(0, "a", 0) == draw(0, "a", 0)
    assert len({draw(0, "a", 0), draw(1, "a", 0), draw(0, "b", 0), draw(0, "a", 1)}) == 4
    torch.manual_seed(1)
    first = run(Point())
    torch.manual_seed(2)
    assert same(first, run(Point()))
    assert not same(first, run(Point(), seed=1))
    assert not same(first, run(Point(), stage="optimise"))


@pytest.mark.parametrize(("every", "stop"), [(1, 1), (1, 13), (5, 5), (5, 9), (5, 19), (7, 3)])
def test_resuming_ends_where_the_uninterrupted_run_does(tmp_path, every, stop):
    whole = run(Point())
    checkpoints = Checkpoints(tmp_path, "key", every, resume=True)
    with pytest.raises(Cancelled):
        run(Point(), on_progress=cancel_at(stop), checkpoints=checkpoints)
    seen = []
    resumed = run(Point(), on_progress=lambda p: seen.append(p.step), checkpoints=checkpoints)
    assert same(resumed, whole)
    assert seen == list(range(stop // every * every + 1, 21))


@pytest.mark.parametrize("stop", [5, 13, 18])
def test_resuming_goes_on_settling(tmp_path, stop):
    whole = run(Point(), settle=0.5)
    assert not same(whole, run(Point()))
    checkpoints = Checkpoints(tmp_path, "key", 1, resume=True)
    with pytest.raises(Cancelled):
        run(Point(), settle=0.5, on_progress=cancel_at(stop), checkpoints=checkpoints)
    assert same(run(Point(), settle=0.5, checkpoints=checkpoints), whole)


def test_a_finished_stage_is_not_repeated(tmp_path):
    checkpoints = Checkpoints(tmp_path, "key", every=50, resume=True)
    whole = run(Point(), checkpoints=checkpoints)  # fewer steps than `every`: the end is kept too
    seen = []
    assert same(run(Point(), on_progress=seen.append, checkpoints=checkpoints), whole)
    assert not seen


@pytest.mark.parametrize(
    ("key", "resume", "stage"), [("other", True, "views"), ("key", False, "views"), ("key", True, "x")]
)
def test_a_checkpoint_of_other_work_is_not_used(tmp_path, key, resume, stage):
    run(Point(), stage="views", checkpoints=Checkpoints(tmp_path, "key", 5, resume=True))
    seen, checkpoints = [], Checkpoints(tmp_path, key, 5, resume)
    run(Point(), stage=stage, on_progress=lambda p: seen.append(p.step), checkpoints=checkpoints)
    assert seen == list(range(1, 21))


def test_a_killed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    whole, checkpoints = run(Point()), Checkpoints(tmp_path, "key", 5, resume=True)
    with monkeypatch.context() as patch:
        real, writes = Path.write_bytes, []

        def killed(path, data):
            writes.append(path)
            if len(writes) == 2:
                real(path, b"half a file")
                raise KeyboardInterrupt
            return real(path, data)

        patch.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            run(Point(), checkpoints=checkpoints)
    assert [p.read_bytes() for p in tmp_path.glob("*.part")] == [b"half a file"]
    assert checkpoints.load("warm start")["step"] == 5
    assert same(run(Point(), checkpoints=checkpoints), whole)
    assert checkpoints.load("warm start")["step"] == 20
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_an_error_for_people_and_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "key", 5, resume=True)
    run(Point(), steps=5, checkpoints=checkpoints)
    with monkeypatch.context() as patch:

        def full(path, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space left on device; free some space"):
            run(Point(), checkpoints=checkpoints)
    assert checkpoints.load("warm start")["step"] == 5
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped(spoil):
    good, bad = Point(), Point()
    spoiled = {3, 4, 9}

    def objective(step, generator):
        loss, values = bad.noisy(step, generator)
        if step in spoiled:
            # sqrt at zero: a finite loss whose gradient is 0 * inf
            loss = loss * float("nan") if spoil == "loss" else loss + (bad.place * 0).sqrt().sum()
        return loss, values

    def without(step, generator):
        rest = [s for s in range(20) if s not in spoiled]
        return good.noisy(rest[step], step_generator(0, "warm start", rest[step]))

    run(bad, objective)
    run(good, without, steps=17)
    assert torch.equal(bad.place, good.place)


def test_ten_bad_steps_in_a_row_are_an_error_and_nine_are_not():
    def objective(point, bad):
        def compute(step, generator):
            loss, values = point.quadratic(step, generator)
            return loss * float("inf") if step in bad else loss, values

        return compute

    nine = Point()
    run(nine, objective(nine, {*range(MAX_BAD_STEPS - 1), *range(10, 19)}))
    assert nine.count == 20
    ten, seen = Point(), []
    with pytest.raises(FloatingPointError, match=r"warm start: no finite gradient for 10 steps in a row at step 14"):
        run(ten, objective(ten, range(5, 50)), on_progress=lambda p: seen.append(p.step))
    assert seen == list(range(1, 15))
    expected = Point()
    run(expected, expected.quadratic, steps=5)
    assert torch.equal(ten.place, expected.place)  # not poisoned


def test_bad_steps_are_counted_across_a_resume(tmp_path):
    point, checkpoints = Point(), Checkpoints(tmp_path, "key", 1, resume=True)

    def nan(step, generator):
        return point.place.sum() * float("nan"), {}

    with pytest.raises(Cancelled):
        run(point, nan, on_progress=cancel_at(6), checkpoints=checkpoints)
    with pytest.raises(FloatingPointError, match="at step 9"):
        run(point, nan, checkpoints=checkpoints)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_checkpoint_that_cannot_be_read_starts_the_work_again(tmp_path, content):
    whole, checkpoints = run(Point()), Checkpoints(tmp_path, "key", 5, resume=True)
    run(Point(), steps=10, checkpoints=checkpoints)
    file = next(tmp_path.glob("*.pt"))
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    seen = []
    again = run(Point(), on_progress=lambda p: seen.append(p.step), checkpoints=checkpoints)
    assert seen[0] <= 1
    for a, b in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)
