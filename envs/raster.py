"""Compiled drawing of one CarRacing frame, straight to 64x64.

Gymnasium draws 1000x800 pixels with pygame, shrinks them to 96x96 cells, and those are shrunk to 64x64 pixels. Here the
same polygons are filled on a canvas of palette indices, with a few samples for each cell. The samples are then averaged
with the weights that both shrinkings have together. The panel below the road is drawn into the frame itself.

Coordinates:
    world    metres of the track, as in Box2D
    surface  pixels of Gymnasium's 1000x800 drawing, y down
    canvas   samples, y down, sample centres at integers

Read from `draw_frame`, at the end. It is compiled at its first call, which takes seconds, and kept in numba's cache on
disk. All compiled code stands in this file, as numba does not notice a change in another file's function.
"""

import math

import numpy as np
from gymnasium.envs.box2d import car_dynamics
from gymnasium.envs.box2d.car_racing import (
    GRASS_DIM,
    PLAYFIELD,
    SCALE,
    STATE_H,
    STATE_W,
    TRACK_DETAIL_STEP,
    TRACK_WIDTH,
    WINDOW_H,
    WINDOW_W,
    ZOOM,
)
from numba import njit

from envs.bodies import ANGLE, SPIN, VELOCITY_X, VELOCITY_Y, X, Y

FRAME_SIZE = 64

# Samples in each of the 96x96 cells: `average` compares four across as one 32-bit word, adds up two rows at once.
SAMPLES_X, SAMPLES_Y = 4, 2
STEP_X, STEP_Y = WINDOW_W / STATE_W / SAMPLES_X, WINDOW_H / STATE_H / SAMPLES_Y  # in surface pixels

# A black panel covers the lowest eighth: exactly 12 of 96 cells and 8 of 64 frame rows. The canvas ends above it.
PANEL_TOP = FRAME_SIZE * 7 // 8
CANVAS_W, CANVAS_H = STATE_W * SAMPLES_X, STATE_H * 7 // 8 * SAMPLES_Y
LEAST_INDICATED = 1e-4  # Gymnasium draws no bar for less

# Palette indices. NumPy's numbers, because Numba compiles a function anew for each of Python's that it is called with.
BLACK, BACKGROUND, GRASS, ROAD_0, ROAD_1, ROAD_2, STRIPE, HULL, WHITE, RED, GREEN, BLUE, PURPLE = np.arange(13)

# In place of a tile's number.
WHITE_KERB, RED_KERB = -1, -2

# The layout of the vector `state`: what the drawing needs of the car and the episode.
HULL_X, HULL_Y, HULL_ANGLE, SPEED, ROTATION, TIME, REWARD = range(7)
WHEEL_ANGLE, WHEEL_PHASE, WHEEL_OMEGA = 7, 11, 15  # four numbers each; the angle is relative to the hull
STATE_SIZE = 19

# Scores that can be written; an episode of 1,000 steps cannot leave this range.
LOWEST_SCORE, HIGHEST_SCORE = -100, 1000

# The hull stands in the middle of the surface's width, a quarter of its height from the bottom. In surface pixels: the
# farthest corner from the hull; how far ahead lies the centre of the view above the panel, and the circle round it.
FARTHEST = math.hypot(WINDOW_W / 2, WINDOW_H * 3 / 4)
VIEW_AHEAD = (WINDOW_H / 8 + WINDOW_H) / 2 - WINDOW_H / 4
VIEW_RADIUS = math.hypot(WINDOW_W / 2, WINDOW_H * 7 / 16)
LONGEST_DIAGONAL = math.hypot(2 * TRACK_WIDTH, 2 * TRACK_DETAIL_STEP)  # of a piece of road, in metres

# pygame fills the border pixels of a polygon too: half a pixel more on each side than the outline of its corners.
GROW_X, GROW_Y = 0.5 / STEP_X, 0.5 / STEP_Y  # in samples

HULL_POLYGONS = (
    np.array(car_dynamics.HULL_POLY1) * car_dynamics.SIZE,
    np.array(car_dynamics.HULL_POLY2) * car_dynamics.SIZE,
    np.array(car_dynamics.HULL_POLY3) * car_dynamics.SIZE,
    np.array(car_dynamics.HULL_POLY4) * car_dynamics.SIZE,
)
WHEEL_CENTRES = np.array(car_dynamics.WHEELPOS) * car_dynamics.SIZE
WHEEL_HALF_WIDTH = car_dynamics.WHEEL_W * car_dynamics.SIZE
WHEEL_RADIUS = car_dynamics.WHEEL_R * car_dynamics.SIZE

