"""The state of Box2D's bodies as NumPy arrays, for compiled code.

Asking a body for its position, its velocity and its direction makes six objects of Python's; a car of five bodies takes
longer to be asked than to be moved. So the arrays lie over the memory that Box2D itself works in, and are only read.
Where Box2D should keep its bodies otherwise than known here, they are copies, made by asking.
"""

import ctypes
import functools
from typing import Any

import Box2D
import numpy as np

# The places of an array, which are those of the 4-byte fields of Box2D 2.3's b2Body: first its type, flags and island.
X, Y, SINE, COSINE = 3, 4, 5, 6  # of the transform: where the body's origin is, how it is turned
ANGLE = 14
VELOCITY_X, VELOCITY_Y, SPIN = 16, 17, 18  # of its centre of mass; radians a second
SIZE = 19
READ = (X, Y, SINE, COSINE, ANGLE, VELOCITY_X, VELOCITY_Y, SPIN)


class BodyStates:
    """`arrays`: for each body (SIZE,) float32, of which the places in READ are used. They are not to be written to, nor
    to be read once the body has been destroyed.

    `refresh` is to be called when the world has changed.
    """

    def __init__(self, bodies: list[Any]):
        self._bodies = bodies  # they keep their world, and with it the memory
        self._copied = not layout_is_known()
        self.arrays = tuple(np.zeros(SIZE, np.float32) if self._copied else memory_of(body) for body in bodies)
        self.refresh()

    def refresh(self) -> None:
        if self._copied:
            for body, array in zip(self._bodies, self.arrays, strict=True):
                array[list(READ)] = ask(body)


def memory_of(body: Any) -> np.ndarray:
    """The first fields (SIZE,) float32 of a body, as they are from now on."""
    return np.ctypeslib.as_array((ctypes.c_float * SIZE).from_address(int(body.this)))


def ask(body: Any) -> list[float]:
    """What stands in the places READ, by Box2D's interface."""
    cosine, sine = body.GetWorldVector((1, 0))
    return [*body.position, sine, cosine, body.angle, *body.linearVelocity, body.angularVelocity]


@functools.cache
def layout_is_known() -> bool:
    """Whether the fields are where this file takes them to be: tried on a body with another number in each."""
    world = Box2D.b2World((0, 0))
    body = world.CreateDynamicBody(position=(3, 5), angle=0.5, linearVelocity=(7, 11), angularVelocity=13)
    body.CreatePolygonFixture(box=(1, 2, (0.25, 0.125), 0), density=1)
    before, memory = ask(body), memory_of(body)
    known = memory[list(READ)].tolist() == before
    world.Step(0.5, 1, 1)
    return known and memory[list(READ)].tolist() == ask(body) != before
