"""What layers within a model give, compared with what those of its teacher do.

Each of the losses here is a `DistillationLoss` that `keras.distillation.Distiller` takes too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops

from strop.core.errors import ParameterError, UnknownNameError, message
from strop.core.signature import Signature
from strop.graph.keras_calls import functional_of, nodes_of
from strop.graph.keras_models import arranged
from strop.train.kernels import has_kernel
from strop.train.losses import LEAST_SPREAD_IN_FLOAT32
from strop.train.quantized_layer import QuantizedLayer

LOGITS, FEATURES, ATTENTION, RELATIONAL = METHODS = (
    "logits",
    "features",
    "attention",
    "relational",
)
_LEAST = 1e-12  # of what is divided by, or has its root taken
_SAYS_WHAT = {
    FEATURES: "the original's features",
    ATTENTION: "the original's attention maps",
    RELATIONAL: "how the original tells samples apart",
}
_ANGLES = 2.0
_ACTIVATIONS = tuple(
    getattr(keras.layers, name)
    for name in ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
)


@final
@keras.saving.register_keras_serializable(package="strop")
class AttentionDistillation(keras.distillation.FeatureDistillation):  # type: ignore[misc]
    """The squared distance between the attention maps of a student's and a teacher's layer.

    A map is the sum of squares over the channels at each place, ``Q = Σ_c |A_c|²``, as a vector of length one; so the
    widths may differ. The loss is ``Σ_p (Q_S/‖Q_S‖ − Q_T/‖Q_T‖)²``, from 0 to 2, on average over the samples.

    References:
        Zagoruyko and Komodakis, *Paying More Attention to Attention*, ICLR 2017 (arXiv:1612.03928), section 3.1.
    """

    def __init__(
        self, teacher_layer_name: str | None = None, student_layer_name: str | None = None
    ) -> None:
        super().__init__("mse", teacher_layer_name, student_layer_name)

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Return the loss for features with their channels last, of any places."""
        apart = _attention(student_outputs) - _attention(teacher_outputs)
        return ops.mean(ops.sum(ops.square(apart), axis=-1))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return _names_in(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AttentionDistillation:
        """Return the loss that `get_config` wrote down."""
        return cls(**config)


@final
@keras.saving.register_keras_serializable(package="strop")
class RelationalDistillation(keras.distillation.FeatureDistillation):  # type: ignore[misc]
    """How differently the samples of a batch lie to each other in a student's and in a teacher's layer.

    With t_i what a layer gives for sample i, compared are all distances ``‖t_i − t_j‖``, in units of their mean, and the
    cosines of the angles between ``t_i − t_j`` and ``t_k − t_j``, each by Huber's loss; so the widths may differ.

    References:
        Park, Kim, Lu and Cho, *Relational Knowledge Distillation*, CVPR 2019 (arXiv:1904.05068), section 3.2.
    """

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        angle_weight: float = _ANGLES,
    ) -> None:
        """Set up.

        Args:
            teacher_layer_name: The teacher's layer; None for its answer.
            student_layer_name: The student's layer; None for its answer.
            angle_weight: What the angles count, the distances counting 1.
        """
        super().__init__("huber", teacher_layer_name, student_layer_name)
        self.angle_weight = angle_weight

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """Return the loss for features of any shapes, samples first."""
        pairs = [_relations(outputs) for outputs in (teacher_outputs, student_outputs)]
        distances, angles = zip(*pairs, strict=True)
        return _huber(*distances) + self.angle_weight * _huber(*angles)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {**_names_in(self), "angle_weight": self.angle_weight}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RelationalDistillation:
        """Return the loss that `get_config` wrote down."""
        return cls(**config)


def _names_in(loss: Any) -> dict[str, Any]:
    return {name: getattr(loss, name) for name in ("teacher_layer_name", "student_layer_name")}


def _attention(features: Any) -> Any:
    """Return the attention map of each sample as a vector of length one."""
    squares = ops.sum(ops.square(ops.cast(features, "float32")), axis=-1)
    flat = ops.reshape(squares, (ops.shape(squares)[0], -1))
    return flat / ops.sqrt(ops.sum(ops.square(flat), axis=-1, keepdims=True) + _LEAST)


