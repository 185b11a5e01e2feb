"""Watch the agent drive, or drive yourself, in the real environment and in M's dream of it.

    python play.py --logdir exp_dir
    python play.py --logdir exp_dir --side-by-side --record dream.mp4

The window shows the frames that the agent sees. The keys stand below them: m lets you drive, tab goes on in a dream
from where reality is, and back. With --record there is no window.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pygame
import torch
from tqdm import tqdm

from envs.games import environment_kinds
from playing.playable import Playable, load_playable
from playing.session import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, Session, SingleView
from playing.side_by_side import DREAM_STEPS, SideBySide
from utils.commandline import ScriptParser, UserError, natural_int, positive_float, positive_int, run_script
from utils.run_folder import load_controller
from utils.video import open_film, video_file

NO_DISPLAY = "no display: use --record FILE, or xvfb-run"
INVISIBLE = ("dummy", "offscreen")  # what SDL falls back to where there is no display


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ScriptParser(__file__, __doc__)
    option = parser.add_argument
    option("--logdir", type=Path, required=True, help="run folder with V, and M and C if there are any")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--dream", action="store_true", help="begin in M's dream")
    shown.add_argument(
        "--side-by-side",
        action="store_true",
        help="show reality, what V keeps of it, and a dream with the same actions",
    )
    option("--dream-steps", type=positive_int, help=f"with --side-by-side: steps of a dream; without it, {DREAM_STEPS}")
    driver = parser.add_mutually_exclusive_group()
    driver.add_argument("--human", action="store_true", help="drive yourself from the first step on")
    driver.add_argument("--record", type=video_file, metavar="FILE", help="write a film (.gif or .mp4), with no window")
    option("--steps", type=positive_int, help="with --record: steps at most; without it, a whole episode")
    option("--temperature", type=positive_float, default=1.0, help="of the dream: the higher, the less certain it is")
    option("--env", choices=environment_kinds(), help="kind of the real environment; without it, the game's fastest")
    option("--seed", type=natural_int, default=0, help="seed of the first episode; the next has the next")
    args = parser.parse_args(argv)
    if not LOWEST_TEMPERATURE <= args.temperature <= HIGHEST_TEMPERATURE:
        parser.error(f"argument --temperature: not between {LOWEST_TEMPERATURE} and {HIGHEST_TEMPERATURE:g}")
    if args.steps and not args.record:
        parser.error("argument --steps: only with --record")
    if args.dream_steps and not args.side_by_side:
        parser.error("argument --dream-steps: only with --side-by-side")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    torch.set_num_threads(1)  # as in test_controller.py: the same steps, bit for bit
    if args.record:
        load_controller(args.logdir)  # raises UserError if there is none: nobody else drives in a film
    playable = load_playable(args.logdir, args.env, args.temperature)
    if args.dream and playable.dreamer is None:
        raise UserError(playable.why_no_dream)
    session: Session = (
        SideBySide(playable, args.seed, args.human, args.dream_steps or DREAM_STEPS)
        if args.side_by_side
        else SingleView(playable, args.seed, args.human, args.dream)
    )
    if args.record:
        record(session, playable, args.record, args.steps)
    else:
        show(session, playable)


def record(session: Session, playable: Playable, path: Path, steps: int | None) -> None:
    """Write a film of one episode, of so many steps at most."""
    limit = steps or playable.game.max_steps
    scene = session.scene
    with (
        open_film(path, playable.game.frames_per_second) as film,
        tqdm(desc="steps", total=limit, unit="step", disable=None) as progress,
    ):
        while scene.steps < limit and not scene.over:
            session.advance()
            film.add(session.picture)
            progress.update()
    print(f"recorded: seed {scene.seed}, {scene.steps} steps, return {scene.total_return:.1f}: {path}")


def show(session: Session, playable: Playable) -> None:
    """Play in a window until it is closed. Raises UserError if there is no display."""
    screen = open_window(session, playable)
    clock = pygame.time.Clock()
    try:
        while not session.closed:
            for event in pygame.event.get():
                if event.type == pygame.QUIT:
                    session.closed = True
                elif event.type in (pygame.KEYDOWN, pygame.KEYUP):
                    session.handle_key(pygame.key.name(event.key), event.type == pygame.KEYDOWN)
            pygame.surfarray.blit_array(screen, session.step().swapaxes(0, 1))
            pygame.display.flip()
            clock.tick(playable.game.frames_per_second)
    finally:
        pygame.display.quit()


def open_window(session: Session, playable: Playable) -> pygame.Surface:
    height, width, _ = session.picture().shape
    try:
        pygame.display.init()
        if pygame.display.get_driver() in INVISIBLE and not os.environ.get("SDL_VIDEODRIVER"):
            raise pygame.error
        screen = pygame.display.set_mode((width, height))
    except pygame.error:
        pygame.display.quit()
        raise UserError(NO_DISPLAY) from None
    pygame.display.set_caption(f"World Models: {playable.game.title}")
    return screen


if __name__ == "__main__":
    run_script(main)
