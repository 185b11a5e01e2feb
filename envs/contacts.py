"""Which parts of a car touch which tiles of its track."""

from typing import Any

import numpy as np
from Box2D import _Box2D
from gymnasium.envs.box2d.car_racing import CarRacing, FrictionDetector

# Numbers of the parts of a car; those of tiles are not negative.
HULL = -5
WHEELS = (-4, -3, -2, -1)

# A car that drives well begins and ends five contacts a step. Box2D's functions are twice as fast as its properties.
fixture_a, fixture_b = _Box2D.b2Contact___GetFixtureA, _Box2D.b2Contact___GetFixtureB
first_fixture = _Box2D.b2Body___GetFixtureList_internal
number_of, set_number = _Box2D.b2Fixture___GetUserData, _Box2D.b2Fixture___SetUserData


class ContactCounter(FrictionDetector):
    """Counts the tiles that every part touches, in `touching` (5,) int64: hull, then wheels.

    A contact that changes more, as only the first ones of a tile do, is passed on to Gymnasium's code: the hull's first
    one gives the tile the colour of visited ones, a wheel's first one the reward.
    """

    def __init__(self, environment: CarRacing):
        """The environment has a new track and a new car."""
        super().__init__(environment, environment.lap_complete_percent)
        world: Any = environment
        self.touching = np.zeros(1 + len(WHEELS), np.int64)
        self._first_seen: list[set[int]] = [set(), set()]  # tiles, by the hull and by wheels
        for number, tile in enumerate(world.road):
            set_number(first_fixture(tile), number)
        for number, wheel in zip(WHEELS, world.car.wheels, strict=True):
            set_number(first_fixture(wheel), number)
        for fixture in world.car.hull.fixtures:
            set_number(fixture, HULL)

    def BeginContact(self, contact: Any) -> None:
        tile, part = number_of(fixture_a(contact)), number_of(fixture_b(contact))
        if tile < 0:
            tile, part = part, tile
        self.touching[part] += 1
        seen = self._first_seen[part != HULL]
        if tile not in seen:
            seen.add(tile)
            super().BeginContact(contact)

    def EndContact(self, contact: Any) -> None:
        one, other = number_of(fixture_a(contact)), number_of(fixture_b(contact))
        self.touching[min(one, other)] -= 1