def _relations(features: Any) -> tuple[Any, Any]:
    """Return the distances between samples, in units of their mean, and the cosines of the angles at each of them."""
    flat = ops.reshape(ops.cast(features, "float32"), (ops.shape(features)[0], -1))
    apart = flat[None, :, :] - flat[:, None, :]
    squared = ops.sum(ops.square(apart), axis=-1)
    # The root has no gradient at 0, where a sample is compared with itself.
    is_apart = squared > _LEAST
    distances = ops.sqrt(ops.where(is_apart, squared, 1.0)) * ops.cast(is_apart, "float32")
    count = ops.maximum(ops.sum(ops.cast(is_apart, "float32")), 1.0)
    mean = ops.sum(distances) / count
    directions = apart / ops.where(is_apart, distances, 1.0)[:, :, None]
    cosines = ops.matmul(directions, ops.transpose(directions, (0, 2, 1)))
    return distances / ops.maximum(mean, _LEAST), cosines


def _huber(wanted: Any, given: Any) -> Any:
    return ops.mean(keras.losses.huber(wanted, given))


def _error_over_variance(wanted: Any, given: Any) -> Any:
    """Return the squared error of features in units of the teacher's variance, so that no layer is louder than others.

    Where all that the teacher's layer gives for a batch is one number, as a closed gate does, there is no such unit, and
    nothing to be learnt from it.
    """
    spread = ops.var(wanted)
    varies = spread > LEAST_SPREAD_IN_FLOAT32 * ops.mean(ops.square(wanted))
    error = ops.mean(ops.square(wanted - given)) / ops.where(varies, spread, 1.0)
    return ops.where(varies, error, 0.0)


@dataclass(frozen=True)
class _Place:
    """What a layer of a model gives.

    Attributes:
        name: The layer's.
        tensor: The symbolic tensor.
        is_activated: Whether the layer is an activation, ends in one, or is a model, which is compared as a whole.
    """

    name: str
    tensor: Any
    is_activated: bool = False

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """The sizes of a map, without samples and channels; none where it is no map."""
        return tuple(self.tensor.shape[1:-1])


@dataclass(frozen=True)
class Hints:
    """What is taught of the layers within.

    A plain value, so that Keras takes the teacher for no part of what is trained.

    Attributes:
        method: How it is compared, of `METHODS`.
        pairs: The layers compared, the student's first.
        losses: One for each pair.
        student: A `keras.Model` that gives the student's answers, and then what its layers do.
        teacher: A `keras.Model` that gives the same of the teacher.
        of: The teacher, which says how it is called.
        widths: The channels to project what the student's layers give to; None where it stays.
        weight: What this counts beside the answers.
    """

    method: str
    pairs: tuple[tuple[str, str], ...]
    losses: tuple[Any, ...]
    student: Any
    teacher: Any
    of: Any
    widths: tuple[int | None, ...]
    weight: float

    def given_by_teacher(
        self, tensors: Sequence[Any], signature: Signature
    ) -> tuple[list[Any], list[Any]]:
        """Return what the teacher answers to a batch in the signature's order, and what its layers give, of one call."""
        given = self.teacher(arranged(self.of, tensors, signature), training=False)
        found = [ops.stop_gradient(tensor) for tensor in given]
        count = len(signature.outputs)
        return found[:count], found[count:]

    def projections(self) -> list[Any]:
        """Return new layers that give what the student's layers do the widths of the teacher's."""
        return [
            # On its last axis it is a convolution of one place, too.
            keras.layers.Dense(width, name=f"projection_{number}", dtype="float32")
            if width
            else keras.layers.Identity(dtype="float32")
            for number, width in enumerate(self.widths)
        ]

    def loss(self, wanted: Sequence[Any], given: Sequence[Any]) -> Any:
        """Return how far features are from the teacher's, on average over the pairs, by its weight."""
        losses = [
            # In whole precision: squares of features of half of it may be more than it can hold.
            loss.compute_loss(ops.cast(of_teacher, "float32"), ops.cast(of_student, "float32"))
            for loss, of_teacher, of_student in zip(self.losses, wanted, given, strict=True)
        ]
        return self.weight * sum(losses) / len(losses)

    def spelled(self) -> str:
        """Return what is taught, in words."""
        return _SAYS_WHAT[self.method]


def mistakes(method: str, weight: float, layers: Sequence[tuple[str, str]]) -> list[str]:
    """Return what is wrong with settings of `hints_of`, a line each."""
    found = []
    if method not in METHODS:
        known = ", ".join(map(repr, METHODS))
        found.append(f"method must be one of {known}, not {method!r}")
    if not weight >= 0:
        found.append(f"weight must be at least 0, not {weight!r}")
    if layers and method == LOGITS:
        found.append(
            "layers are compared by the methods 'features', 'attention' and 'relational', and method is 'logits': set it "
            "to one of them, or name no layers"
        )
    return found


