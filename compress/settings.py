"""Fields of a method as text: listed with types and values, and set from `name=value`."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from compress.budget import check_retention
from compress.errors import ConfigError

Method = TypeVar("Method")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A field of a method that text can set.

    Attributes:
        name: of the field.
        kind: what it takes, in words.
        value: what it is now, as text that would set it.
    """

    name: str
    kind: str
    value: str


def list_settings(method: object) -> list[Setting]:
    """List all fields of a method, those of a method that it is composed of included, in order of declaration."""
    return [
        Setting(name=name, kind=_describe(annotation), value=_render(getattr(method, name)))
        for name, annotation in _annotations(method).items()
    ]


def configure(method: Method, settings: Mapping[str, str]) -> Method:
    """Return the method with some fields changed; all of them at once, so that they are checked together.

    Raises:
        ConfigError: a field does not exist, its text cannot be understood, or the method refuses the values.
    """
    known = _annotations(method)
    for name in settings:
        if name not in known:
            raise ConfigError(f"{type(method).__name__} has no field {name!r}; its fields are {', '.join(known)}")
    values = {name: _parse(name, known[name], text) for name, text in settings.items()}
    return dataclasses.replace(method, **values)  # type: ignore[type-var]


def _annotations(method: object) -> dict[str, Any]:
    """Map field -> annotation of a dataclass; a field that is itself a dataclass is replaced by its fields."""
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        raise ConfigError(
            f"{type(method).__name__} is not a dataclass and has no fields to set; leave its settings out"
        )
    hints = get_type_hints(type(method))
    found: dict[str, Any] = {}
    for field in dataclasses.fields(method):
        part = getattr(method, field.name)
        if dataclasses.is_dataclass(part):
            found |= _annotations(part)
        elif field.init:
            found[field.name] = hints[field.name]
    return found


def _options(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type in a list of one."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _describe(annotation: Any) -> str:
    words = []
    for option in _options(annotation):
        if get_origin(option) is Literal:
            words += [str(value) for value in get_args(option)]
        elif get_origin(option) is tuple:
            words.append(f"{_describe(get_args(option)[0])},...")
        else:
            words.append("none" if option is type(None) else "yes|no" if option is bool else option.__name__)
    return "|".join(words)


def _render(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(_render(item) for item in value)
    return str(value)


_WORDS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


def _parse(name: str, annotation: Any, text: str) -> object:
    for option in _options(annotation):
        try:
            return _parse_one(name, option, text)
        except ValueError:
            continue
    raise ConfigError(f"{name}={text!r}; allowed is {_describe(annotation)}")


def _parse_one(name: str, option: Any, text: str) -> object:
    """Parse the text as one type; ValueError if it is not of that type."""
    if get_origin(option) is Literal:
        for value in get_args(option):
            if str(value) == text:
                return value
    elif get_origin(option) is tuple:
        return tuple(_parse_one(name, get_args(option)[0], part) for part in text.split(",") if part)
    elif option is type(None):
        if text.lower() == "none":
            return None
    elif option is bool:
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
    elif option in (int, float, str):
        return option(text)
    raise ValueError


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Parse `name=value` texts into a mapping.

    Raises:
        ConfigError: one is not of that form, or names a field again.
    """
    settings: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"{text!r} sets nothing; write FIELD=VALUE, for example tau_tem=0.85")
        if name.strip() in settings:
            raise ConfigError(
                f"{name.strip()} is set twice: {settings[name.strip()]!r} and {value!r}; give one of them"
            )
        settings[name.strip()] = value.strip()
    return settings


def parse_retentions(option: str, text: str) -> tuple[float, ...]:
    """Parse retained fractions with commas between them, each once.

    Args:
        option: where they were given, for the message.
        text: such as ``0.3,0.1``.

    Raises:
        ConfigError: one is not a number in (0, 1].
    """
    try:
        shares = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; write retained fractions with commas, such as 0.3,0.1") from error
    for share in shares:
        check_retention(share)
    return shares
