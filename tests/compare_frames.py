"""Compares the frames of the two environments: prints how far they are apart and draws them side by side.

    python tests/compare_frames.py

prints the mean absolute error (grey levels of 255) over whole episodes of several drivers, first 50 zooming frames
included, and writes docs/images/fast_vs_gymnasium.png: Gymnasium's frame, the fast one, 8 times their difference.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the script's own folder is there, not the project's

from scripted_drivers import drive_away, drive_brownian, drive_randomly, drive_well

from envs import make_env
from utils.commandline import ScriptParser, positive_int, run_script

PICTURE = Path(__file__).parent.parent / "docs/images/fast_vs_gymnasium.png"
POLICIES = {"random": drive_randomly, "brownian": drive_brownian, "good": drive_well, "away": drive_away}

# Columns of the picture: title, policy, seed, step.
MOMENTS = (
    ("start", "good", 1, 0),
    ("zoom, step 25", "good", 1, 25),
    ("step 50", "good", 1, 50),
    ("kerbs", "good", 1, 361),
    ("corner", "good", 3, 557),
    ("lap complete", "good", 3, 925),
    ("grass", "brownian", 4, 350),
    ("spin", "random", 0, 569),
    ("playfield's edge", "away", 0, 265),
)
ENLARGED = 3  # screen pixels for one frame pixel
TITLE_HEIGHT = 14


def frame_pairs(policy: str, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Drives through one episode; yields Gymnasium's and the fast frame of each step, as integers."""
    reference, fast = make_env("gymnasium"), make_env("fast")
    expected, frame = reference.reset(seed=seed)[0], fast.reset(seed=seed)[0]
    yield expected.astype(int), frame.astype(int)
    for action in POLICIES[policy](fast, np.random.default_rng(seed)):
        expected = reference.step(action)[0]
        frame, _, terminated, truncated, _ = fast.step(action)
        yield expected.astype(int), frame.astype(int)
        if terminated or truncated:
            return


def draw_moments() -> Image.Image:
    """Returns the side-by-side picture."""
    size = 64 * ENLARGED
    picture = Image.new("RGB", (len(MOMENTS) * size, TITLE_HEIGHT + 3 * size))
    for column, (title, policy, seed, moment) in enumerate(MOMENTS):
        ImageDraw.Draw(picture).text((column * size + 4, 1), title)
        expected, frame = next(islice(frame_pairs(policy, seed), moment, None))
        for row, image in enumerate((expected, frame, np.minimum(8 * np.abs(frame - expected), 255))):
            enlarged = Image.fromarray(image.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
            picture.paste(enlarged, (column * size, TITLE_HEIGHT + row * size))
    return picture


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--episodes", type=positive_int, default=2, help="episodes for each driver")
    arguments = parser.parse_args(argv)

    print(f"{'driver':<10}{'frames':>8}{'mean':>8}{'first 50':>10}{'worst frame':>13}{'bias':>8}")
    for policy in POLICIES:
        episodes = [
            [frame - expected for expected, frame in frame_pairs(policy, seed)] for seed in range(arguments.episodes)
        ]
        zooming = np.abs([episode[:50] for episode in episodes]).mean()
        differences = np.concatenate(episodes)
        errors = np.abs(differences).mean(axis=(1, 2, 3))
        print(
            f"{policy:<10}{len(errors):>8}{errors.mean():>8.3f}{zooming:>10.3f}"
            f"{errors.max():>13.3f}{differences.mean():>8.3f}"
        )
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    draw_moments().save(PICTURE)
    print(f"wrote {PICTURE.relative_to(PICTURE.parent.parent.parent)}")


if __name__ == "__main__":
    run_script(main)
