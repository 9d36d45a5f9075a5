"""`iei serve`, `iei embed`, `iei models`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iei import __version__
from iei.errors import IEIError, StartupError
from iei.models.catalog import DEMO
from iei.settings import Settings, env_names, read_settings
from iei.telemetry import logs


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (StartupError, IEIError) as error:
        raise SystemExit(f"iei: {error}") from None
    except BrokenPipeError:  # `iei embed … | head`: the reader has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def serve(arguments: argparse.Namespace) -> None:
    """Serve embeddings over HTTP."""
    from iei.commands.serve import Server
    from iei.engine.launch import engine_config

    settings = _settings(arguments)
    logs.configure(settings.log_level)
    config = engine_config(settings, settings.device)
    loaded = ", ".join(model.id for model in config.models[: config.at_start])
    print(f"IEI {__version__} loads {loaded} …", file=sys.stderr)
    Server(settings).run()


def embed(arguments: argparse.Namespace) -> None:
    """Embed pictures without a server: one line of JSON for each file."""
    from iei.commands.embed import embed_files

    settings = _settings(arguments)
    logs.configure("warning")
    if failed := embed_files(settings, arguments.files, sys.stdout):
        raise StartupError(f"{failed} files could not be embedded, see above.")


def models(_: argparse.Namespace) -> None:
    """List the kinds of model that can be served."""
    from iei.checkpoints.families import FAMILIES

    print("\n".join(f"{model_type:24}{', '.join(takes)}" for model_type, takes in sorted(FAMILIES.items())))


def _settings(arguments: argparse.Namespace) -> Settings:
    """The environment's settings, with the flags that were given laid over them."""
    given = {name: value for name in Settings.model_fields if (value := getattr(arguments, name, None)) is not None}
    if "model" in given:
        if "models" in given:
            raise StartupError("--models takes the place of --model (or --demo): give one of them.")
        given["models"] = ""  # of the environment: a flag wins over a variable
    return read_settings(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iei", description="IEI, Image Embedding Inference: images to vectors.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, embed, models):
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if command is models:
            continue
        sub.add_argument(
            "--demo",
            action="store_const",
            const=DEMO,
            dest="model",
            help="the built-in untrained model: nothing to download",
        )
        if command is embed:
            sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="pictures, or folders of them")
        _add_settings(sub)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting. Values are checked with the settings, by the same rules as the environment's."""
    group = parser.add_argument_group("settings", "Each is an environment variable too, named in brackets.")
    for name, field in Settings.model_fields.items():
        default: Any = "none" if field.default is None else field.default
        text = f"{' '.join((field.description or '').split())} [{', '.join(env_names(field))}; default: {default}]"
        group.add_argument(f"--{name.replace('_', '-')}", help=text.replace("%", "%%"), metavar="VALUE")
