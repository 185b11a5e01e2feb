"""What engine, brakes, steering and tyres do to a car: Gymnasium's Car.step (gymnasium.envs.box2d.car_dynamics, by Oleg
Klimov), compiled.

Everything is computed in float64 and in Gymnasium's order, so that the results are equal bit for bit. What is left out
are the skid marks, which only Gymnasium's own views show.
"""

import math

import numpy as np
from Box2D import _Box2D
from gymnasium.envs.box2d.car_dynamics import ENGINE_POWER, FRICTION_LIMIT, SIZE, WHEEL_MOMENT_OF_INERTIA, WHEEL_R, Car
from gymnasium.envs.box2d.car_racing import FPS
from numba import njit

from envs.bodies import ANGLE, COSINE, SINE, VELOCITY_X, VELOCITY_Y, BodyStates, X, Y

WHEELS = 4  # the front ones first; the rear ones are driven
GAS, PHASE, OMEGA = range(3)  # the rows of an array of wheels: throttle, angle and angular velocity of its turning
TICK = 1.0 / FPS
WHEEL_RADIUS = 1.0 * WHEEL_R * SIZE
STEERING_GAIN, FASTEST_STEERING = 50.0, 3.0  # radians a second for each radian that is missing; radians a second
GAS_STEP = 0.1  # the throttle opens gradually and closes at once
BLOCKING_BRAKE, BRAKE_STEP = 0.9, 15  # the pressure from which on wheels stand still; radians a second
GRASS_FRICTION = FRICTION_LIMIT * 0.6
STIFFNESS = 205000 * SIZE * SIZE  # of the tyres: force for each unit of speed between tyre and road

Motion = tuple[float, tuple[float, float]]  # of a wheel: the speed of its motor, the force on it (x, y)

# Box2D's functions are twice as fast as the methods and properties that call them.
set_motor_speed, apply_force = _Box2D.b2RevoluteJoint___SetMotorSpeed, _Box2D.b2Body_ApplyForceToCenter


@njit(cache=True)
def sign(number: float) -> float:
    """-1, 0 or 1, and NaN of NaN. As NumPy's, it makes 0 of -0."""
    return 1.0 if number > 0 else -1.0 if number < 0 else 0.0 if number == 0 else number


@njit(cache=True)
def open_throttle(wheels: np.ndarray, gas: float) -> None:
    """The rear wheels' throttle follows the pedal."""
    gas = 0.0 if gas < 0 else 1.0 if gas > 1 else gas
    for number in (2, 3):
        change = gas - wheels[GAS, number]
        wheels[GAS, number] += GAS_STEP if change > GAS_STEP else change


@njit(cache=True)
def drive_wheel(
    hull: np.ndarray, body: np.ndarray, wheel: np.ndarray, on_road: bool, steering: float, brake: float
) -> Motion:
    """One wheel for one step.

    Args:
        hull, body: the hull and the wheel, see envs.bodies.
        wheel: (3,) float64; written to.
        on_road: whether it touches a tile.
        steering: the angle that it should have, in radians.
        brake: pressure in [0, 1].

    Returns:
        The speed of the motor in its joint, in radians a second, and the force that the road exerts on it.
    """
    # In float32, as Box2D does.
    missing = steering - np.float64(body[ANGLE] - hull[ANGLE])
    pace = STEERING_GAIN * abs(missing)
    motor = sign(missing) * (FASTEST_STEERING if pace > FASTEST_STEERING else pace)

    # Ahead is (-sine, cosine), to the right is (cosine, sine).
    sine, cosine = np.float64(body[SINE]), np.float64(body[COSINE])
    velocity_x, velocity_y = np.float64(body[VELOCITY_X]), np.float64(body[VELOCITY_Y])
    ahead = -sine * velocity_x + cosine * velocity_y
    sideways = cosine * velocity_x + sine * velocity_y

    omega = wheel[OMEGA]
    omega += TICK * ENGINE_POWER * wheel[GAS] / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
    if brake >= BLOCKING_BRAKE:
        omega = 0.0
    elif brake > 0:
        slowing = BRAKE_STEP * brake
        omega += -sign(omega) * (abs(omega) if slowing > abs(omega) else slowing)
    wheel[PHASE] += omega * TICK

    # The road pulls at the tyre against their difference in speed, with no more force than friction allows.
    along = (-ahead + omega * WHEEL_RADIUS) * STIFFNESS
    across = -sideways * STIFFNESS
    force = math.sqrt(along * along + across * across)
    limit = FRICTION_LIMIT if on_road else GRASS_FRICTION
    if force > limit:
        along = along / force * limit
        across = across / force * limit
    wheel[OMEGA] = omega - TICK * along * WHEEL_RADIUS / WHEEL_MOMENT_OF_INERTIA
    return motor, (across * cosine + along * -sine, across * sine + along * cosine)


@njit(cache=True)
def drive_wheels(
    bodies: tuple[np.ndarray, ...], wheels: np.ndarray, touching: np.ndarray, steering: float, gas: float, brake: float
) -> tuple[Motion, Motion, Motion, Motion]:
    """All wheels for one step: what drive_wheel returns, of each.

    Args:
        bodies: the hull's and the wheels', see envs.bodies.
        wheels: (3, 4) float64; written to.
        touching: (5,) int64, how many tiles the hull and the wheels touch.
        steering: of the front wheels.
        gas, brake: in [0, 1].
    """
    open_throttle(wheels, gas)
    hull, w0, w1, w2, w3 = bodies
    return (
        drive_wheel(hull, w0, wheels[:, 0], touching[1] > 0, steering, brake),
        drive_wheel(hull, w1, wheels[:, 1], touching[2] > 0, steering, brake),
        drive_wheel(hull, w2, wheels[:, 2], touching[3] > 0, 0.0, brake),
        drive_wheel(hull, w3, wheels[:, 3], touching[4] > 0, 0.0, brake),
    )


class DrivenCar:
    """Gymnasium's Car with engine, brakes and tyres of this file.

    states: of the hull and the wheels.
    wheels: (3, 4) float64, by GAS, PHASE and OMEGA.
    """

    def __init__(self, car: Car):
        self._car = car
        self.states = BodyStates([car.hull, *car.wheels])
        self.wheels = np.zeros((3, WHEELS))
        self._joints_and_bodies = [(wheel.joint.this, wheel.this) for wheel in car.wheels]

    def drive(self, steering: float, gas: float, brake: float, touching: np.ndarray) -> None:
        """Sets the motors and the forces for the next step of the world.

        Args:
            steering: the angle of the front wheels, in radians, positive to the left.
            gas, brake: in [0, 1].
            touching: (5,) int64, how many tiles the hull and the wheels touch.
        """
        motions = drive_wheels(self.states.arrays, self.wheels, touching, steering, gas, brake)
        for (joint, body), (speed, force) in zip(self._joints_and_bodies, motions, strict=True):
            set_motor_speed(joint, speed)
            apply_force(body, force, True)

    def follow(self) -> None:
        """Takes over how Gymnasium's code has moved the car."""
        self.states.refresh()
        self.wheels[PHASE] = [wheel.phase for wheel in self._car.wheels]
        self.wheels[OMEGA] = [wheel.omega for wheel in self._car.wheels]

    @property
    def position(self) -> tuple[float, float]:
        """Where the hull is (x, y)."""
        hull = self.states.arrays[0]
        return hull.item(X), hull.item(Y)
