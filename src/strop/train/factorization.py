"""Low-rank factorization: layers of a live Keras model written as several that together have less to multiply.

What comes of it is a new model of Keras' own layers: `strop.train.factors` says what a layer becomes,
`strop.train.rebuilding` puts that into its place. Here ranks are chosen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ParameterError, message
from strop.core.samples import Samples
from strop.core.signature import Signature
from strop.numerics.low_rank import Floats, keeps, within_budget
from strop.train.exclusions import Exclusion
from strop.train.factors import KINDS, Factors, Ranks, Way, spelled, ways
from strop.train.kernels import kernels_of
from strop.train.lessons import answers_of
from strop.train.losses import distillation_loss, kind_of
from strop.train.rebuilding import Copy, copied, rebuilt

Error = Callable[[Any], float]
_PROBED = (0.25, 0.5, 0.75)  # of a layer's multiply-accumulates: where its sensitivity is measured
_LEAST_LOST = 1e-9  # where less of the energy is lost, what that does to the answers is rounding
_WORST = 1e30  # what no answers cost that are no numbers; finite, so that nothing lost still costs nothing


@dataclass(frozen=True)
class Factorized:
    """What factorization made of a model.

    Attributes:
        model: The new model, compiled as the one given was.
        layers: What became of each layer that was factored, by its name.
        left_alone: The layers with weights that were not, with the reason.
    """

    model: Any
    layers: Mapping[str, Factors]
    left_alone: Mapping[str, str]


def factorize(
    model: Any,
    energy: float = 0.9,
    *,
    macs: float | None = None,
    kind: str = "tucker",
    exclude: Sequence[Exclusion] = (),
    margin: float | None = None,
    error_of: Error | None = None,
) -> Factorized:
    """Return a new model in which Dense, Embedding and convolutional layers are their factors, where that pays.

    Ranks are the cheapest that keep `energy` of each layer; or, where `macs` is given, those that together come to
    that share of the multiply-accumulates and lose least. Frozen layers are left alone, and so are those that code of
    other layers calls, and those that share their kernel with another.

    What pays is counted and not measured, so that the same model always becomes the same: where a layer saves so many
    multiply-accumulates, and weights, as made up for the calls of more layers when that was measured.

    An Embedding has products only once it is factored: it pays by its weights alone, and never under a budget.

    Args:
        model: A built Functional or Sequential model; it stays as it is.
        energy: The share of each kernel's energy to keep, in (0, 1].
        macs: The share of multiply-accumulates that the layers that could be factored may have left, in (0, 1].
        kind: What convolutions become. ``tucker``: one of size 1, one of the kernel's size, and one of size 1, without
            those at either end that would save nothing; ``channel``: one of the kernel's size, and one of size 1;
            ``spatial``: one along the first axis, and one along the others.
        exclude: Layers to leave alone, as in `strop.train.kernels.kernels_of`.
        margin: The share of its multiply-accumulates and of its weights that a layer has to save, in [0, 1); None for a
            third in convolutions, and a tenth in others.
        error_of: Tells how wrong a model is, more being worse; see `errors_against`. Under a budget it is asked of a
            copy of the model what each layer's factors cost by themselves, at three ranks; what the others cost is
            drawn from that. Without it the same share of energy is worth the same in all layers.

    Raises:
        ParameterError: If an argument is out of its range, the budget can't be met, or multiply-accumulates can't be
            counted.
        ModelError: If the model is not built, or is neither Functional nor Sequential, or a layer can't be copied.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
    """
    mistakes = _mistakes(energy, macs, kind, margin)
    if mistakes:
        raise ParameterError("\n".join(mistakes))
    kernels, left = kernels_of(model, exclude)
    copy = copied(model)
    found, unsuited = ways(kernels, copy.uses, kind, margin)
    if macs is None:
        chosen, unpaid = _by_energy(found, energy)
    else:
        chosen, unpaid = _by_budget(
            found, macs, _Sensitivity(copy, error_of) if error_of else None
        )
    made = rebuilt(model, _rows(copy, {name: (found[name], chosen[name]) for name in chosen}))
    layers = {name: found[name].factors(ranks) for name, ranks in chosen.items()}
    return Factorized(made, layers, {**left, **unsuited, **unpaid})


def errors_against(model: Any, samples: Samples, signature: Signature) -> Error:
    """Return the function that tells how far a model's answers are from those of `model`.

    It sums over the outputs what `strop.train.losses.distillation_loss` says, and needs no targets.

    Args:
        model: A built `keras.Model`.
        samples: What both are asked; some hundreds do.
        signature: That of both.
    """
    wanted = answers_of(model, samples, signature)
    kinds = [
        kind_of(answers, samples.targets.get(name))
        for name, answers in zip(signature.output_names, wanted, strict=True)
    ]

    def error(other: Any) -> float:
        given = answers_of(other, samples, signature)
        return sum(
            float(distillation_loss(kind, _single(mine), _single(theirs)))
            for kind, mine, theirs in zip(kinds, given, wanted, strict=True)
        )

    return error


def _single(answers: NDArray[Any]) -> Any:
    return keras.ops.convert_to_tensor(answers.astype(np.float32))


def _mistakes(energy: float, macs: float | None, kind: str, margin: float | None) -> list[str]:
    found = []
    if not 0 < energy <= 1:
        found.append(f"energy must lie in (0, 1], not {energy!r}")
    if macs is not None and not 0 < macs <= 1:
        found.append(f"macs must lie in (0, 1], not {macs!r}")
    if kind not in KINDS:
        found.append(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    if margin is not None and not 0 <= margin < 1:
        found.append(f"margin must lie in [0, 1), not {margin!r}")
    return found


def _rows(copy: Copy, chosen: Mapping[str, tuple[Way, Ranks]]) -> dict[int, Any]:
    """Return the layers that stand for others, by the `id` of these; no name is given twice."""
    taken = {use.layer.name for use in copy.uses}
    rows = {}
    for way, ranks in chosen.values():
        names = (f"{way.layer.name}_factor{number}" for number in itertools.count(1))
        rows[id(way.layer)] = way.row(ranks, _untaken(names, taken))
    return rows


def _untaken(names: Iterator[str], taken: set[str]) -> Iterator[str]:
    """Yield the names that nothing has, each of which is taken then."""
    for name in names:
        if name not in taken:
            taken.add(name)
            yield name


def _by_energy(found: Mapping[str, Way], energy: float) -> tuple[dict[str, Ranks], dict[str, str]]:
    """Return the cheapest ranks of each layer that keep as much energy, and the layers for which these don't pay."""
    chosen: dict[str, Ranks] = {}
    left: dict[str, str] = {}
    for name, way in found.items():
        enough = keeps(way.kept, energy)
        ranks = way.cheapest(enough & way.pays)
        if ranks:
            chosen[name] = ranks
        else:
            needed = spelled(way.cheapest(enough) or (), way.kept.shape)
            left[name] = (
                f"keeping {energy:.0%} of its energy takes {needed}, which saves too little"
            )
    return chosen, left