# Colours are added up with their channels side by side in one integer. A channel is a fixed-point number, scaled so
# that the samples of 9 cells add up to 1 << LEVEL_BITS for a grey level: no division is needed.
CHANNEL_BITS = 21
CHANNEL_MASK = (1 << CHANNEL_BITS) - 1
LEVEL_BITS = 13
HALF_LEVEL = sum(1 << (CHANNEL_BITS * channel + LEVEL_BITS - 1) for channel in range(3))
LEVEL = (1 << LEVEL_BITS) / (9 * SAMPLES_X * SAMPLES_Y)  # one grey level of one sample

PATCH_PERIOD = 2 * GRASS_DIM  # grass patches are every other square, in both directions
PATCHES = 10  # on each side of the origin


def pack_palette(colours: np.ndarray) -> np.ndarray:
    """Makes the table by which `average` adds up colours.

    Args:
        colours: (N, 3), red, green, blue in [0, 255] of each palette index; N at most 16.

    Returns:
        (256,) int64: at i + 16 * j the sum of colours i and j, packed.
    """
    units = np.zeros((16, 3), np.int64)
    units[: len(colours)] = np.round(np.asarray(colours) * LEVEL)
    packed = units @ (1 << CHANNEL_BITS * np.arange(3))
    return (packed[:, None] + packed).reshape(-1)


@njit(cache=True)
def set_corner(corners: np.ndarray, i: int, x: float, y: float) -> None:
    """Sets corner i, in canvas coordinates, to the surface point x, y.

    Here y points up, as Gymnasium draws before it flips the surface. pygame truncates points to whole pixels: so does
    this.
    """
    corners[i, 0] = (math.trunc(x) + 0.5) * (1 / STEP_X) - 0.5
    corners[i, 1] = (WINDOW_H - 0.5 - math.trunc(y)) * (1 / STEP_Y) - 0.5


@njit(cache=True)
def widen(spans: np.ndarray, row: int, x: float) -> None:
    """Makes the span of a row reach x."""
    spans[row, 0] = min(spans[row, 0], x)
    spans[row, 1] = max(spans[row, 1], x)


@njit(cache=True)
def fill_convex(canvas: np.ndarray, spans: np.ndarray, corners: np.ndarray, colour: np.integer) -> None:
    """Fills a convex polygon.

    Args:
        canvas: (CANVAS_H, CANVAS_W) uint8, written to.
        spans: (CANVAS_H, 2) float64, work space that holds (+inf, -inf) in each row before and after.
        corners: (N, 2) float64, canvas coordinates x, y.
        colour: palette index.
    """
    colour = np.uint8(colour)
    left = right = corners[0, 0]
    low = high = corners[0, 1]
    for i in range(1, len(corners)):
        left, right = min(left, corners[i, 0]), max(right, corners[i, 0])
        low, high = min(low, corners[i, 1]), max(high, corners[i, 1])
    first = max(0, math.ceil(low - GROW_Y))
    last = min(CANVAS_H - 1, math.floor(high + GROW_Y))
    if first > last or right + GROW_X < 0 or left - GROW_X > CANVAS_W - 1:
        return

    for i in range(len(corners)):
        x1, y1 = corners[i - 1]
        x2, y2 = corners[i]
        for row in range(max(first, math.ceil(y2 - GROW_Y)), min(last, math.floor(y2 + GROW_Y)) + 1):
            widen(spans, row, x2)
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        if y1 < y2:
            slope = (x2 - x1) / (y2 - y1)
            for row in range(max(first, math.ceil(y1)), min(last, math.floor(y2)) + 1):
                widen(spans, row, x1 + (row - y1) * slope)

    for row in range(first, last + 1):
        begin = max(0, math.ceil(spans[row, 0] - GROW_X))
        end = max(begin, min(CANVAS_W, math.floor(spans[row, 1] + GROW_X) + 1))
        canvas[row, begin:end].fill(colour)
        spans[row, 0] = np.inf
        spans[row, 1] = -np.inf


