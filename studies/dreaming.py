"""What the studies share in which C evolves in M's dream."""

from dataclasses import replace
from pathlib import Path

from envs.dream import DreamSettings
from envs.games import Game
from evolution.search import SearchSettings
from models.sizes import Sizes
from traincontroller import dreams_of, parse_arguments, settings_of
from utils.run_folder import load_game


def as_preset(logdir: Path, *options: object) -> tuple[Game, Sizes, SearchSettings, DreamSettings]:
    """The game of a run folder, C's sizes, its search and its dreams, as presets/dream says, but for these options of
    traincontroller.py."""
    args = parse_arguments(["@presets/dream", "--logdir", str(logdir), *map(str, options)])
    game, sizes = load_game(logdir)
    settings = replace(settings_of(args), patience=game.patience)
    return game, replace(sizes, inputs=args.inputs), settings, dreams_of(args)
