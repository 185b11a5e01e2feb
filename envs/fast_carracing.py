"""CarRacing with Gymnasium's physics and a renderer of its own for the 64x64 frames."""

import functools

import numpy as np
import pygame
from gymnasium.envs.box2d.car_dynamics import WHEEL_WHITE
from gymnasium.envs.box2d.car_racing import WINDOW_H

from envs import raster
from envs.carracing import TimeLimitedCarRacing, shrink

LOWEST_SCORE, HIGHEST_SCORE = -100, 1000
SCORE_SURFACE = (125, 100)  # the panel left of the indicators: 12x12 cells of Gymnasium's frame, 8x8 pixels of ours


def shrink_surface(surface: pygame.Surface, width: int, height: int) -> np.ndarray:
    """Shrinks a surface as Gymnasium shrinks its drawing; returns (height, width, 3) uint8."""
    return pygame.surfarray.array3d(pygame.transform.smoothscale(surface, (width, height))).swapaxes(0, 1)


@functools.cache
def score_images() -> np.ndarray:
    """All scores as Gymnasium writes them, (HIGHEST - LOWEST + 2, 8, 8) uint8 grey levels.

    The score s is at s - LOWEST_SCORE, "-000" (a reward just below zero) is the last one.
    """
    pygame.font.init()
    font = pygame.font.Font(pygame.font.get_default_font(), 42)
    surface = pygame.Surface(SCORE_SURFACE)
    images = []
    for score in [*range(LOWEST_SCORE, HIGHEST_SCORE + 1), -0.0]:
        surface.fill(0)
        text = font.render(f"{score:04.0f}", True, (255, 255, 255), (0, 0, 0))
        panel_top = WINDOW_H - SCORE_SURFACE[1]
        surface.blit(text, text.get_rect(center=(60, WINDOW_H - WINDOW_H * 2.5 / 40.0 - panel_top)))
        images.append(shrink(shrink_surface(surface, 12, 12))[:, :, 0])
    return np.array(images)


def pack_palette(colours: np.ndarray) -> np.ndarray:
    """Packs colours for raster.average.

    Args:
        colours: (PALETTE_SIZE, 3), grey levels in [0, 255].

    Returns:
        (PALETTE_SIZE,) int64: red, green, blue in 21 bits each, 1/16 grey level a unit.
    """
    surface = pygame.Surface((125, 100))
    packed = []
    for colour in colours:
        surface.fill([int(c) for c in colour])
        levels = [round(c * raster.LEVEL) for c in shrink_surface(surface, 12, 12)[0, 0]]
        packed.append(sum(level << (raster.CHANNEL_BITS * i) for i, level in enumerate(levels)))
    return np.array(packed, np.int64)


class FastCarRacing(TimeLimitedCarRacing):
    """Gymnasium's CarRacing, bit for bit, with only the drawing of the observation replaced."""

    def _create_track(self) -> bool:
        if not super()._create_track():
            return False
        # tile colours
        self._tile_colours = np.array([tile.color for tile in self.road], np.float64)
        quads, codes, tiles = [], [], []
        tile_index = -1
        road_poly = []
        for quad, colour in self.road_poly:
            quads.append(quad)
            if isinstance(colour, tuple):
                codes.append(raster.WHITE if colour[1] else raster.KERB_RED)
                tiles.append(-1)
            else:
                tile_index += 1
                tiles.append(tile_index)
                codes.append(raster.ROAD_0 + tile_index % 3)
                colour = self.road[tile_index].color = self._tile_colours[tile_index]
            road_poly.append((quad, colour))
        self.road_poly = road_poly
        self._quads = np.array(quads)
        self._codes = np.array(codes)
        self._tiles = np.array(tiles)
        road = self.road_color
        self._palette = pack_palette(
            np.array(
                [
                    (0, 0, 0), self.bg_color, self.grass_color, road, road + 2.55, road + 5.1,
                    (255, 255, 255), (255, 0, 0), WHEEL_WHITE, (204, 0, 0),
                    (0, 0, 255), (51, 0, 255), (0, 255, 0), (255, 0, 0),
                ]
            )
        )  # fmt: skip
        self._score_images = score_images()
        return True

    def _render(self, mode: str):
        if mode != "state_pixels":
            return super()._render(mode)
        hull = self.car.hull
        x, y = hull.position
        w = self.car.wheels
        state = np.array(
            [
                x, y, hull.angle, self.t, hull.linearVelocity.length, hull.angularVelocity, self.reward,
                self.road_color[0],
                w[0].joint.angle, w[1].joint.angle, w[2].joint.angle, w[3].joint.angle,
                w[0].phase, w[1].phase, w[2].phase, w[3].phase,
                w[0].omega, w[1].omega, w[2].omega, w[3].omega,
            ],
            np.float64,
        )  # fmt: skip
        score = min(max(round(self.reward), LOWEST_SCORE), HIGHEST_SCORE) - LOWEST_SCORE
        if score == -LOWEST_SCORE and self.reward < 0:
            score = -1
        image = self._score_images[score][:, :, None]
        return raster.draw_frame(
            state, self._quads, self._codes, self._tiles, self._tile_colours, self._palette, image
        )