@njit(cache=True)
def place(corners: np.ndarray, i: int, x: float, y: float, state: np.ndarray, cos: float, sin: float) -> None:
    """Sets corner i from a point of the world; cos and sin are those of the hull's angle, times the zoom."""
    x, y = x - state[HULL_X], y - state[HULL_Y]
    set_corner(corners, i, WINDOW_W / 2 + cos * x + sin * y, WINDOW_H / 4 + cos * y - sin * x)


@njit(cache=True)
def draw_square(
    canvas: np.ndarray,
    spans: np.ndarray,
    corners: np.ndarray,
    state: np.ndarray,
    cos: float,
    sin: float,
    x: float,
    y: float,
    size: float,
    colour: np.integer,
) -> None:
    """Draws a square of the world whose lowest x and y these are."""
    for i in range(4):
        place(corners, i, x + size if i == 1 or i == 2 else x, y + size if i >= 2 else y, state, cos, sin)
    fill_convex(canvas, spans, corners[:4], colour)


@njit(cache=True)
def draw_ground(canvas: np.ndarray, spans: np.ndarray, corners: np.ndarray, state: np.ndarray, zoom: float) -> None:
    """Draws the playfield and those of its grass patches that can be seen."""
    cos, sin = zoom * math.cos(state[HULL_ANGLE]), zoom * math.sin(state[HULL_ANGLE])
    hull_x, hull_y = state[HULL_X], state[HULL_Y]
    reach = FARTHEST / zoom
    if max(abs(hull_x), abs(hull_y)) + reach < PLAYFIELD:
        canvas.fill(BACKGROUND)
    else:
        canvas.fill(BLACK)
        draw_square(canvas, spans, corners, state, cos, sin, -PLAYFIELD, -PLAYFIELD, 2 * PLAYFIELD, BACKGROUND)

    first_x = max(-PATCHES, math.floor((hull_x - reach) / PATCH_PERIOD))
    last_x = min(PATCHES - 1, math.floor((hull_x + reach) / PATCH_PERIOD))
    first_y = max(-PATCHES, math.floor((hull_y - reach) / PATCH_PERIOD))
    last_y = min(PATCHES - 1, math.floor((hull_y + reach) / PATCH_PERIOD))
    for column in range(first_x, last_x + 1):
        for row in range(first_y, last_y + 1):
            x, y = column * PATCH_PERIOD, row * PATCH_PERIOD
            draw_square(canvas, spans, corners, state, cos, sin, x, y, GRASS_DIM, GRASS)


@njit(cache=True)
def draw_road(
    canvas: np.ndarray,
    spans: np.ndarray,
    corners: np.ndarray,
    state: np.ndarray,
    zoom: float,
    quads: np.ndarray,
    tile_of_quad: np.ndarray,
    tile_colours: np.ndarray,
) -> None:
    """Draws those tiles and kerbs that can be seen, in the track's order."""
    cos, sin = zoom * math.cos(state[HULL_ANGLE]), zoom * math.sin(state[HULL_ANGLE])
    # A circle round the view: its centre lies ahead of the hull.
    ahead, reach = VIEW_AHEAD / zoom, VIEW_RADIUS / zoom + LONGEST_DIAGONAL
    centre_x = state[HULL_X] - ahead * math.sin(state[HULL_ANGLE])
    centre_y = state[HULL_Y] + ahead * math.cos(state[HULL_ANGLE])
    visited_red = tile_colours[0, 0]  # tile 0 has the shade of visited ones from the beginning
    for q in range(len(quads)):
        x, y = quads[q, 0, 0] - centre_x, quads[q, 0, 1] - centre_y
        if x * x + y * y > reach * reach:
            continue
        tile = tile_of_quad[q]
        if tile == WHITE_KERB:
            colour = WHITE
        elif tile == RED_KERB:
            colour = RED
        elif tile_colours[tile, 0] == visited_red:
            colour = ROAD_0
        else:
            colour = ROAD_0 + tile % 3
        for i in range(4):
            place(corners, i, quads[q, i, 0], quads[q, i, 1], state, cos, sin)
        fill_convex(canvas, spans, corners[:4], colour)


