"""The car of the fast environment against Gymnasium's, bit for bit."""

import numpy as np
import pytest
from scripted_drivers import (
    drive_and_skid,
    drive_away,
    drive_beyond_the_box,
    drive_brownian,
    drive_in_circles,
    drive_jerkily,
    drive_randomly,
    drive_well,
)
from test_envs import PartlyDrawn

import envs
from envs import bodies
from envs.car import GAS, OMEGA, PHASE

STEPS = 1000


def bits(numbers):
    """Equal only if the numbers are, signs of zeros and kinds of NaN included."""
    return np.array(numbers, np.float64).tobytes()


def state_of(car):
    """All that Box2D knows of a car."""
    numbers = []
    for body in (car.hull, *car.wheels):
        numbers += [*body.position, *body.worldCenter, body.angle, *body.linearVelocity, body.angularVelocity]
    for wheel in car.wheels:
        numbers += [wheel.joint.angle, wheel.joint.motorSpeed]
    return numbers


def assert_equal_cars(fast, reference):
    assert bits(state_of(fast.car)) == bits(state_of(reference.car))
    wheels = reference.car.wheels
    for row, name in ((GAS, "gas"), (PHASE, "phase"), (OMEGA, "omega")):
        assert bits(fast._driven.wheels[row]) == bits([getattr(wheel, name) for wheel in wheels])
    assert fast._contacts.touching[1:].tolist() == [len(wheel.tiles) for wheel in wheels]


def drive_both(fast, reference, policy, seed, steps=STEPS):
    """One episode in both; returns in how many of its steps Gymnasium's car skidded, and in how many it had all wheels
    beside the road."""
    fast.reset(seed=seed)
    reference.reset(seed=seed)
    assert_equal_cars(fast, reference)
    skids = outside = 0
    for action, step in zip(policy(reference, np.random.default_rng(seed)), range(steps), strict=False):
        _, *outcome = fast.step(action)
        _, *expected = reference.step(action)
        assert outcome == expected
        if step % 4 == 0:  # a difference stays, and grows
            assert_equal_cars(fast, reference)
        wheels = reference.car.wheels
        skids += any(wheel.skid_particle is not None for wheel in wheels)
        outside += not any(wheel.tiles for wheel in wheels)
        if outcome[1] or outcome[2]:
            break
    assert_equal_cars(fast, reference)
    assert [tile.road_visited for tile in fast.road] == [tile.road_visited for tile in reference.road]
    assert (fast._tile_colours == [tile.color for tile in reference.road]).all()
    return skids, outside


@pytest.mark.parametrize(
    ("policy", "seeds", "skids", "leaves"),
    [
        (drive_randomly, 4, False, False),
        (drive_brownian, 8, True, True),
        (drive_well, 4, False, False),
        (drive_in_circles, 4, True, True),
        (drive_jerkily, 8, True, True),
        (drive_and_skid, 8, True, True),
        (drive_beyond_the_box, 4, True, False),
        (drive_away, 1, False, True),
    ],
)
def test_a_car_moves_as_gymnasiums_does(policy, seeds, skids, leaves):
    fast, reference = envs.make_env("fast"), PartlyDrawn()
    seen = np.sum([drive_both(fast, reference, policy, seed) for seed in range(seeds)], axis=0)
    assert seen[0] > 20 or not skids
    assert seen[1] > 20 or not leaves


def test_a_car_whose_bodies_are_asked_moves_as_gymnasiums_does(monkeypatch):
    monkeypatch.setattr(bodies, "layout_is_known", lambda: False)
    fast = envs.make_env("fast")
    drive_both(fast, PartlyDrawn(), drive_jerkily, seed=5, steps=300)
    hull = fast._driven.states.arrays[0]
    assert (hull.item(bodies.X), hull.item(bodies.Y)) == tuple(fast.car.hull.position)


def test_box2d_keeps_its_bodies_as_known():
    """On other machines the car is only slower; on those that are tested it should not be."""
    assert bodies.layout_is_known()


def test_a_body_kept_otherwise_is_noticed(monkeypatch):
    ask = bodies.ask
    monkeypatch.setattr(bodies, "ask", lambda body: [*ask(body)[:-1], 0.0])
    assert not bodies.layout_is_known.__wrapped__()


def test_a_watched_car_leaves_skid_marks_and_looks_the_same():
    watched, fast = envs.make_env("fast", render_mode="rgb_array"), envs.make_env("fast")
    frames = [(environment.reset(seed=2)[0]) for environment in (watched, fast)]
    assert (frames[0] == frames[1]).all()
    for action, _ in zip(drive_in_circles(fast, np.random.default_rng(0)), range(120), strict=False):
        frame, *outcome = watched.step(action)
        expected, *expected_outcome = fast.step(action)
        assert outcome == expected_outcome
        assert (frame == expected).all()
    assert len(watched.car.particles) > 0
    assert len(fast.car.particles) == 0


def test_discrete_actions_are_gymnasiums():
    fast, reference = envs.FastCarRacing(continuous=False), PartlyDrawn(continuous=False)
    fast.reset(seed=0)
    reference.reset(seed=0)
    for step in range(200):
        _, *outcome = fast.step(step // 7 % 5)
        _, *expected = reference.step(step // 7 % 5)
        assert outcome == expected
    assert bits(state_of(fast.car)) == bits(state_of(reference.car))
