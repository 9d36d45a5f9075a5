"""The `iei` program and its commands `serve`, `embed`, `export` and `models`, each of which has a module of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from iei import __version__
from iei.commands import embed_flags
from iei.errors import IEIError, StartupError
from iei.machine_faults import sentence as machine_fault
from iei.models.catalog import DEMO
from iei.serving.loading import ended_by_signals
from iei.setting import choices
from iei.settings import SETTINGS, Settings, read_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that `argv` names (default: sys.argv). Exits with a one-sentence message on errors."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (StartupError, IEIError) as error:
        raise SystemExit(f"iei: {error}") from None
    except BrokenPipeError:  # `iei embed … | head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except OSError as error:
        raise SystemExit(f"iei: {machine_fault(error)}") from None


def serve(arguments: argparse.Namespace) -> None:
    """Serve embeddings over HTTP."""
    with ended_by_signals():
        from iei.commands import serve  # late: importing gunicorn and FastAPI takes a second

        serve.run(_settings(arguments))  # gunicorn has handlers of its own once the models are loaded


def embed(arguments: argparse.Namespace) -> None:
    """Embed pictures and texts without a server, into Parquet files or lines of JSON."""
    with ended_by_signals():
        from iei.commands import embed  # late: it imports torch

        settings = _settings(arguments)
    if status := embed.run(settings, arguments):
        raise SystemExit(status)


def export(arguments: argparse.Namespace) -> None:
    """Write a folder that serves a model without torch."""
    with ended_by_signals():
        from iei.commands import export

        export.run(_settings(arguments), arguments.folder)


def models(_: argparse.Namespace) -> None:
    """List the kinds of model that can be served."""
    from iei.commands import models

    models.run()


def _settings(arguments: argparse.Namespace) -> Settings:
    """The settings from the environment, overridden by flags."""
    given = {
        name: value
        for name in SETTINGS
        if name not in arguments.replaced and (value := getattr(arguments, name, None)) is not None
    }
    if "model" in given:
        if "models" in given:
            raise StartupError("--models takes the place of --model (or --demo): give one of them.")
        given["models"] = ""  # of the environment: a flag wins over a variable
    if "bind" in given:
        given = {"host": None, "port": None, **given}
    return read_settings(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iei", description="IEI, Image Embedding Inference: images to vectors.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, embed, export, models):
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if command is models:
            continue
        sub.add_argument(
            "--demo",
            action="store_const",
            const=DEMO,
            dest="model",
            help="the built-in small model, for trying: nothing to download",
        )
        if command is embed:
            embed_flags.add_flags(sub)
        if command is export:
            sub.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder")
        replaced = embed_flags.REPLACED if command is embed else frozenset()
        sub.set_defaults(replaced=replaced)
        _add_settings(sub, replaced)
    return parser


def _add_settings(parser: argparse.ArgumentParser, replaced: Container[str]) -> None:
    """A flag for every setting but secrets and those that are `replaced` by flags of the command.

    Values are checked with the settings, by the rules of the environment's.
    """
    group = parser.add_argument_group("settings", "Each is an environment variable too, named in brackets.")
    for setting in SETTINGS.values():
        if setting.is_secret or setting.name in replaced:
            continue
        default: Any = "none" if setting.field.default is None else setting.field.default
        meaning = " ".join((setting.field.description or "").split())
        text = f"{meaning} [{', '.join(setting.variables)}; default: {default}]"
        group.add_argument(
            setting.flag, help=text.replace("%", "%%"), metavar="|".join(choices(setting.field)) or "VALUE"
        )
