"""The user's ``config.toml``: defaults of options, for all commands or for one.

::

    budget = "6G"       # of every command that has --budget
    [generate]          # of one command
    temp = 0.2
    [models.pull]
    quiet = true

Keys are the long flags without their dashes. Owns the step from there to click's default map.
"""

import difflib
from collections.abc import Iterable
from typing import Any

import click

from moestream.cli.command import Option
from moestream.errors import ConfigError
from moestream.folders import config_dir, read_text


def load_defaults(group: click.Group) -> dict[str, Any]:
    """Return click's default map as the config file has it; empty if there is none.

    Raises:
        ConfigError: not TOML, or a table or key that no command has.
    """
    path = config_dir() / "config.toml"
    if not path.is_file():
        return {}
    import tomllib

    try:
        tables = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    general = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    _require_known(general, _flags(group), f"{path}: no command has an option")
    _require_plain(general, str(path))
    return _of_group(group, tables, general, str(path))


def _of_group(
    group: click.Group, tables: dict[str, Any], general: dict[str, Any], where: str
) -> dict[str, Any]:
    own = {key: value for key, value in tables.items() if isinstance(value, dict)}
    _require_known(own, group.commands, f"{where}: no command is called")
    defaults: dict[str, Any] = {}
    for name, command in group.commands.items():
        table = own.get(name, {})
        if isinstance(command, click.Group):
            shared = {key: value for key, value in table.items() if not isinstance(value, dict)}
            _require_known(shared, _flags(command), f"{where}: no command of {name} has an option")
            _require_plain(shared, f"{where}: {name}")
            defaults[name] = _of_group(command, table, general | shared, f"{where}: {name}")
        else:
            _require_known(table, _flags_of(command), f"{where}: {name} has no option")
            _require_plain(table, f"{where}: {name}")
            defaults[name] = _of_command(command, table, general)
    return defaults


def _of_command(
    command: click.Command, table: dict[str, Any], general: dict[str, Any]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for param in _options(command):
        if param.flag in table:
            value = table[param.flag]
        elif param.shared and param.flag in general:
            value = general[param.flag]
        else:
            continue
        if isinstance(value, list) and not param.multiple:
            raise ConfigError(
                f"{config_dir() / 'config.toml'}: {param.flag} is {value!r:.80}; one value was "
                "expected, not a list"
            )
        if param.is_flag and not isinstance(value, bool):
            raise ConfigError(
                f"{config_dir() / 'config.toml'}: {param.flag} is {value!r:.80}; true or false was "
                "expected"
            )
        many = value if isinstance(value, list) else [value]
        told = [item if param.is_flag else _as_on_a_command_line(item) for item in many]
        values[str(param.name)] = told if param.multiple else told[0]
    return values


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
    return [param for param in command.params if isinstance(param, Option)]


def _flags_of(command: click.Command) -> set[str]:
    return {param.flag for param in _options(command)}


def _flags(group: click.Group) -> set[str]:
    flags: set[str] = set()
    for command in group.commands.values():
        flags |= _flags(command) if isinstance(command, click.Group) else _flags_of(command)
    return flags


def _require_known(keys: Iterable[str], known: Iterable[str], complaint: str) -> None:
    names = sorted(known)
    for key in keys:
        if key not in names:
            close = difflib.get_close_matches(key, names)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
            )
            raise ConfigError(f"{complaint} {key!r}; {hint}")
