"""The evolution of C: generations of episodes, each told to the search, and now and then a score of its mean."""

import math
import time

import numpy as np
from tqdm import tqdm

from evolution.gradient import PolicyGradient
from evolution.run import EvolutionRun
from evolution.search import Evolution, SearchSettings
from utils.commandline import UserError, uninterrupted
from utils.curves import draw_controller_curve
from utils.logs import CurveWriter
from utils.rollouts import Episode
from utils.tracks import evolution_tracks, selection_tracks
from utils.workers import Pool


def evolve(
    run: EvolutionRun,
    settings: SearchSettings,
    pool: Pool,
    eval_pool: Pool | None = None,
    generations: int | None = None,
    target: float = float("inf"),
    show_progress: bool = False,
) -> str:
    """Evolve until the mean reaches the target return, or so many generations are done in all; says which. With an
    eval_pool, the mean is scored there, too, for the curve alone."""
    with CurveWriter(run.folder, run.history) as curves:
        while not (finished := reason_to_stop(run, generations, target)):
            began = time.monotonic()
            generation = run.evolution.generation + 1
            if isinstance(run.evolution, PolicyGradient):
                row = run.evolution.practise()
            else:
                title = f"generation {generation}" if show_progress else None
                row = drive_generation(run.evolution, settings, pool, title)
            row["episodes"] += run.episodes
            if generation % settings.eval_every == 0 or generation == generations:
                title = "scoring the mean" if show_progress else None
                row |= score_mean(run, settings, pool, title)
                if eval_pool is not None:
                    scored = score_mean(run, settings, eval_pool, title)
                    row |= {f"eval_env/{name}": value for name, value in scored.items()}
            row["seconds"] = run.seconds + time.monotonic() - began
            with uninterrupted():
                curves.add_figures(row, generation)
                run.finish_generation(row)
                tqdm.write(f"{summary(generation, row)}, {time.monotonic() - began:.1f} s")
                if "return/mean" in row:
                    draw_controller_curve(run.history, run.folder / "curve.png")
    return finished


def reason_to_stop(run: EvolutionRun, generations: int | None, target: float) -> str | None:
    """Why there is no further generation to do, or None."""
    done = run.evolution.generation
    if run.best >= target:
        return f"target reached in generation {done}"
    if generations is not None and done >= generations:
        return f"{done} generations done"
    return None


def drive_generation(evolution: Evolution, settings: SearchSettings, pool: Pool, title: str | None) -> dict[str, float]:
    """Have every candidate drive its episodes and tell the search; returns the generation's figures."""
    generation = evolution.generation + 1
    candidates = evolution.ask()
    seeds = evolution_tracks(settings.seed, generation, settings.seeds)
    dealt = np.arange(settings.episodes) % settings.seeds  # which seed each episode has
    episodes = [
        Episode(candidates[i // settings.samples], seeds[seed], settings.patience) for i, seed in enumerate(dealt)
    ]
    returns, lengths = drive(pool, episodes, title)
    shape = (settings.population, settings.samples)
    # No candidate is to gain from an easy track: what counts is how much better it drove than the others there.
    ease = np.bincount(dealt, returns) / np.bincount(dealt)
    fitness = (returns - ease[dealt]).reshape(shape).mean(axis=1)
    evolution.tell(fitness - settings.weight_decay * (candidates**2).mean(axis=1))
    scores = returns.reshape(shape).mean(axis=1)
    return {
        "episodes": float(settings.episodes),
        "return/population": float(scores.mean()),
        "return/best": float(scores.max()),
        "return/worst": float(scores.min()),
        "return/spread": float(scores.std()),
        "length/mean": float(lengths.mean()),
        "sigma": evolution.sigma,
    }


def score_mean(run: EvolutionRun, settings: SearchSettings, pool: Pool, title: str | None) -> dict[str, float]:
    """Figures of the distribution's mean over the selection episodes."""
    mean = run.evolution.mean
    returns, lengths = drive(pool, [Episode(mean, seed) for seed in selection_tracks(settings.eval_episodes)], title)
    return {
        "return/mean": float(returns.mean()),
        "return/mean_spread": float(returns.std()),  # over the episodes
        "return/mean_error": float(returns.std() / len(returns) ** 0.5),
        "length/evaluation": float(lengths.mean()),
    }


def drive(pool: Pool, episodes: list[Episode], title: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the episodes, in their order; with a title, under a progress bar. Raises UserError if a
    return is not finite, before anything learns from it."""
    returns, lengths = np.zeros(len(episodes)), np.zeros(len(episodes))
    results = pool.run(episodes)
    for number, outcome in tqdm(results, title, len(episodes), leave=False, disable=title is None, unit="episode"):
        returns[number], lengths[number] = outcome.total_return, outcome.length
    for episode, total_return in zip(episodes, returns, strict=True):
        if not math.isfinite(total_return):
            raise UserError(
                f"the episode of seed {episode.seed} returned {total_return}: V or M has diverged; train it again with "
                "--noreload and a smaller --learning-rate"
            )
    return returns, lengths


def summary(generation: int, row: dict[str, float]) -> str:
    """A generation in a line."""
    words = f"generation {generation}: "
    if "dream/ends" in row:
        words += f"reward of a step {row['dream/reward']:.2f}, {1000 * row['dream/ends']:.2f} ends in 1,000 steps"
    else:
        words += f"population {row['return/population']:.1f} +- {row['return/spread']:.1f}"
    if "return/mean" in row:
        mean, error = row["return/mean"], row["return/mean_error"]
        words += f", mean of the distribution {mean:.1f} +- {error:.1f} (standard error)"
    if "eval_env/return/mean" in row:
        mean, error = row["eval_env/return/mean"], row["eval_env/return/mean_error"]
        words += f", in the --eval-env {mean:.1f} +- {error:.1f}"
    return words