def _by_budget(
    found: Mapping[str, Way], share: float, sensitivity: _Sensitivity | None
) -> tuple[dict[str, Ranks], dict[str, str]]:
    """Return ranks that together keep a budget and lose least, and the layers that are not factored, with the reason."""
    left = {name: _NO_PRODUCTS for name, way in found.items() if not way.macs_now}
    treated = {name: way for name, way in found.items() if name not in left}
    _refuse_uncounted(treated)
    options = {name: np.flatnonzero(way.pays) for name, way in treated.items()}
    # As it is comes first: it costs what it does now, and loses nothing.
    costs = [np.append(way.macs_now, way.macs.flat[options[n]]) for n, way in treated.items()]
    losses = []
    for name, way in treated.items():
        lost = 1 - way.kept.flat[options[name]]
        # Not by its weights: in ResNet-8 that has the early layers pay, which have few weights and many places.
        worth = sensitivity.of(way, options[name], lost) if sensitivity else lost
        losses.append(np.append(0.0, worth))
    budget = share * sum(way.macs_now for way in treated.values())
    places = within_budget(costs, losses, budget)
    if places is None:
        least = sum(float(cost.min()) for cost in costs) / (budget / share)
        raise ParameterError(
            f"a share of {share:g} of the multiply-accumulates can't be reached: at rank 1 all layers that can be "
            f"factored come to {least:.2g}"
        )
    chosen = {
        name: way.ranks(options[name][place - 1])
        for (name, way), place in zip(treated.items(), places, strict=True)
        if place
    }
    whole = dict.fromkeys((name for name in treated if name not in chosen), _KEPT_WHOLE)
    return chosen, {**left, **whole}


_NO_PRODUCTS = "a look-up has no multiply-accumulates to save"
_KEPT_WHOLE = "the budget is met without it, or no rank of it pays"


def _refuse_uncounted(found: Mapping[str, Way]) -> None:
    free = [name for name, way in found.items() if not way.is_counted]
    if free:
        raise ParameterError(
            message(
                f"multiply-accumulates can't be counted where sizes are free, as those of '{free[0]}' are.",
                "Fix the sizes of the model's inputs, or choose ranks by energy, without a budget.",
            )
        )


class _Sensitivity:
    """What a model's answers suffer from one layer's factors, measured on a copy of it.

    The copy's layer is given the kernel that the factors are together, and its own again.
    """

    def __init__(self, copy: Copy, error_of: Error) -> None:
        self._copy, self._error_of = copy, error_of
        self._before = error_of(copy.model)

    def of(self, way: Way, options: NDArray[np.intp], lost: Floats) -> Floats:
        """Return what each option of a layer costs: measured for a few, and for the others drawn from these.

        Between two that are measured, and from nothing to the first, it grows with the energy that is lost as along a
        line; beyond the last as along the one from nothing to that.

        Args:
            way: The layer's.
            options: Places of the flattened arrays of ranks.
            lost: The share of the layer's energy that each loses.
        """
        points = {0.0: 0.0}
        for option in _telling(way, options, lost):
            points[float(lost[option])] = self._measured(way, way.ranks(options[option]))
        known = sorted(points)
        # More lost and less wrong is chance.
        errors = np.maximum.accumulate([points[share] for share in known])
        beyond = np.maximum(lost / known[-1], 1.0) if known[-1] else 1.0
        costs: Floats = np.interp(lost, known, errors) * beyond
        return costs

    def _measured(self, way: Way, ranks: Ranks) -> float:
        kernel = self._copy.layers[id(way.layer)].kernel
        own = keras.ops.convert_to_numpy(kernel)
        kernel.assign(way.approximated(ranks))
        found = self._error_of(self._copy.model) - self._before
        kernel.assign(own)
        return max(found, 0.0) if math.isfinite(found) else _WORST


def _telling(way: Way, options: NDArray[np.intp], lost: Floats) -> list[int]:
    """Return the options to measure: those that lose least for a quarter, a half, and three quarters of the cost."""
    found = []
    for share in _PROBED:
        cheap = np.flatnonzero(way.macs.flat[options] <= share * way.macs_now)
        if len(cheap):
            best = int(cheap[np.argmin(lost[cheap])])
            if lost[best] > _LEAST_LOST and best not in found:
                found.append(best)
    return found
