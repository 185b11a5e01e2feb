"""Compiled drawing of one CarRacing frame, straight to 64x64.

Gymnasium draws 1000x800 pixels with pygame, shrinks them to 96x96, and the project shrinks that to 64x64.
Here the same polygons are filled on a canvas of palette indices with a few samples for each of the 96x96 cells.
Cells are then averaged to the 64x64 frame with the weights that the two shrinkings have together.

Coordinates:
    world    metres of the track, as in Box2D
    surface  pixels of Gymnasium's 1000x800 drawing, y down, pixel centres at integers
    canvas   samples, y down, sample centres at integers

All functions here are compiled together on first use and kept in numba's cache on disk.
They stand in one file because numba does not notice when a cached function's callee changes in another one.
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
    WINDOW_H,
    WINDOW_W,
    ZOOM,
)
from numba import njit

FRAME_SIZE = 64

# Samples for each of the 96x96 cells. Four bytes across are one 32-bit word, so that a cell is quick to compare.
SAMPLES_X, SAMPLES_Y = 4, 2
CANVAS_W, CANVAS_H = STATE_W * SAMPLES_X, STATE_H * SAMPLES_Y
STEP_X, STEP_Y = WINDOW_W / CANVAS_W, WINDOW_H / CANVAS_H  # surface pixels from one sample to the next

# The black panel with the indicators covers the lowest eighth: exactly 12 of 96 cells and 8 of 64 frame rows.
PANEL_TOP = CANVAS_H * 7 // 8
FRAME_PANEL_TOP = FRAME_SIZE * 7 // 8

# Palette indices.
(
    BLACK, BACKGROUND, GRASS, ROAD_0, ROAD_1, ROAD_2, WHITE, KERB_RED,
    TYRE_STRIPE, HULL, BLUE, PURPLE, GREEN, RED, PALETTE_SIZE,
) = range(15)  # fmt: skip

# What a renderer reads of the car at each step: the layout of the vector `state` of draw_frame.
(
    HULL_X, HULL_Y, HULL_ANGLE, TIME, SPEED, SPIN, REWARD, ROAD_RED,
    WHEEL_ANGLE, WHEEL_PHASE, WHEEL_OMEGA, STATE_SIZE,
) = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20)  # fmt: skip

# pygame fills a polygon including its border pixels: half a pixel more on each side than its outline.
# Gymnasium strokes road and grass with an anti-aliased line on top of that.
PLAIN_BORDER = 0.5
STROKED_BORDER = 0.75

HULL_POLYGONS = (
    np.array(car_dynamics.HULL_POLY1) * car_dynamics.SIZE,
    np.array(car_dynamics.HULL_POLY2) * car_dynamics.SIZE,
    np.array(car_dynamics.HULL_POLY3) * car_dynamics.SIZE,
    np.array(car_dynamics.HULL_POLY4) * car_dynamics.SIZE,
)
WHEEL_CENTRES = np.array(car_dynamics.WHEELPOS) * car_dynamics.SIZE
WHEEL_HALF_WIDTH = car_dynamics.WHEEL_W * car_dynamics.SIZE
WHEEL_RADIUS = car_dynamics.WHEEL_R * car_dynamics.SIZE

# Colours are summed with their channels side by side in one integer. A channel is a fixed-point number, scaled so that
# the weights of a block (9 cells of samples) add up to 1 << LEVEL_BITS: no division is needed.
CHANNEL_BITS = 21
LEVEL_BITS = 13
HALF_LEVEL = sum(1 << (CHANNEL_BITS * channel + LEVEL_BITS - 1) for channel in range(3))
LEVEL = (1 << LEVEL_BITS) / (9 * SAMPLES_X * SAMPLES_Y)  # of one sample

PATCH_PERIOD = 2 * GRASS_DIM  # grass patches are every other square, in both directions
PATCHES = 10  # on each side of the origin


@njit(cache=True)
def set_corner(corners, i, x, y):
    """Puts surface point (x, y up, as drawn before Gymnasium's vertical flip) into corner i, in canvas coordinates.

    pygame truncates the points of a polygon to whole pixels; so does this.
    """
    corners[i, 0] = (math.trunc(x) + 0.5) / STEP_X - 0.5
    corners[i, 1] = (WINDOW_H - 1 - math.trunc(y) + 0.5) / STEP_Y - 0.5


@njit(cache=True)
def fill_convex(canvas, spans, corners, count, colour, border):
    """Fills a convex polygon above the panel.

    canvas: (CANVAS_H, CANVAS_W) uint8 of palette indices, written to.
    spans: (CANVAS_H, 2) float64 work space holding (+inf, -inf) in each row, before and after.
    corners: (>= count, 2) float64, canvas coordinates.
    border: how far the fill reaches beyond the corners, in surface pixels.
    """
    colour = np.uint8(colour)
    grow_x, grow_y = border / STEP_X, border / STEP_Y
    left = right = corners[0, 0]
    low = high = corners[0, 1]
    for i in range(1, count):
        left, right = min(left, corners[i, 0]), max(right, corners[i, 0])
        low, high = min(low, corners[i, 1]), max(high, corners[i, 1])
    first = max(0, math.ceil(low - grow_y))
    last = min(PANEL_TOP - 1, math.floor(high + grow_y))
    if first > last or right + grow_x < 0 or left - grow_x > CANVAS_W - 1:
        return

    for i in range(count):
        x1, y1 = corners[i - 1 if i else count - 1]
        x2, y2 = corners[i]
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        slope = (x2 - x1) / (y2 - y1) if y2 > y1 else 0.0
        if y1 == y2:  # an edge along a row: both of its ends count
            x1, x2 = min(x1, x2), max(x1, x2)
        for row in range(max(first, math.ceil(y1 - grow_y)), min(last, math.floor(y2 + grow_y)) + 1):
            if y1 == y2:
                spans[row, 0] = min(spans[row, 0], x1)
                spans[row, 1] = max(spans[row, 1], x2)
            else:
                x = x1 + (min(max(row, y1), y2) - y1) * slope
                spans[row, 0] = min(spans[row, 0], x)
                spans[row, 1] = max(spans[row, 1], x)

    for row in range(first, last + 1):
        begin = max(0, math.ceil(spans[row, 0] - grow_x))
        end = max(begin, min(CANVAS_W, math.floor(spans[row, 1] + grow_x) + 1))
        canvas[row, begin:end].fill(colour)
        spans[row, 0] = np.inf
        spans[row, 1] = -np.inf


@njit(cache=True)
def fill_rectangle(canvas, x1, y1, x2, y2, colour):
    """Fills the upright rectangle between two opposite corners in surface coordinates, border pixels included."""
    x1, x2, y1, y2 = math.trunc(x1), math.trunc(x2), math.trunc(y1), math.trunc(y2)
    left, right = min(x1, x2) - PLAIN_BORDER, max(x1, x2) + PLAIN_BORDER
    top, bottom = min(y1, y2) - PLAIN_BORDER, max(y1, y2) + PLAIN_BORDER
    first = max(PANEL_TOP, math.ceil((top + 0.5) / STEP_Y - 0.5))
    last = min(CANVAS_H - 1, math.floor((bottom + 0.5) / STEP_Y - 0.5))
    begin = max(0, math.ceil((left + 0.5) / STEP_X - 0.5))
    end = min(CANVAS_W - 1, math.floor((right + 0.5) / STEP_X - 0.5))
    for row in range(first, last + 1):
        for column in range(begin, end + 1):
            canvas[row, column] = colour


@njit(cache=True)
def draw_ground(canvas, spans, corners, state, zoom):
    """Draws the playfield and those of its grass patches that can be seen."""
    cos, sin = zoom * math.cos(state[HULL_ANGLE]), zoom * math.sin(state[HULL_ANGLE])
    hull_x, hull_y = state[HULL_X], state[HULL_Y]

    def place(i, x, y):
        x, y = x - hull_x, y - hull_y
        set_corner(corners, i, WINDOW_W / 2 + cos * x + sin * y, WINDOW_H / 4 + cos * y - sin * x)

    place(0, PLAYFIELD, PLAYFIELD)
    place(1, PLAYFIELD, -PLAYFIELD)
    place(2, -PLAYFIELD, -PLAYFIELD)
    place(3, -PLAYFIELD, PLAYFIELD)
    fill_convex(canvas, spans, corners, 4, BACKGROUND, STROKED_BORDER)

    reach = math.hypot(WINDOW_W / 2, WINDOW_H * 3 / 4) / zoom  # from the hull to the farthest corner of the view
    first_x = max(-PATCHES, math.floor((hull_x - reach) / PATCH_PERIOD))
    last_x = min(PATCHES - 1, math.floor((hull_x + reach) / PATCH_PERIOD))
    first_y = max(-PATCHES, math.floor((hull_y - reach) / PATCH_PERIOD))
    last_y = min(PATCHES - 1, math.floor((hull_y + reach) / PATCH_PERIOD))
    for column in range(first_x, last_x + 1):
        for row in range(first_y, last_y + 1):
            x, y = column * PATCH_PERIOD, row * PATCH_PERIOD
            place(0, x, y)
            place(1, x + GRASS_DIM, y)
            place(2, x + GRASS_DIM, y + GRASS_DIM)
            place(3, x, y + GRASS_DIM)
            fill_convex(canvas, spans, corners, 4, GRASS, STROKED_BORDER)


@njit(cache=True)
def draw_road(canvas, spans, corners, state, zoom, quads, quad_colours, tile_colours, tile_of_quad):
    """Draws those tiles and kerbs that can be seen, in the track's order."""
    cos, sin = zoom * math.cos(state[HULL_ANGLE]), zoom * math.sin(state[HULL_ANGLE])
    reach = math.hypot(WINDOW_W / 2, WINDOW_H * 3 / 4) / zoom + 10.0
    for q in range(len(quads)):
        x, y = quads[q, 0, 0] - state[HULL_X], quads[q, 0, 1] - state[HULL_Y]
        if x * x + y * y > reach * reach:
            continue
        colour = quad_colours[q]
        tile = tile_of_quad[q]
        if tile >= 0 and tile_colours[tile, 0] == state[ROAD_RED]:
            colour = ROAD_0
        for i in range(4):
            x, y = quads[q, i, 0] - state[HULL_X], quads[q, i, 1] - state[HULL_Y]
            set_corner(corners, i, WINDOW_W / 2 + cos * x + sin * y, WINDOW_H / 4 + cos * y - sin * x)
        fill_convex(canvas, spans, corners, 4, colour, STROKED_BORDER)


@njit(cache=True)
def draw_car(canvas, spans, corners, state, zoom):
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
        for y1, y2, colour in ((-1.0, 1.0, BLACK), (end_1, end_2, TYRE_STRIPE)):
            if colour == TYRE_STRIPE and hidden_1 and hidden_2:
                continue
            for i in range(4):
                x = WHEEL_HALF_WIDTH if i == 1 or i == 2 else -WHEEL_HALF_WIDTH
                y = WHEEL_RADIUS * (y1 if i < 2 else y2)
                set_corner(corners, i, centre_x + cos * x - sin * y, centre_y + sin * x + cos * y)
            fill_convex(canvas, spans, corners, 4, colour, PLAIN_BORDER)

    for polygon in HULL_POLYGONS:
        for i in range(len(polygon)):
            set_corner(
                corners, i, WINDOW_W / 2 + zoom * polygon[i, 0], WINDOW_H / 4 + zoom * polygon[i, 1]
            )
        fill_convex(canvas, spans, corners, len(polygon), HULL, PLAIN_BORDER)


@njit(cache=True)
def draw_indicators(canvas, state):
    """Draws the bars of the panel: speed, four ABS sensors, steering, gyroscope."""
    s, h = WINDOW_W / 40, WINDOW_H / 40
    for bar in range(5):
        value = state[SPEED] if bar == 0 else state[WHEEL_OMEGA + bar - 1]
        if abs(value) > 1e-4:
            place = 5 if bar == 0 else 6 + bar
            scale = 0.02 if bar == 0 else 0.01
            colour = WHITE if bar == 0 else (BLUE if bar < 3 else PURPLE)
            top = WINDOW_H - (h + h * scale * value)
            fill_rectangle(canvas, place * s, top, (place + 1) * s, WINDOW_H - h, colour)
    if abs(state[WHEEL_ANGLE]) > 1e-4:
        end = (20 - 10.0 * state[WHEEL_ANGLE]) * s
        fill_rectangle(canvas, 20 * s, WINDOW_H - 4 * h, end, WINDOW_H - 2 * h, GREEN)
    if abs(state[SPIN]) > 1e-4:
        end = (30 - 0.8 * state[SPIN]) * s
        fill_rectangle(canvas, 30 * s, WINDOW_H - 4 * h, end, WINDOW_H - 2 * h, RED)


@njit(cache=True)
def write_pixel(frame, y, x, packed):
    """Writes a packed weighted sum of colours as one pixel of the frame, rounded to the nearest grey level."""
    packed += HALF_LEVEL
    frame[y, x, 0] = packed >> LEVEL_BITS
    frame[y, x, 1] = packed >> (CHANNEL_BITS + LEVEL_BITS)
    frame[y, x, 2] = packed >> (2 * CHANNEL_BITS + LEVEL_BITS)


@njit(cache=True)
def sum_cell(canvas, palette, y, x):
    """Adds up the packed colours of one cell's samples."""
    total = 0
    for row in range(SAMPLES_Y):
        for column in range(SAMPLES_X):
            total += palette[canvas[y * SAMPLES_Y + row, x * SAMPLES_X + column]]
    return total


@njit(cache=True)
def average(canvas, palette):
    """Shrinks the canvas to a new (64, 64, 3) uint8 frame.

    palette: (PALETTE_SIZE,) int64, see pack_palette.

    A block of 3x3 cells becomes 2x2 pixels: each is a whole corner cell, half of two others, a quarter of the middle.
    Most blocks have one colour and need no averaging.
    """
    pairs = np.empty((FRAME_SIZE, FRAME_SIZE // 2 * 3), np.uint16)  # two equal pixels are three 16-bit stores
    frame = pairs.view(np.uint8).reshape((FRAME_SIZE, FRAME_SIZE, 3))
    words = canvas.view(np.uint32)  # one word: one row of samples of a cell
    differs = np.empty(STATE_W, np.uint32)
    for block_y in range(FRAME_SIZE // 2):
        top, y = 3 * block_y, 2 * block_y
        first_row = words[top * SAMPLES_Y]
        differs[:] = 0
        for row in range(top * SAMPLES_Y + 1, (top + 3) * SAMPLES_Y):
            for column in range(STATE_W):
                differs[column] |= words[row, column] ^ first_row[column]
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
                packed = palette[index] * (9 * SAMPLES_X * SAMPLES_Y) + HALF_LEVEL
                red = packed >> LEVEL_BITS & 0xFF
                green = packed >> CHANNEL_BITS + LEVEL_BITS & 0xFF
                blue = packed >> 2 * CHANNEL_BITS + LEVEL_BITS & 0xFF
                for i in range(2):
                    pairs[y + i, 3 * block_x] = red | green << 8
                    pairs[y + i, 3 * block_x + 1] = blue | red << 8
                    pairs[y + i, 3 * block_x + 2] = green | blue << 8
                continue
            middle = sum_cell(canvas, palette, top + 1, left + 1)
            north = 2 * sum_cell(canvas, palette, top, left + 1) + middle
            south = 2 * sum_cell(canvas, palette, top + 2, left + 1) + middle
            west = 2 * sum_cell(canvas, palette, top + 1, left)
            east = 2 * sum_cell(canvas, palette, top + 1, left + 2)
            write_pixel(frame, y, x, 4 * sum_cell(canvas, palette, top, left) + north + west)
            write_pixel(frame, y, x + 1, 4 * sum_cell(canvas, palette, top, left + 2) + north + east)
            write_pixel(frame, y + 1, x, 4 * sum_cell(canvas, palette, top + 2, left) + south + west)
            write_pixel(frame, y + 1, x + 1, 4 * sum_cell(canvas, palette, top + 2, left + 2) + south + east)
    return frame


@njit(cache=True)
def draw_frame(state, quads, quad_colours, tile_of_quad, tile_colours, palette, score):
    """Draws one frame; returns (64, 64, 3) uint8."""
    canvas = np.zeros((CANVAS_H, CANVAS_W), np.uint8)
    spans = np.empty((PANEL_TOP, 2))
    spans[:, 0] = np.inf
    spans[:, 1] = -np.inf
    corners = np.empty((8, 2))
    # The camera starts high above the track and comes down during the first second.
    zoom = 0.1 * SCALE * max(1 - state[TIME], 0) + ZOOM * SCALE * min(state[TIME], 1)
    draw_ground(canvas, spans, corners, state, zoom)
    draw_road(canvas, spans, corners, state, zoom, quads, quad_colours, tile_colours, tile_of_quad)
    draw_car(canvas, spans, corners, state, zoom)
    draw_indicators(canvas, state)
    frame = average(canvas, palette)
    frame[FRAME_PANEL_TOP:, : score.shape[1]] = score
    return frame
