"""GraphDefs spelled as those who read them next know them: rules that change how a function is written, not which.

Each rule edits the graph in place and returns how often it found something to do.
"""

from __future__ import annotations

import math
from typing import Any

from strop.graph.view import GraphView, array


def spell_gelu(definition: Any) -> int:
    """Write GELU as ONNX Runtime recognizes it (and fuses it).

    Before:  0.5·x · erfc(−x · 0.70710678)
    After:   0.5·x · (erf(x / 1.41421356) + 1)

    Both are x·Φ(x): erfc(−y) = 1 − erf(−y) = 1 + erf(y).
    """
    view, found = GraphView(definition), 0
    for node in view.nodes("Erfc"):
        product = view.maker(node.input[0])
        negated = view.operands(product, "Neg") if product.op == "Mul" else None
        factor = view.scalar(negated[1]) if negated else None
        if (
            negated is None
            or factor is None
            or not math.isclose(factor, math.sqrt(0.5), rel_tol=1e-5)
        ):
            continue
        dtype = node.attr["T"].type
        root = view.add_constant(f"{node.name}/root", array(math.sqrt(2.0), dtype))
        scaled = view.add(f"{node.name}/scaled", "RealDiv", (negated[0].input[0], root), T=dtype)
        erf = view.add(f"{node.name}/erf", "Erf", (scaled,), T=dtype)
        one = view.add_constant(f"{node.name}/one", array(1.0, dtype))
        view.become(node, "AddV2", (erf, one), T=dtype)
        found += 1
    return found


def spell_out_erfc(definition: Any) -> int:
    """Write what is left of erfc by erf, which ONNX has: tf2onnx logs Erfc as unsupported and leaves it in the file.

    Before:  erfc(x)
    After:   1 − erf(x)

    Where erfc is tiny (x > 4) the difference keeps no digits, and an absolute error of float32's grain at 1 (6e-8).
    """
    view, found = GraphView(definition), 0
    for node in view.nodes("Erfc"):
        dtype = node.attr["T"].type
        erf = view.add(f"{node.name}/erf", "Erf", (node.input[0],), T=dtype)
        one = view.add_constant(f"{node.name}/one", array(1.0, dtype))
        view.become(node, "Sub", (one, erf), T=dtype)
        found += 1
    return found
