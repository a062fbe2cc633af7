"""Command-line reference of the site: every command with its arguments and options, as the typer apps define them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

PAGE = "reference/command-line.md"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Append the commands to the page of the command line (a hook of MkDocs)."""
    if page.file.src_uri != PAGE:
        return markdown
    return "\n".join([markdown, *(line for name, app in load_apps().items() for line in describe_app(name, app))])


def load_apps() -> dict[str, typer.Typer]:
    """Load both command-line apps, by the name that users type."""
    from codecmeta_cli.codecmeta import app as codecmeta
    from codecmeta_cli.compress import app as compress

    return {"codecmeta": codecmeta, "compress": compress}


def describe_app(name: str, app: typer.Typer) -> Iterator[str]:
    """Write all commands of an app in Markdown."""
    yield f"\n## {name}\n\n{_paragraphs(app.info.help)}\n"
    for command in app.registered_commands:
        function = command.callback
        if function is None:
            continue
        title = command.name or function.__name__.replace("_", "-")
        yield f"\n### {name} {title}\n\n{_paragraphs(command.help or inspect.getdoc(function))}\n"
        yield "| option | value | meaning |\n|---|---|---|"
        yield from _rows(function)


def _rows(function: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        kind, *notes = get_args(hints[parameter.name]) or (hints[parameter.name],)
        info = next((note for note in notes if isinstance(note, (OptionInfo, ArgumentInfo))), None)
        if info is None or info.hidden:
            continue
        meaning = _paragraphs(info.help).replace("|", "\\|") + _default(info, parameter.default)
        yield f"| {_names(parameter.name, info, parameter.default)} | {_value(kind, info)} | {meaning} |"


def _names(name: str, info: OptionInfo | ArgumentInfo, default: object) -> str:
    dashed = name.replace("_", "-")
    if isinstance(info, ArgumentInfo):
        return f"`{info.metavar or dashed}`"
    usual = f"--{dashed}/--no-{dashed}" if default is True else f"--{dashed}"
    # inside Annotated, typer takes a first positional string for a name, not for a default
    given = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str) and one.startswith("-")]
    return ", ".join(f"`{one}`" for names in given or [usual] for one in names.split("/"))


def _default(info: OptionInfo | ArgumentInfo, default: object) -> str:
    if default is inspect.Parameter.empty:
        return " Required."
    if isinstance(info.show_default, str):
        return f" Default: {info.show_default}."
    if default is True:
        return " Default: yes."
    return f" Default: `{default}`." if info.show_default and default not in (None, False, "") else ""


def _value(kind: Any, info: OptionInfo | ArgumentInfo) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if isinstance(info, ArgumentInfo) or kind is bool:
        return ""
    plain = next((one for one in get_args(kind) if one is not type(None)), kind)
    return f"`{info.metavar or {str: 'TEXT', int: 'N', float: 'X'}.get(plain, 'PATH')}`"


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", (text or "").strip()))
