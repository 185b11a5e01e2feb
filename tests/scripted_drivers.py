"""Drivers that need no training, to try the environments with: each is a generator function of (environment, random
generator) that yields an action (3,) at each step."""

import math

import numpy as np
from gymnasium.envs.box2d.car_racing import FPS


def drive_randomly(env, rng):
    """Independent actions, uniform over the action space."""
    while True:
        yield rng.uniform([-1, 0, 0], [1, 1, 1]).astype(np.float32)


def drive_brownian(env, rng):
    """A random walk through the action space."""
    action = rng.uniform([-1, 0, 0], [1, 1, 1])
    while True:
        action = np.clip(action + rng.normal(size=3) / math.sqrt(FPS), [-1, 0, 0], [1, 1, 1])
        yield action.astype(np.float32)


def drive_well(env, rng):
    """Steers to a point of the track ahead of the car, slower where the track bends."""
    car, track = env.unwrapped.car, np.array(env.unwrapped.track)
    while True:
        x, y = car.hull.position
        speed = car.hull.linearVelocity.length
        nearest = int(np.argmin((track[:, 2] - x) ** 2 + (track[:, 3] - y) ** 2))
        target = track[(nearest + 3 + int(speed / 18)) % len(track)]
        heading = car.hull.angle + math.pi / 2
        error = math.remainder(math.atan2(target[3] - y, target[2] - x) - heading, 2 * math.pi)
        directions = np.unwrap(track[(nearest + np.arange(2, 22)) % len(track), 1])
        bend = np.abs(np.diff(directions)).sum()
        excess = speed - max(40.0, 80.0 - 35.0 * bend)
        gas, brake = (0.0, min(0.4, 0.04 * excess)) if excess > 0 else (min(0.5, -0.1 * excess), 0.0)
        yield np.array([np.clip(-2.0 * error, -1, 1), gas, brake], np.float32)


def drive_away(env, rng):
    """Straight on, until the car has left the playfield."""
    while True:
        yield np.array([0.0, 0.5, 0.0], np.float32)


def drive_in_circles(env, rng):
    """Full throttle with the wheels turned to one side: the car spins and leaves the road."""
    side = rng.choice([-1, 1])
    while True:
        yield np.array([side, 1.0, 0.0], np.float32)


def drive_jerkily(env, rng):
    """The ends of the action box and the pressures at which brakes block, each held for up to half a second."""
    while True:
        action = [rng.choice([-1, 0, 1]), rng.choice([0, 0.05, 1]), rng.choice([0, 0, 0, 0.3, 0.89, 0.9, 1])]
        for _ in range(rng.integers(1, 30)):
            yield np.array(action, np.float32)


def drive_and_skid(env, rng):
    """Drives well, and loses its head every three seconds: full throttle, any steering, sometimes blocked wheels."""
    for step, action in enumerate(drive_well(env, rng)):
        if step % 160 >= 120:
            action = np.array([rng.uniform(-1, 1), 1.0, rng.choice([0, 0.95])], np.float32)
        yield action


def drive_beyond_the_box(env, rng):
    """Actions far outside the action box, in float64."""
    while True:
        yield rng.normal(scale=2, size=3)
