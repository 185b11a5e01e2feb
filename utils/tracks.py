"""Which track seeds serve which purpose, so that no score is of a track that was trained on, or chosen by.

| seeds                     | purpose                                                        |
|---------------------------|----------------------------------------------------------------|
| 0 to 99,999               | final tests (test_controller.py: --seed + 0, 1, 2, ...)        |
| 100,000 to 199,999        | selection: scoring the distribution mean while C is trained    |
| 1,000,000,000 and up      | rollouts on disk, for V and M                                  |
| 2,000,000,000 and up      | evolution: the tracks that candidates drive                    |
"""

import numpy as np

TEST_TRACKS = range(100_000)
SELECTION_TRACKS = range(100_000, 200_000)
_DATA = 1_000_000_000
_EVOLUTION = 2_000_000_000
_SPAN = 1_000_000_000


def data_track(seed: int, rollout: int) -> int:
    """The track of rollout number `rollout` of a dataset made with --seed `seed`."""
    return _DATA + _draw(seed, rollout, 1)[0]


def evolution_tracks(seed: int, generation: int, count: int) -> list[int]:
    """The tracks that a generation's candidates drive; new ones each generation."""
    return [_EVOLUTION + track for track in _draw(seed, generation, count)]


def selection_tracks(count: int) -> list[int]:
    """The fixed tracks on which the distribution mean is scored."""
    return list(SELECTION_TRACKS[:count])


def _draw(seed: int, index: int, count: int) -> list[int]:
    return np.random.default_rng([seed, index]).integers(_SPAN, size=count).tolist()
