"""`strop factorize`."""

from __future__ import annotations

from strop.cli.technique import command_of

command = command_of("factorize.low_rank", "factorize")
