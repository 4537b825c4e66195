"""Names of OpenVINO's operations that don't depend on what the process did before."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

# OpenVINO calls an operation without a name by its type and a counter of the whole process.
_COUNTED = re.compile(r"[A-Z][A-Za-z0-9]*_\d+")


def settle_names(model: Any, keep: Collection[str] = ()) -> None:
    """Number the operations that OpenVINO named itself by their place in `model`, in place.

    Recipes name the layers to leave in float, and the same recipe must find them in another process.

    Args:
        model: An `openvino.Model`.
        keep: Names to leave as they are: those that a file, and with it recipes, know already.
    """
    operations = model.get_ordered_ops()
    counted = [
        operation
        for operation in operations
        if _COUNTED.fullmatch(name := operation.get_friendly_name()) and name not in keep
    ]
    taken = {o.get_friendly_name() for o in operations} - {o.get_friendly_name() for o in counted}
    number = 0
    for operation in counted:
        while (name := f"{operation.get_type_name()}_{number}") in taken:
            number += 1
        operation.set_friendly_name(name)
        number += 1