@njit(cache=True)
def draw_car(canvas: np.ndarray, spans: np.ndarray, corners: np.ndarray, state: np.ndarray, zoom: float) -> None:
    """Draws wheels and hull. The camera turns with the hull, so only the wheels' own angles matter."""
    for w in range(4):
        cos, sin = zoom * math.cos(state[WHEEL_ANGLE + w]), zoom * math.sin(state[WHEEL_ANGLE + w])
        centre_x = WINDOW_W / 2 + zoom * WHEEL_CENTRES[w, 0]
        centre_y = WINDOW_H / 4 + zoom * WHEEL_CENTRES[w, 1]

        # The white stripe runs round the tyre: it is seen between two angles of the wheel, if on the upper side.
        phase = state[WHEEL_PHASE + w]
        end_1, end_2 = math.cos(phase), math.cos(phase + 1.2)
        hidden_1, hidden_2 = math.sin(phase) > 0, math.sin(phase + 1.2) > 0
        if hidden_1:
            end_1 = np.sign(end_1)
        if hidden_2:
            end_2 = np.sign(end_2)
        for y1, y2, colour in ((-1.0, 1.0, BLACK), (end_1, end_2, STRIPE)):
            if colour == STRIPE and hidden_1 and hidden_2:
                continue
            for i in range(4):
                x = WHEEL_HALF_WIDTH if i == 1 or i == 2 else -WHEEL_HALF_WIDTH
                y = WHEEL_RADIUS * (y1 if i < 2 else y2)
                set_corner(corners, i, centre_x + cos * x - sin * y, centre_y + sin * x + cos * y)
            fill_convex(canvas, spans, corners[:4], colour)

    for polygon in HULL_POLYGONS:
        for i in range(len(polygon)):
            x, y = polygon[i]
            set_corner(corners, i, WINDOW_W / 2 + zoom * x, WINDOW_H / 4 + zoom * y)
        fill_convex(canvas, spans, corners[: len(polygon)], HULL)


@njit(cache=True)
def write_pixel(frame: np.ndarray, y: int, x: int, total: int) -> None:
    """Writes a weighted sum of packed colours as one pixel of the frame, rounded to the nearest grey level."""
    total += HALF_LEVEL
    frame[y, x, 0] = total >> LEVEL_BITS
    frame[y, x, 1] = total >> CHANNEL_BITS + LEVEL_BITS
    frame[y, x, 2] = total >> 2 * CHANNEL_BITS + LEVEL_BITS


@njit(cache=True)
def sum_cell(words: np.ndarray, pair_sums: np.ndarray, y: int, x: int) -> int:
    """Adds up the packed colours of a cell's samples, two at a time: one above the other."""
    pairs = np.int64(words[2 * y, x]) | np.int64(words[2 * y + 1, x]) << 4
    return (
        pair_sums[pairs & 0xFF] + pair_sums[pairs >> 8 & 0xFF] + pair_sums[pairs >> 16 & 0xFF] + pair_sums[pairs >> 24]
    )


