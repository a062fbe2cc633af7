"""Command group of both commands, which refuses empty arguments before any command sees them."""

from __future__ import annotations

import typer
from typer.core import TyperGroup


class CommandGroup(TyperGroup):
    """Group of commands that takes no empty argument.

    An empty argument is nearly always a shell variable that is not set. As a path it would be the current folder, or
    the root of the file system.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments of the group and its command.

        Raises:
            typer.BadParameter: one of them, before `--`, is empty.
        """
        given = args[: args.index("--")] if "--" in args else args
        for number, argument in enumerate(given):
            if not argument:
                place = f"after {given[number - 1]}" if number else "at the begin"
                raise typer.BadParameter(_refuse(f"the argument {place} is empty"))
            if argument.startswith("--") and argument.endswith("="):
                raise typer.BadParameter(_refuse(f"{argument} is followed by nothing"))
        return super().parse_args(ctx, args)


def _refuse(what: str) -> str:
    return f"{what}: a variable of the shell may not be set; for the current folder write ."
