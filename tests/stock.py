"""Models of every form, made by real passes of one trained model, and the bench that judges them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from strop.core import registry
from strop.core.contracts import Pass
from strop.core.evaluation import Goal
from strop.core.model import Form, Model
from strop.core.recipe import Step
from strop.data.raw import Preparation
from strop.engine.context import Bench, EngineContext, home_runtime
from strop.engine.sampling import draw
from strop.engine.tasks import answer_all
from strop.graph.reading import read

# How the contract tests come from a Keras model to each form.
ROUTES: dict[Form, tuple[str, ...]] = {
    Form.KERAS: (),
    Form.GRAPH_DEF: ("convert.graph_def",),
    Form.LITERT: ("convert.graph_def", "convert.litert"),
    Form.ONNX: ("convert.graph_def", "convert.onnx"),
    Form.OPENVINO: ("convert.graph_def", "convert.openvino"),
}


def routes_to(kind: type[Pass]) -> list[tuple[str, ...]]:
    """Return what leads to `kind`, one way for each form that it takes and we can make."""
    return [ROUTES[form] for form in sorted(kind.takes) if form in ROUTES]


@dataclass
class Made:
    """Models of every form, made of the digits' by real passes, and the bench they are held to."""

    source: Model
    bench: Bench
    folder: Path
    _made: dict[tuple[str | Step, ...], Model] = field(default_factory=dict)

    def context(self) -> EngineContext:
        """Return a context with an empty workspace."""
        return EngineContext(self.bench, Path(tempfile.mkdtemp(dir=self.folder)), self.source)

    def model(self, steps: tuple[str | Step, ...]) -> Model:
        """Return what `steps` (a name is a pass with its defaults) make of the source, each carried out once."""
        if not steps:
            return self.source
        if steps not in self._made:
            last = steps[-1] if isinstance(steps[-1], Step) else Step(steps[-1])
            kind = registry.passes.get(last.name).from_settings(last.settings)
            made = kind.apply(self.model(steps[:-1]), self.context())
            assert isinstance(made, Model), made
            self._made[steps] = made
        return self._made[steps]

    def of_form(self, form: Form) -> Model:
        """Return the digits' model in `form`."""
        return self.model(ROUTES[form])


def stock(model: Path, data: Path, folder: Path) -> Made:
    """Return the stock made of the Keras file `model` with the samples `data`."""
    source = read(model, folder)
    splits = draw(str(data), source, Preparation(), 0, folder / "samples")
    bench = Bench(splits, folder / "answers", Goal())
    answer_all(source, home_runtime(source.form).name, {}, str(splits), str(folder / "answers"))
    return Made(source, bench, folder)
