"""The public functions, each a few lines over the layers beneath."""

from __future__ import annotations

from strop.api.applying import apply
from strop.api.compressing import Compressed, cluster, factorize, prune
from strop.api.distilling import distill
from strop.api.inspecting import Inspection, inspect
from strop.api.opening import load
from strop.api.optimizing import Artifact, Result, optimize
from strop.api.picturing import tensorboard
from strop.api.quantizing import quantize
from strop.api.simplifying import Simplification, simplify
from strop.api.timing import bench
from strop.api.verifying import Verdict, verify
from strop.search.request import Request

__all__ = [
    "Artifact",
    "Compressed",
    "Inspection",
    "Request",
    "Result",
    "Simplification",
    "Verdict",
    "apply",
    "bench",
    "cluster",
    "distill",
    "factorize",
    "inspect",
    "load",
    "optimize",
    "prune",
    "quantize",
    "simplify",
    "tensorboard",
    "verify",
]
