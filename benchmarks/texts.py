"""AG News as token ids: the text set that the transformer and the LSTM are trained on.

The tokenization is as plain as it can be: lower-cased words, without punctuation, numbered by how
often the training texts use them. Texts are padded in front, as Keras' ``pad_sequences`` does, so
that an LSTM ends on words rather than on padding.
"""

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.places import data_file

SEQUENCE = 128
VOCABULARY = 10_000
CLASSES = ("Business", "Sci/Tech", "Sports", "World")
_PADDING, _UNKNOWN, _FIRST_WORD = 0, 1, 2
_EVALUATE = 2_000
_SEED = 20261120
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Texts:
    """Token ids of shape ``(texts, SEQUENCE)`` and the class of each text."""

    x_train: NDArray[np.int32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.int32]
    y_test: NDArray[np.int64]


def load_texts() -> Texts:
    """Read AG News, hold 2,000 texts out by seed, and number the words of the rest."""
    with gzip.open(data_file("agnews_dev.tsv.gz"), "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    words = [_WORD.findall(text.lower()) for text, _ in rows]
    labels = np.array([CLASSES.index(label) for _, label in rows], dtype=np.int64)
    order = np.random.default_rng(_SEED).permutation(len(rows))
    test, train = order[:_EVALUATE], order[_EVALUATE:]
    numbers = _number_words([words[i] for i in train])
    ids = np.stack([_encode(text, numbers) for text in words])
    return Texts(ids[train], labels[train], ids[test], labels[test])


def _number_words(texts: Sequence[Sequence[str]]) -> dict[str, int]:
    counts = Counter(word for text in texts for word in text)
    # Ties are broken by spelling, so that the numbering does not depend on the order of texts.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: i + _FIRST_WORD for i, word in enumerate(ranked[: VOCABULARY - _FIRST_WORD])}


def _encode(text: Sequence[str], numbers: dict[str, int]) -> NDArray[np.int32]:
    ids = [numbers.get(word, _UNKNOWN) for word in text[:SEQUENCE]]
    return np.array([_PADDING] * (SEQUENCE - len(ids)) + ids, dtype=np.int32)
