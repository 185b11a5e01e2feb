"""The true state of CarRacing, which neither V nor C is shown: for studies."""

import math
from typing import Any

import gymnasium
import numpy as np

QUANTITIES = ("speed", "sideways", "rotation", "wheels", "offset", "heading", "bend")
AHEAD = 8  # tiles to the bend whose angle counts


def true_state(environment: gymnasium.Env) -> tuple[float, ...]:
    """QUANTITIES in the units of Box2D: speed, its part sideways, angular velocity, angle of the front wheels, distance
    from the middle of the road, angle to the road, and by how much the road turns within AHEAD tiles (radians)."""
    world: Any = environment.unwrapped
    hull = world.car.hull
    track = np.array(world.track)  # (N, 4): angle along the lap, direction, x, y
    position, velocity = np.array(hull.position), np.array(hull.linearVelocity)
    here = int(np.linalg.norm(track[:, 2:] - position, axis=1).argmin())
    direction = track[here, 1]
    right = np.array([math.cos(direction), math.sin(direction)])  # a direction of 0 is up
    car_right = np.array([math.cos(hull.angle), math.sin(hull.angle)])
    return (
        float(np.linalg.norm(velocity)),
        float(velocity @ car_right),
        hull.angularVelocity,
        world.car.wheels[0].joint.angle,
        float((position - track[here, 2:]) @ right),
        _turn(hull.angle - direction),
        _turn(track[(here + AHEAD) % len(track), 1] - direction),
    )


def car_position(environment: gymnasium.Env) -> tuple[float, float]:
    """Where the car is (x, y)."""
    world: Any = environment.unwrapped
    return tuple(world.car.hull.position)


def road(environment: gymnasium.Env) -> tuple[np.ndarray, np.ndarray]:
    """The middle of the road, tile by tile (N, 2), and which tiles were missed so far (N,) bool."""
    world: Any = environment.unwrapped
    tiles = np.array([tile[2:] for tile in world.track])
    return tiles, np.array([not tile.road_visited for tile in world.road])


def _turn(angle: float) -> float:
    """The same angle between -pi and pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
