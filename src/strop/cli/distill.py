"""`strop distill`."""

from __future__ import annotations

from strop.cli.technique import command_of

command = command_of("distill.student", "distill")
