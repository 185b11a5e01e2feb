"""Pictures for people, (H, W, 3) uint8: frames enlarged without blur, and text beside them. No display is needed."""

import functools
from collections.abc import Sequence

import numpy as np
import pygame

Colour = tuple[int, int, int]
BACKGROUND, PLAIN, FAINT, ALERT = (24, 24, 28), (235, 235, 235), (160, 160, 165), (255, 190, 70)
FONT_SIZE = 20
LINE = 20  # height of a line of text
MARGIN = 6  # left of the text
CUT = " ..."  # after a text that is too long
GAP = 8  # between columns, and above text


@functools.cache
def _font() -> pygame.font.Font:
    pygame.font.init()
    return pygame.font.Font(None, FONT_SIZE)  # pygame's own, which is everywhere the same


def enlarge(frame: np.ndarray, factor: int) -> np.ndarray:
    """A frame (H, W, 3) as (factor * H, factor * W, 3)."""
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def columns(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of the same height, beside each other."""
    between = np.full((len(pictures[0]), GAP, 3), BACKGROUND, np.uint8)
    return np.hstack([part for picture in pictures for part in (between, picture)][1:])


def gap(width: int) -> np.ndarray:
    """Nothing, between two blocks: (GAP, width, 3)."""
    return np.full((GAP, width, 3), BACKGROUND, np.uint8)


def table(rows: Sequence[Sequence[str]], width: int, colour: Colour = PLAIN) -> np.ndarray:
    """Lines of text, whose cells stand in columns of the same width: (LINE * rows, width, 3)."""
    picture = pygame.Surface((width, LINE * len(rows)))
    picture.fill(BACKGROUND)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            text = _font().render(cell, True, colour)
            place = (MARGIN + j * (width - MARGIN) // len(row), i * LINE + (LINE - text.get_height()) // 2)
            picture.blit(text, place)
    return pygame.surfarray.array3d(picture).swapaxes(0, 1)


def paragraph(text: str, width: int, lines: int, colour: Colour) -> np.ndarray:
    """A text broken into lines, and cut where it is too long: (LINE * lines, width, 3)."""
    rows = wrap(text, width - 2 * MARGIN - _font().size(CUT)[0])
    if len(rows) > lines:
        rows[lines - 1] += CUT
    return table([[row] for row in (rows + [""] * lines)[:lines]], width, colour)


def wrap(text: str, width: int) -> list[str]:
    """The words of a text, distributed to lines of so many pixels; a word that is longer has a line of its own."""
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and _font().size(longer)[0] > width:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows
