"""Subcommands, and groups of them with ``help``. Errors about the command line suggest what was meant."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from datadog_caselinks.values.messages import quoted

_SYNONYMS: Final = {
    "add": "create",
    "apply": "plan",
    "check": "doctor",
    "describe": "show",
    "diff": "plan",
    "get": "show",
    "import": "bulk",
    "link": "create",
    "ls": "list",
    "new": "create",
    "remove": "delete",
    "revert": "undo",
    "rm": "delete",
    "rollback": "undo",
    "search": "find",
    "tree": "graph",
    "unlink": "delete",
    "version": "--version",
}
"""Names that people try, each with the subcommand or option that it probably means."""

_OPTIONS: Final = {
    "-f": "--yes",
    "-n": "--dry-run",
    "-o": "--output",
    "-y": "--yes",
    "--force": "--yes",
    "--format": "--output",
    "--json": "--output json",
    "--jsonl": "--output jsonl",
}
"""Options that people try, each with the one that it probably means. A subcommand may not have that one."""

_MAX_NAME: Final = 40
"""The maximum length in characters of an unknown name that is compared with the known ones."""


class Command(click.Command):
    """A subcommand. The error for an argument too many suggests what was probably meant."""

    allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            ctx.fail(f"Unexpected argument {' '.join(map(quoted, extra))}.{self._suggestion(ctx, extra)}")
        return extra

    def _suggestion(self, ctx: click.Context, extra: list[str]) -> str:
        parameters = self.get_params(ctx)
        arguments = [each.name for each in parameters if isinstance(each, click.Argument)]
        words = [*(str(ctx.params[name]) for name in arguments if name), *extra]
        options = {option for each in parameters for option in each.opts}
        for word in words:
            if f"--{word}" in options:
                return f" Did you mean --{word} instead of {word}?"
        root = ctx.find_root().command
        if isinstance(root, click.Group) and words[0] in root.list_commands(ctx):
            return f" Did you mean caselinks {words[0]}?"
        if "relationship" in arguments:
            return " Write a relationship as one word, such as parent-of."
        return ""


class Group(click.Group):
    """A group of subcommands. ``help COMMAND`` is the same as ``COMMAND --help``."""

    command_class: type[click.Command] | None = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. A first argument ``help`` asks for the help of what follows."""
        if args[:1] == ["help"]:
            args = [*(word for word in args if word != "help"), "--help"]
        with _suggesting_options():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Parse the arguments of the subcommand, and run it."""
        with _suggesting_options():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand. The error for an unknown one suggests a similar one."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"No such command {quoted(args[0])}.{self._suggestion(ctx, args[0])}")
        return super().resolve_command(ctx, args)

    def _suggestion(self, ctx: click.Context, name: str) -> str:
        known = self.list_commands(ctx)
        meant = dict.fromkeys(_SYNONYMS.get(each, each) for each in _near(name, [*known, *_SYNONYMS]))
        names = [each for each in meant if each in known or (each.startswith("-") and ctx.parent is None)]
        if not names and len(known) == 1:  # probably the argument of the only subcommand
            names = [f"{known[0]} {name}"]
        return f" Did you mean {' or '.join(names)}?" if names else ""


@contextlib.contextmanager
def _suggesting_options() -> Iterator[None]:
    """Let the error for an unknown option suggest an option of the same subcommand.

    click compares the hyphens too, and so suggests ``--site`` for ``--limit``.
    """
    try:
        yield
    except click.NoSuchOption as error:
        context, name = error.ctx or click.get_current_context(), error.option_name
        known = [option for each in context.command.get_params(context) for option in each.opts]
        meant = _OPTIONS.get(name, "")
        if meant.partition(" ")[0] in known:
            hint = f" Did you mean {meant}?"
        elif near := _near(name.strip("-"), [each[2:] for each in known if each.startswith("--")]):
            hint = f" Did you mean {' or '.join(f'--{each}' for each in near)}?"
        elif isinstance(context.command, click.Group):
            hint = " Put the options of a subcommand after its name."
        elif name.startswith("--"):
            hint = ""
        else:
            hint = " To pass an argument that begins with -, put -- before it."
        context.fail(f"No such option {quoted(name)}.{hint}")


def _near(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name[:_MAX_NAME].lower(), known, n=2)
