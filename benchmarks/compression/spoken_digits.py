"""Spoken digits as small networks hear them: ten cepstral coefficients of 49 frames of a second.

The shape is that of keyword spotting in MLPerf Tiny, at the 8,000 samples a second of the Free Spoken Digit Dataset. Of
each speaker and digit every other recording is for testing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.places import data_file

FRAMES, COEFFICIENTS = 49, 10
_RATE = 8_000
_FRAME, _HOP = 320, 160  # 40 and 20 ms
_BANDS, _BINS = 40, 512
_LOWEST_HZ = 20.0
_QUIETEST = 1e-6
_COPIES = 8
_SEED = 20261122

Clips = NDArray[np.float32]


def spoken_digits(copies: int = _COPIES) -> dict[str, NDArray[Any]]:
    """Return ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Args:
        copies: How often each recording for training comes, at other times within its second and at other loudness.
    """
    with np.load(data_file("fsdd.npz")) as data:
        cuts = np.cumsum(data["length"])[:-1]
        recordings = np.split(data["audio_int16"].astype(np.float32) / 2**15, cuts)
        digits, speakers = data["y"].astype(np.int64), data["speaker"]
    is_test = _every_other(digits, speakers)
    random = np.random.default_rng(_SEED)
    taught = random.permutation(np.repeat(np.flatnonzero(~is_test), copies))
    heard = np.flatnonzero(is_test)
    return {
        "x_train": cepstra(np.stack([_at_random(recordings[i], random) for i in taught])),
        "y_train": digits[taught],
        "x_test": cepstra(np.stack([_in_the_middle(recordings[i]) for i in heard])),
        "y_test": digits[heard],
    }


def cepstra(clips: Clips) -> Clips:
    """Return mel-frequency cepstral coefficients.

    Args:
        clips: Samples from −1 to 1; (clips, 8000).

    Returns:
        (clips, 49, 10, 1).

    References:
        Davis, Mermelstein, *Comparison of parametric representations for monosyllabic word recognition in continuously
        spoken sentences*, 1980.
    """
    from scipy.fft import dct

    frames = np.lib.stride_tricks.sliding_window_view(clips, _FRAME, axis=-1)[:, ::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_FRAME), _BINS)) ** 2
    loudness = np.log(power @ _mel_bands().T + _QUIETEST)
    return dct(loudness, norm="ortho")[..., :COEFFICIENTS, None].astype(np.float32)


def _mel_bands() -> NDArray[np.float64]:
    """Return triangles that are equally wide in mels; (bands, frequencies)."""
    ends = _mel(np.array([_LOWEST_HZ, _RATE / 2]))
    corners = np.linspace(*ends, _BANDS + 2)
    places = _mel(np.fft.rfftfreq(_BINS, 1 / _RATE))
    rising = (places - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - places) / np.diff(corners)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2595 * np.log10(1 + hertz / 700)


def _every_other(digits: NDArray[Any], speakers: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each recording whether it has an odd number among those of its speaker and digit."""
    is_odd = np.zeros(len(digits), np.bool_)
    for digit in np.unique(digits):
        for speaker in np.unique(speakers):
            is_odd[np.flatnonzero((digits == digit) & (speakers == speaker))[1::2]] = True
    return is_odd


def _in_the_middle(recording: Clips) -> Clips:
    recording = recording[:_RATE]
    before = (_RATE - len(recording)) // 2
    return np.pad(recording, (before, _RATE - len(recording) - before))


def _at_random(recording: Clips, random: np.random.Generator) -> Clips:
    recording = recording[:_RATE] * np.float32(random.uniform(0.5, 1.5))
    before = int(random.integers(0, _RATE - len(recording) + 1))
    clip = np.pad(recording, (before, _RATE - len(recording) - before))
    return clip + random.normal(0, 0.001, _RATE).astype(np.float32)
