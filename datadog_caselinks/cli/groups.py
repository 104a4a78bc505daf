"""A group of subcommands that explains itself: ``help``, and a suggestion for an unknown subcommand."""

from __future__ import annotations

import difflib
from typing import Final

import click

from datadog_caselinks.values.messages import quoted

_SYNONYMS: Final = {
    "add": "create",
    "apply": "plan",
    "check": "doctor",
    "diff": "plan",
    "import": "bulk",
    "link": "create",
    "ls": "list",
    "new": "create",
    "remove": "delete",
    "revert": "undo",
    "rm": "delete",
    "rollback": "undo",
    "tree": "graph",
    "unlink": "delete",
    "version": "--version",
}
"""Other names that people try, and the subcommand or option that they mean."""

_MAX_NAME: Final = 40
"""The maximum length in characters of an unknown name that is compared with the known ones."""


class Group(click.Group):
    """A group of subcommands. ``help COMMAND`` is the same as ``COMMAND --help``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. A first argument ``help`` asks for the help of what follows."""
        if args[:1] == ["help"]:
            args = [*(word for word in args if word != "help"), "--help"]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand. The error for an unknown one suggests a similar one."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"No such command {quoted(args[0])}.{self._suggestion(ctx, args[0])}")
        return super().resolve_command(ctx, args)

    def _suggestion(self, ctx: click.Context, name: str) -> str:
        known = self.list_commands(ctx)
        near = difflib.get_close_matches(name[:_MAX_NAME].lower(), [*known, *_SYNONYMS], n=2)
        meant = dict.fromkeys(_SYNONYMS.get(each, each) for each in near)
        names = [each for each in meant if each in known or (each.startswith("-") and ctx.parent is None)]
        return f" Did you mean {' or '.join(names)}?" if names else ""