def hints_of(
    student: Any,
    teacher: Any,
    method: str,
    *,
    weight: float = 1.0,
    layers: Sequence[tuple[str, str]] = (),
) -> Hints | None:
    """Return what is taught of the layers within; None where it is the answers alone.

    Args:
        student: A built Functional or Sequential `keras.Model`.
        teacher: Another.
        method: One of `METHODS`. ``features``: what layers give, after a projection where the student's have another
            width; ``attention``: where in it they are active; ``relational``: how far samples lie apart there, and at
            what angles.
        weight: What this counts, the answers counting 1.
        layers: Pairs of the student's and the teacher's layers, by name. None for activations, layers that end in
            one, and models within, of one name and shape (``features``, where the student has all of these that the
            teacher has); or else for the last ones that give maps of one size (``features``: of the last size; ``attention``: of each size
            that both have), or what the last layers with kernels are given (``relational``, and where there are no
            maps).

    Raises:
        ParameterError: If a setting is out of its range, layers can't be compared, or those within can't be seen.
        UnknownNameError: If a name in `layers` is no layer's.

    References:
        Romero et al., *FitNets: Hints for Thin Deep Nets*, ICLR 2015 (arXiv:1412.6550) (``features``).
    """
    if found := mistakes(method, weight, layers):
        raise ParameterError("\n".join(found))
    if method == LOGITS:
        return None
    idle = _to_leave_out(weight, layers)
    own, other = (_graph_of(model, method, idle) for model in (student, teacher))
    if layers:
        pairs = [(_named(own, ours), _named(other, theirs)) for ours, theirs in layers]
    else:
        pairs = _matched(own, other, method, idle)
    for pair in pairs:
        _refuse_pair(*pair, method)
    names = tuple((ours.name, theirs.name) for ours, theirs in pairs)
    return Hints(
        method,
        names,
        tuple(_loss(method, *pair) for pair in names),
        _giving(own, [ours.tensor for ours, _ in pairs]),
        _giving(other, [theirs.tensor for _, theirs in pairs]),
        teacher,
        tuple(
            theirs.tensor.shape[-1]
            if method == FEATURES and theirs.tensor.shape[-1] != ours.tensor.shape[-1]
            else None
            for ours, theirs in pairs
        ),
        weight,
    )


def _loss(method: str, student_layer: str, teacher_layer: str) -> Any:
    if method == ATTENTION:
        return AttentionDistillation(teacher_layer, student_layer)
    if method == RELATIONAL:
        return RelationalDistillation(teacher_layer, student_layer)
    return keras.distillation.FeatureDistillation(
        _error_over_variance, teacher_layer, student_layer
    )


def _giving(graph: Any, features: Sequence[Any]) -> Any:
    """Return a model of the same layers that gives its answers, and then features."""
    answers = keras.tree.flatten(graph._outputs_struct)
    return keras.Model(graph._inputs_struct, [*answers, *features], name="features")


def _to_leave_out(weight: float, layers: Sequence[tuple[str, str]]) -> str:
    """Return which settings are to be left out where answers alone are taught, in words; nothing where none was given."""
    given = [name for name, is_given in (("weight", weight != 1), ("layers", layers)) if is_given]
    return f" Leave out {' and '.join(given)} then." if given else ""


def _graph_of(model: Any, method: str, idle: str) -> Any:
    graph = functional_of(model)
    if graph is None:
        raise ParameterError(
            message(
                f"what goes on within the model '{model.name}' can't be seen: its layers are called by code of its "
                f"own class, {type(model).__name__}.",
                f"The method '{method}' takes Functional and Sequential models; by its answers any can be taught.{idle}",
                next_step="method = 'logits'",
            )
        )
    return graph


def _places(graph: Any) -> list[_Place]:
    """Return what the layers give that a model itself calls, in the order of work."""
    return [
        _Place(node.operation.name, node.outputs[0], _is_activated(node.operation))
        for node in nodes_of(graph)
        if len(node.outputs) == 1
    ]


def _is_activated(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Wrapper | QuantizedLayer):
        return _is_activated(layer.layer)
    if isinstance(layer, (*_ACTIVATIONS, keras.Model)):
        return True
    return getattr(layer, "activation", keras.activations.linear) is not keras.activations.linear


def _named(graph: Any, name: str) -> _Place:
    found = {place.name: place for place in _places(graph)}
    if name not in found:
        raise UnknownNameError(f"layer in '{graph.name}'", name, found)
    return found[name]


