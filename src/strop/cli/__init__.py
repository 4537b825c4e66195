"""The command line: one file a command; each parses, calls and prints."""

from __future__ import annotations

import importlib
import os
import sys

import click

from strop.core.errors import StropError

_COMMANDS = {
    "optimize": "find the fastest (or smallest) model that still answers right",
    "apply": "carry out one recipe, without a search",
    "demo": "train a small model on real handwriting and optimize it",
    "bench": "time models side by side, in pairs",
    "verify": "hold a model to its original, or an artifact to its certificate",
    "prune": "set a Keras model's smallest weights to zero while it is taught again",
    "cluster": "let a Keras model's weights share a few values",
    "quantize": "make a Keras model compute in integers, taught to or not",
    "distill": "have a smaller Keras model learn what a model answers",
    "factorize": "replace a Keras model's layers by smaller ones, where it pays",
    "graph": "clean a TensorFlow graph for inference and prove it unchanged",
    "inspect": "say what a model is and what can run it",
    "tensorboard": "show models' graphs side by side in TensorBoard",
    "passes": "list the techniques and the runtimes with their parameters",
    "doctor": "say which engines are installed and what the processor offers",
}


class _Commands(click.Group):
    """Imports a command only when it is called: `strop --help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"strop.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"there is no command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="strop")
def _strop() -> None:
    """Take a trained Keras or TensorFlow model; give back the fastest that still answers right."""


def main() -> None:
    """Run the command line; errors of ours, and what the system refuses, are printed without a traceback."""
    # Before any engine is imported, here or in a worker.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        _strop(standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except StropError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # The system's refusal (a folder that is gone, a disk that fails) is no bug of ours, wherever it struck.
        place = f": '{error.filename}'" if error.filename else ""
        click.echo(f"{error.strerror or error}{place}", err=True)
        sys.exit(2)
