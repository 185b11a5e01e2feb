"""CarRacing with Gymnasium's tracks and rewards and Box2D's physics, but a car and a renderer of its own."""

import functools
from itertools import chain
from typing import Any

import numpy as np
import pygame
from gymnasium.envs.box2d.car_dynamics import WHEEL_WHITE
from gymnasium.envs.box2d.car_racing import PLAYFIELD, WINDOW_H

from envs import raster
from envs.car import OMEGA, PHASE, TICK, DrivenCar
from envs.carracing import STEP_COST, TimeLimitedCarRacing, shrink
from envs.contacts import ContactCounter

# The part of Gymnasium's drawing that shows the score, left of the indicators: 12x12 of its 96x96 cells.
SCORE_SURFACE = (125, 100)
VELOCITY_ITERATIONS, POSITION_ITERATIONS = 6 * 30, 2 * 30  # of Box2D, as Gymnasium has it


def smooth_scale(surface: pygame.Surface) -> np.ndarray:
    """Shrinks a surface of SCORE_SURFACE as Gymnasium shrinks its whole drawing; returns (12, 12, 3) uint8."""
    return pygame.surfarray.array3d(pygame.transform.smoothscale(surface, (12, 12))).swapaxes(0, 1)


@functools.cache
def score_images() -> np.ndarray:
    """Draws every score as Gymnasium writes it.

    Returns:
        (N, 8, 8) uint8 grey levels: the scores from raster.LOWEST_SCORE to raster.HIGHEST_SCORE, then "-000", which is
        how a score just below zero is written.
    """
    pygame.font.init()
    font = pygame.font.Font(pygame.font.get_default_font(), 42)
    surface = pygame.Surface(SCORE_SURFACE)
    centre = (60, WINDOW_H - WINDOW_H * 2.5 / 40.0 - (WINDOW_H - SCORE_SURFACE[1]))
    images = []
    for score in [*range(raster.LOWEST_SCORE, raster.HIGHEST_SCORE + 1), -0.0]:
        text = font.render(f"{score:04.0f}", True, (255, 255, 255), (0, 0, 0))
        surface.fill(0)
        surface.blit(text, text.get_rect(center=centre))
        images.append(shrink(smooth_scale(surface))[:, :, 0])
    return np.array(images)


@functools.cache
def displayed_levels() -> np.ndarray:
    """Returns (256,) uint8: what pygame's smoothscale, which truncates, makes of an area of each grey level."""
    surface = pygame.Surface(SCORE_SURFACE)
    levels = []
    for level in range(256):
        surface.fill((level, level, level))
        levels.append(smooth_scale(surface)[0, 0, 0])
    return np.array(levels)


class FastCarRacing(TimeLimitedCarRacing):
    """Gymnasium's CarRacing with the car's own arithmetic and the drawing of the observation replaced.

    Rewards, ends and tracks are equal to Gymnasium's bit for bit for the same seed and actions.
    Frames differ from GymnasiumCarRacing's by less than a grey level on average. Each is a new array.
    With the render modes "rgb_array" and "human" Gymnasium's code draws, and drives.
    """

    def _create_track(self) -> bool:
        """Also puts what draw_frame needs of a new track into arrays."""
        if not super()._create_track():
            return False
        road: Any = self.road  # Gymnasium's hint knows only the None before the first track
        # The contact listener recolours visited tiles in place: as rows of one array, draw_frame sees it at no cost.
        self._tile_colours = np.array([tile.color for tile in road], np.float64)
        road_poly, quads, tile_of_quad = [], [], []
        tiles = enumerate(zip(road, self._tile_colours, strict=True))
        for quad, colour in self.road_poly:
            quads.append(quad)
            if isinstance(colour, tuple):
                tile_of_quad.append(raster.WHITE_KERB if colour == (255, 255, 255) else raster.RED_KERB)
            else:
                number, (tile, colour) = next(tiles)
                tile.color = colour
                tile_of_quad.append(number)
            road_poly.append((quad, colour))
        self.road_poly = road_poly
        numbers = chain.from_iterable(chain.from_iterable(quads))
        self._quads = np.fromiter(numbers, np.float64).reshape(-1, 4, 2)  # three times as fast as np.array(quads)
        self._tile_of_quad = np.array(tile_of_quad)

        shades = [self.road_color + 0.01 * i * 255 for i in range(3)]
        colours = [
            (0, 0, 0), self.bg_color, self.grass_color, *shades, WHEEL_WHITE, (204, 0, 0),
            (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (51, 0, 255),
        ]  # fmt: skip
        self._pair_sums = raster.pack_palette(displayed_levels()[np.array(colours, np.int64)])
        self._score_images = score_images()
        return True

    def _take_over(self) -> None:
        """A new car stands on a new track."""
        world: Any = self
        self._driven = DrivenCar(world.car)
        # Where somebody watches, Gymnasium's own code leaves the skid marks that its views show.
        self._gymnasium_drives = self.render_mode is not None or not self.continuous
        if not self._gymnasium_drives:
            self._contacts = ContactCounter(self)
            self.world.contactListener = self._contacts

    def _advance(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if action is None:
            self._take_over()
        if self._gymnasium_drives:
            return super()._advance(action)
        steering, gas, brake = np.zeros(3) if action is None else np.asarray(action, np.float64).tolist()
        self._driven.drive(-steering, gas, brake, self._contacts.touching)
        self._move_world()
        self.t += TICK
        self.state = self._render("state_pixels")
        return self.state, *((0, False, False, {}) if action is None else self._judge())

    def _move_world(self) -> None:
        self.world.Step(TICK, VELOCITY_ITERATIONS, POSITION_ITERATIONS)
        self._driven.states.refresh()

    def _judge(self) -> tuple[float, bool, bool, dict]:
        """Gymnasium's reward of a step, whether it was the last one (never by a limit of time), and info."""
        world: Any = self
        self.reward -= STEP_COST
        reward = self.reward - self.prev_reward
        self.prev_reward = self.reward
        x, y = self._driven.position
        if abs(x) > PLAYFIELD or abs(y) > PLAYFIELD:
            return -100, True, False, {"lap_finished": False}
        if self.tile_visited_count == len(world.track) or self.new_lap:
            return reward, True, False, {"lap_finished": True}
        return reward, False, False, {}

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels":
            return super()._render(mode)
        if self._gymnasium_drives:
            self._driven.follow()
        return raster.draw_frame(
            self._driven.states.arrays,
            self._driven.wheels[PHASE],
            self._driven.wheels[OMEGA],
            self.t,
            self.reward,
            self._quads,
            self._tile_of_quad,
            self._tile_colours,
            self._pair_sums,
            self._score_images,
        )