def _matched(student: Any, teacher: Any, method: str, idle: str) -> list[tuple[_Place, _Place]]:
    """Return the layers to compare where nobody names them."""
    if method == RELATIONAL:
        return [(_before_last(student, idle), _before_last(teacher, idle))]
    if method == FEATURES and (same := _same_activations(student, teacher)):
        return same
    ours, theirs = _last_of_each_size(student), _last_of_each_size(teacher)
    common = [(ours[sizes], theirs[sizes]) for sizes in ours if sizes in theirs]
    if common:
        return common if method == ATTENTION else common[-1:]
    if method == FEATURES:
        return [(_before_last(student, idle), _before_last(teacher, idle))]
    raise ParameterError(
        message(
            "no layers of the student and of its teacher give maps of the same size, of which attention is taken.",
            "Name pairs of layers, or take another method.",
            next_step="method = 'relational'",
        )
    )


def _same_activations(student: Any, teacher: Any) -> list[tuple[_Place, _Place]]:
    """Return what activations within give, where the student has all of the teacher's in their names and shapes."""
    ours, theirs = _activations(student), _activations(teacher)
    alike = [
        (ours[call], place)
        for call, place in theirs.items()
        if call in ours and ours[call].tensor.shape == place.tensor.shape
    ]
    return alike if len(alike) == len(theirs) else []


def _activations(graph: Any) -> dict[tuple[str, int], _Place]:
    """Return what activations within give, by their names and by which of their calls it is."""
    _, behind = _head(graph)
    found: dict[tuple[str, int], _Place] = {}
    calls: Counter[str] = Counter()
    for place in _places(graph):
        if place.is_activated and id(place.tensor) not in behind:
            found[place.name, calls[place.name]] = place
            calls[place.name] += 1
    return found


def _last_of_each_size(graph: Any) -> dict[tuple[int | None, ...], _Place]:
    """Return the last of the maps of each size, in the order of work, but for those that make the answers."""
    _, behind = _head(graph)
    return {
        place.sizes: place
        for place in _places(graph)
        if id(place.tensor) not in behind and place.sizes and set(place.sizes) != {1}
    }


def _before_last(graph: Any, idle: str) -> _Place:
    """Return what the last layer with a kernel is given, on the way to the first answer."""
    place, _ = _head(graph)
    if place is None:
        raise ParameterError(
            message(
                f"the model '{graph.name}' has but one layer with a kernel, so that there is nothing within to compare.",
                f"By its answers it can be taught.{idle}",
                next_step="method = 'logits'",
            )
        )
    return place


def _head(graph: Any) -> tuple[_Place | None, set[int]]:
    """Return what the layer that makes the first answer is given, and the `id` of all that makes answers and is behind that."""
    makers = {id(node.outputs[0]): node for node in nodes_of(graph) if len(node.outputs) == 1}
    before, *others = [_way_back(answer, makers) for answer in graph.outputs]
    behind = set(before[1]).union(*(way for _, way in others))
    found = makers.get(id(before[0]))
    return (_Place(found.operation.name, before[0]) if found else None), behind


def _way_back(answer: Any, makers: Mapping[int, Any]) -> tuple[Any, set[int]]:
    """Return what the last layer with a kernel on the way to an answer is given, and the `id` of what is given from there on."""
    behind: set[int] = set()
    tensor, is_last = answer, False
    while not is_last and id(tensor) in makers:
        node = makers[id(tensor)]
        behind.add(id(tensor))
        is_last = has_kernel(node.operation) or len(node.input_tensors) != 1
        tensor = node.input_tensors[0]
    return tensor, behind


def _refuse_pair(ours: _Place, theirs: _Place, method: str) -> None:
    if method == RELATIONAL:
        return
    if method == ATTENTION and not (ours.sizes and theirs.sizes):
        flat = ours if not ours.sizes else theirs
        raise ParameterError(f"the layer '{flat.name}' gives no maps, of which attention is taken")
    known = [
        pair for pair in zip(ours.sizes, theirs.sizes, strict=False) if None not in pair
    ]  # fmt: skip
    if len(ours.sizes) != len(theirs.sizes) or any(one != other for one, other in known):
        raise ParameterError(
            message(
                f"what the student's layer '{ours.name}' gives has the sizes {_spelled(ours)}, and what the teacher's "
                f"'{theirs.name}' gives has {_spelled(theirs)}.",
                "Only channels may be more or fewer; the method 'relational' takes any sizes.",
            )
        )


def _spelled(place: _Place) -> str:
    return " x ".join("?" if size is None else str(size) for size in place.sizes) or "of a vector"
