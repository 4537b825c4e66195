"""This machine: what of it decides how fast a model runs; and the versions of the engines on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from strop.core import digest

# The processor flags that engines' kernels ask for, as Linux spells them, and as people know them.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_tile": "AMX",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "NEON i8mm",
    "bf16": "NEON BF16",
    "sve": "SVE",
}
_DOT_PRODUCTS = frozenset(
    {"AVX-512 VNNI", "AVX-VNNI", "AMX int8", "NEON dot product", "NEON i8mm"}
)
_DISTRIBUTIONS = (
    "strop", "tensorflow", "keras", "ai-edge-litert", "ai-edge-quantizer", "onnxruntime", "onnx",
    "tf2onnx", "openvino", "nncf", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A machine as far as it decides speed.

    Attributes:
        processor: The processor's name.
        cores: Processors that this process may use.
        memory_bytes: Memory of the whole machine.
        instructions: Instruction sets that matter to engines, as people know them.
        system: Operating system and its release.
        python: Python's version.
    """

    processor: str
    cores: int
    memory_bytes: int
    instructions: tuple[str, ...]
    system: str
    python: str

    @property
    def has_integer_dot_products(self) -> bool:
        """Whether it adds products of 8-bit codes in 32 bits.

        Without, int8 is often no faster; and on x86 OpenVINO and ONNX Runtime add two products in 16 bits, which
        saturate where activations and weights are large: weights of 7 bits never do.
        """
        return not _DOT_PRODUCTS.isdisjoint(self.instructions)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def digest(self) -> str:
        """Return the digest of what decides speed: not the system's patch level."""
        return digest.of_value([self.processor, self.cores, sorted(self.instructions)])

    def __str__(self) -> str:
        gigabytes = self.memory_bytes / 2**30
        return f"{self.processor}, {self.cores} cores, {gigabytes:.0f} GiB, {self.system}"


@cache
def this_machine() -> Machine:
    """Return the machine this process runs on."""
    return Machine(
        _processor(),
        cores(),
        psutil.virtual_memory().total,
        tuple(label for flag, label in _INSTRUCTIONS.items() if flag in _flags()),
        f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        platform.python_version(),
    )


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Return the versions of the engines and converters that are installed."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


@cache
def _flags() -> frozenset[str]:
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    mac = _sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")
    return frozenset(mac.lower().split())


@cache
def _cpuinfo() -> tuple[str, ...]:
    file = Path("/proc/cpuinfo")
    return tuple(file.read_text().splitlines()) if file.exists() else ()


def _sysctl(name: str) -> str:
    if platform.system() != "Darwin":
        return ""
    asked = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return asked.stdout.strip()