@njit(cache=True)
def average(canvas: np.ndarray, pair_sums: np.ndarray) -> np.ndarray:
    """Shrinks the canvas to a new (64, 64, 3) uint8 frame with a black panel. pair_sums: see pack_palette.

    A block of 3x3 cells becomes 2x2 pixels: each is a whole corner cell, half of two others, a quarter of the middle.
    Most blocks have one colour and need no averaging.
    """
    frame = np.empty((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    words = canvas.view(np.uint32)  # one word: the four samples of a cell in one row
    differs = np.empty(STATE_W, np.uint32)
    frame[PANEL_TOP:].fill(0)
    for block_y in range(PANEL_TOP // 2):
        top, y = 3 * block_y, 2 * block_y
        first_row = words[top * SAMPLES_Y]
        differs[:] = 0
        for row in range(top * SAMPLES_Y + 1, (top + 3) * SAMPLES_Y):
            for x in range(STATE_W):
                differs[x] |= words[row, x] ^ first_row[x]
        for block_x in range(FRAME_SIZE // 2):
            left, x = 3 * block_x, 2 * block_x
            index = first_row[left] & 0xFF
            plain = np.uint32(index * 0x01010101)
            if (
                (first_row[left] ^ plain)
                | (first_row[left + 1] ^ plain)
                | (first_row[left + 2] ^ plain)
                | differs[left]
                | differs[left + 1]
                | differs[left + 2]
            ) == 0:
                total = pair_sums[index * 0x11] * (9 * SAMPLES_X)
                write_pixel(frame, y, x, total)
                write_pixel(frame, y, x + 1, total)
                write_pixel(frame, y + 1, x, total)
                write_pixel(frame, y + 1, x + 1, total)
                continue
            middle = sum_cell(words, pair_sums, top + 1, left + 1)
            north = 2 * sum_cell(words, pair_sums, top, left + 1) + middle
            south = 2 * sum_cell(words, pair_sums, top + 2, left + 1) + middle
            west = 2 * sum_cell(words, pair_sums, top + 1, left)
            east = 2 * sum_cell(words, pair_sums, top + 1, left + 2)
            write_pixel(frame, y, x, 4 * sum_cell(words, pair_sums, top, left) + north + west)
            write_pixel(frame, y, x + 1, 4 * sum_cell(words, pair_sums, top, left + 2) + north + east)
            write_pixel(frame, y + 1, x, 4 * sum_cell(words, pair_sums, top + 2, left) + south + west)
            write_pixel(frame, y + 1, x + 1, 4 * sum_cell(words, pair_sums, top + 2, left + 2) + south + east)
    return frame


@njit(cache=True)
def covered(pixel: int, begin: float, end: float, cell_size: float) -> float:
    """How much of a frame pixel lies between two edges, along one axis, in surface pixels; a number in [0, 1]."""
    whole = pixel // 2 * 3 + (0 if pixel % 2 == 0 else 2)  # the cell that belongs to this pixel alone
    shared = pixel // 2 * 3 + 1
    in_whole = max(0.0, min(end, (whole + 1) * cell_size) - max(begin, whole * cell_size))
    in_shared = max(0.0, min(end, (shared + 1) * cell_size) - max(begin, shared * cell_size))
    return (2 * in_whole + in_shared) / (3 * cell_size)


@njit(cache=True)
def draw_bar(
    frame: np.ndarray, x1: float, y1: float, x2: float, y2: float, colour: np.integer, pair_sums: np.ndarray
) -> None:
    """Draws an upright rectangle between two opposite corners, in surface coordinates, border pixels included."""
    left, right = math.trunc(min(x1, x2)), math.trunc(max(x1, x2)) + 1
    top, bottom = math.trunc(min(y1, y2)), math.trunc(max(y1, y2)) + 1
    pixel_w, pixel_h = WINDOW_W / FRAME_SIZE, WINDOW_H / FRAME_SIZE
    # A pixel reaches half of a cell further than its own area.
    first_x, last_x = max(0, int(left / pixel_w) - 1), min(FRAME_SIZE - 1, int(right / pixel_w) + 1)
    first_y, last_y = max(0, int(top / pixel_h) - 1), min(FRAME_SIZE - 1, int(bottom / pixel_h) + 1)
    for y in range(first_y, last_y + 1):
        height = covered(y, top, bottom, WINDOW_H / STATE_H)
        for x in range(first_x, last_x + 1):
            part = height * covered(x, left, right, WINDOW_W / STATE_W)
            if part > 0:
                for channel in range(3):
                    level = (pair_sums[colour * 0x11] >> CHANNEL_BITS * channel & CHANNEL_MASK) / (2 * LEVEL)
                    frame[y, x, channel] = int(frame[y, x, channel] * (1 - part) + level * part + 0.5)


@njit(cache=True)
def draw_indicators(frame: np.ndarray, state: np.ndarray, pair_sums: np.ndarray) -> None:
    """Draws the bars of the panel: speed, four ABS sensors, steering, gyroscope."""
    s, h = WINDOW_W / 40, WINDOW_H / 40
    for bar in range(5):
        value = state[SPEED] if bar == 0 else state[WHEEL_OMEGA + bar - 1]
        if abs(value) > LEAST_INDICATED:
            place = 5 if bar == 0 else 6 + bar
            length = (0.02 if bar == 0 else 0.01) * value * h
            colour = WHITE if bar == 0 else BLUE if bar < 3 else PURPLE
            bottom = WINDOW_H - h
            draw_bar(frame, place * s, bottom, (place + 1) * s, bottom - length, colour, pair_sums)
    steering, spin = state[WHEEL_ANGLE], state[ROTATION]
    top, bottom = WINDOW_H - 4 * h, WINDOW_H - 2 * h
    if abs(steering) > LEAST_INDICATED:
        draw_bar(frame, 20 * s, top, (20 - 10.0 * steering) * s, bottom, GREEN, pair_sums)
    if abs(spin) > LEAST_INDICATED:
        draw_bar(frame, 30 * s, top, (30 - 0.8 * spin) * s, bottom, RED, pair_sums)


@njit(cache=True)
def paste_score(frame: np.ndarray, score_images: np.ndarray, score: float) -> None:
    """Writes the score into the frame. score_images: see fast_carracing.score_images."""
    number = round(score)
    index = min(max(number, LOWEST_SCORE), HIGHEST_SCORE) - LOWEST_SCORE
    if number == 0 and score < 0:
        index = len(score_images) - 1
    for y in range(score_images.shape[1]):
        for x in range(score_images.shape[2]):
            for channel in range(3):
                frame[PANEL_TOP + y, x, channel] = score_images[index, y, x]


@njit(cache=True)
def gather_state(
    bodies: tuple[np.ndarray, ...], phases: np.ndarray, omegas: np.ndarray, time: float, reward: float
) -> np.ndarray:
    """Makes the vector `state`, from the arguments of draw_frame."""
    state = np.empty(STATE_SIZE)
    hull = bodies[0]
    state[HULL_X], state[HULL_Y], state[HULL_ANGLE] = hull[X], hull[Y], hull[ANGLE]
    # In float32, as Box2D computes it.
    state[SPEED] = math.sqrt(hull[VELOCITY_X] * hull[VELOCITY_X] + hull[VELOCITY_Y] * hull[VELOCITY_Y])
    state[ROTATION], state[TIME], state[REWARD] = hull[SPIN], time, reward
    for w in range(4):
        state[WHEEL_ANGLE + w] = bodies[1 + w][ANGLE] - hull[ANGLE]
        state[WHEEL_PHASE + w] = phases[w]
        state[WHEEL_OMEGA + w] = omegas[w]
    return state


@njit(cache=True)
def draw_frame(
    bodies: tuple[np.ndarray, ...],
    phases: np.ndarray,
    omegas: np.ndarray,
    time: float,
    reward: float,
    quads: np.ndarray,
    tile_of_quad: np.ndarray,
    tile_colours: np.ndarray,
    pair_sums: np.ndarray,
    score_images: np.ndarray,
) -> np.ndarray:
    """Draws one frame.

    Args:
        bodies: the hull and the four wheels, see envs.bodies.
        phases, omegas: (4,) float64, angles and angular velocities of the wheels' turning, in radians and seconds.
        time: since the episode began, in seconds.
        reward: of the episode so far.
        quads: (Q, 4, 2) float64, corners of tiles and kerbs in world coordinates, in drawing order.
        tile_of_quad: (Q,) int64, the number of the tile, WHITE_KERB or RED_KERB.
        tile_colours: (tiles, 3) float64, grey levels; equal to those of tile 0 once a tile is visited.
        pair_sums: (256,) int64, made by pack_palette.
        score_images: (scores, 8, 8) uint8.

    Returns:
        (64, 64, 3) uint8, a new array.
    """
    state = gather_state(bodies, phases, omegas, time, reward)
    canvas = np.empty((CANVAS_H, CANVAS_W), np.uint8)
    spans = np.empty((CANVAS_H, 2))
    spans[:, 0] = np.inf
    spans[:, 1] = -np.inf
    corners = np.empty((8, 2))
    # The camera starts high above the track and comes down during the first second.
    zoom = 0.1 * SCALE * max(1 - state[TIME], 0) + ZOOM * SCALE * min(state[TIME], 1)
    draw_ground(canvas, spans, corners, state, zoom)
    draw_road(canvas, spans, corners, state, zoom, quads, tile_of_quad, tile_colours)
    draw_car(canvas, spans, corners, state, zoom)
    frame = average(canvas, pair_sums)
    draw_indicators(frame, state, pair_sums)
    paste_score(frame, score_images, state[REWARD])
    return frame
