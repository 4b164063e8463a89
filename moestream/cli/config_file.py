"""The user's ``config.toml``: defaults of options, for all commands or for one.

::

    budget = "6G"       # of every command that has --budget
    [generate]          # of one command
    temp = 0.2
    [models.pull]
    quiet = true

Keys are an option's names without their dashes, any of them. Owns the step from there to click's
default map.
"""

import difflib
import os
from collections.abc import Iterable
from typing import Any

import click

from moestream.cli.command import Option
from moestream.errors import ConfigError
from moestream.folders import config_dir, link_told, read_text
from moestream.reasons import reason_of


def load_defaults(group: click.Group) -> dict[str, Any]:
    """Return click's default map as the config file has it; empty if there is none.

    Raises:
        ConfigError: not TOML, or a table or key that no command has.
    """
    path = config_dir() / "config.toml"
    if not os.path.lexists(path):
        return {}
    if not path.is_file():
        told = link_told(path) or f"{path} is no file; expected one with defaults of options"
        raise ConfigError(f"{told}; or remove it")
    import tomllib

    try:
        tables = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {reason_of(error)}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    general = _plain_of(tables, group, f"{path}: no command has an option", str(path))
    return _of_group(group, tables, general, str(path))


def _of_group(
    group: click.Group, tables: dict[str, Any], general: dict[str, Any], where: str
) -> dict[str, Any]:
    own = {key: value for key, value in tables.items() if isinstance(value, dict)}
    _require_known(own, group.commands, f"{where}: no command is called")
    defaults: dict[str, Any] = {}
    for name, command in group.commands.items():
        table, here = own.get(name, {}), f"{where}: {name}"
        if isinstance(command, click.Group):
            complaint = f"{where}: no command of {name} has an option"
            shared = general | _plain_of(table, command, complaint, here)
            defaults[name] = _of_group(command, table, shared, here)
        else:
            _require_known(map(_dashed, table), _names(command), f"{here} has no option")
            _require_plain(table, here)
            defaults[name] = _of_command(command, table, general, here)
    return defaults


def _plain_of(
    table: dict[str, Any], group: click.Group, complaint: str, where: str
) -> dict[str, Any]:
    """What a table sets for all commands of a group."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    _require_known(map(_dashed, plain), _names(group), complaint)
    _require_plain(plain, where)
    return plain


def _of_command(
    command: click.Command, table: dict[str, Any], general: dict[str, Any], where: str
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for param in _options(command):
        given = _given(param, table, where)
        if not given and param.shared:
            given = _given(param, general, where)
        for value in given:
            values[str(param.name)] = _as_given(param, value)
    return values


def _given(param: Option, table: dict[str, Any], where: str) -> list[Any]:
    """The value that a table has for an option, under any of its names; or none."""
    names = _names_of(param)
    found = {key: value for key, value in table.items() if _dashed(key) in names}
    if len(found) > 1:
        raise ConfigError(f"{where}: {' and '.join(found)} are one option; keep one of them")
    return list(found.values())


def _as_given(param: Option, value: Any) -> Any:
    """A value as the command line would have it."""
    told = f"{config_dir() / 'config.toml'}: {param.flag} is {value!r:.80}"
    if isinstance(value, list) and not param.multiple:
        raise ConfigError(f"{told}; one value was expected, not a list")
    if param.is_flag and not isinstance(value, bool):
        raise ConfigError(f"{told}; true or false was expected")
    many = value if isinstance(value, list) else [value]
    items = [item if param.is_flag else _as_on_a_command_line(item) for item in many]
    return items if param.multiple else items[0]


def _as_on_a_command_line(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _require_plain(values: dict[str, Any], where: str) -> None:
    """Refuse what is no text, number, true or false, nor a list of those."""
    for key, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | int | float):
                kinds: dict[type, str] = {dict: "a table", list: "a list in a list"}
                kind = kinds.get(type(item), "a date or time")
                raise ConfigError(
                    f"{where}: {key} is {kind}; expected a text, a number, true or false"
                )


def _options(command: click.Command) -> list[Option]:
    """The options of a command, or of all commands of a group."""
    if isinstance(command, click.Group):
        return [param for each in command.commands.values() for param in _options(each)]
    return [param for param in command.params if isinstance(param, Option)]


def _names_of(param: Option) -> set[str]:
    return {name.lstrip("-") for name in param.opts}


def _names(command: click.Command) -> set[str]:
    return {name for param in _options(command) for name in _names_of(param)}


def _dashed(key: str) -> str:
    return key.replace("_", "-")


def _require_known(keys: Iterable[str], known: Iterable[str], complaint: str) -> None:
    names = sorted(known)
    for key in keys:
        if key not in names:
            close = difflib.get_close_matches(key, names)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
            )
            raise ConfigError(f"{complaint} {key!r}; {hint}")
