"""Commands and their settings: which source wins, what an unknown key is answered, how errors read.

Sources, strongest first: flags, environment, `.env`, secrets directory, TOML file (`--config`).
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from worker.errors import SettingsError, UserError
from worker.settings import Settings

PREFIX = "ZMU_"
SECRETS = "/run/secrets"

# Kubernetes tells every pod of a Service called zmu-worker by variables like ZMU_WORKER_PORT_9108_TCP_ADDR.
SERVICE_LINK = re.compile(r"ZMU_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


class Command(Settings):
    """One command of a program: its settings are the shared tree and its own flags."""

    summary: ClassVar[str] = ""
    renamed: ClassVar[dict[str, str]] = {}  # flags by another name than their field's
    file: ClassVar[dict[str, Any]] = {}     # what the TOML file says; read before the sources are merged

    def run(self) -> int:
        """Does it; returns the exit code."""
        raise NotImplementedError

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 – ours takes its place
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        secrets = NestedSecretsSettingsSource(
            file_secret_settings,
            secrets_dir=SECRETS,
            secrets_dir_missing="ok",
            secrets_prefix=PREFIX,
            secrets_nested_delimiter="__",
        )
        toml = InitSettingsSource(settings_cls, cls.file)
        return init_settings, env_settings, _DotEnv(settings_cls), secrets, toml


def main(program: str, commands: Mapping[str, type[Command]], argv: Sequence[str] | None = None) -> int:
    """Runs one command. What a user can mend is one message on stderr and exit code 2 (or the error's own)."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_usage(program, commands))
        return 0 if args else 2
    try:
        command = commands.get(args[0])
        if command is None:
            raise SettingsError(f"unknown command {args[0]!r}{_nearest(args[0], commands)}; see {program} --help")
        return read(command, f"{program} {args[0]}", args[1:]).run()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def read(command: type[Command], program: str, args: Sequence[str]) -> Command:
    """The command's settings from all sources.

    Raises SettingsError, with every fault named by the setting's environment variable and flag.
    """
    _refuse_unknown_variables(command)
    args = [_renamed(arg, command.renamed) for arg in args]
    command = type(command.__name__, (command,), {"file": _toml(args), "__doc__": command.__doc__})
    source: CliSettingsSource[Any] = CliSettingsSource(
        command,
        root_parser=_Parser(prog=program, description=command.summary, allow_abbrev=False),
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_exit_on_error=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=False,
    )
    try:
        return CliApp.run(command, cli_args=list(args), cli_settings_source=source, cli_cmd_method_name="_no_cmd")
    except ValidationError as error:
        raise SettingsError(_faults(command, error)) from None
    except SourceError as error:
        raise SettingsError(str(error)) from None
    except UnicodeEncodeError as error:
        raise SettingsError(f"a setting holds bytes that are not UTF-8 ({error.object!r})") from None
    except RecursionError:
        raise SettingsError("JSON of a setting is nested too deeply; docs/settings.md shows what they hold") from None


def variables(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf of the tree with its environment variable, in the order of the file."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from variables(section, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", field


def effective(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """`section.name`, value for every leaf; secrets are masked, unset ones empty."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from effective(value, f"{prefix}{name}.")
        elif isinstance(value, SecretStr):
            yield f"{prefix}{name}", "********"
        else:
            yield f"{prefix}{name}", "" if value is None else str(value)


def _usage(program: str, commands: Mapping[str, type[Command]]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in commands.items()]
    return "\n".join(
        [f"usage: {program} COMMAND [--section.name VALUE ...]", "", *lines, "",
         f"{program} COMMAND --help lists the settings; each can also be given in the environment,",
         "for instance --kafka.bootstrap-servers as ZMU_KAFKA__BOOTSTRAP_SERVERS."]
    )


def _refuse_unknown_variables(command: type[Command]) -> None:
    """pydantic-settings passes over variables it does not know; a mistyped one must not be passed over."""
    known = {name for name, _ in variables(command)}
    for name in sorted({*os.environ, *_dotenv()}):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper.startswith(f"{PREFIX}TEST_"):
            continue
        if f"{PREFIX}TRAINING" in known and upper.startswith(f"{PREFIX}TRAINING__"):
            continue                                     # the worker's tree: zmu-training checks these
        if any(k.startswith(f"{upper}__") for k in known):
            continue                                     # a whole section as JSON
        if SERVICE_LINK.fullmatch(upper):
            continue
        raise SettingsError(f"unknown setting {name}{_nearest(upper, known)}")


def _dotenv() -> dict[str, str | None]:
    return dotenv_values(".env") if Path(".env").is_file() else {}


def _faults(command: type[Command], error: ValidationError) -> str:
    lines = []
    secrets = {variable for variable, field in variables(command) if "Secret" in str(field.annotation)}
    for fault in error.errors(include_url=False):
        path = [str(part) for part in fault["loc"] if not isinstance(part, int)]
        name = ".".join(path)
        if fault["type"] == "extra_forbidden":
            near = _nearest(name, [".".join(_path(variable)) for variable, _ in variables(command)])
            lines.append(f"unknown setting {name}{near}")
        else:
            variable = f"{PREFIX}{'__'.join(path).upper()}"
            found = "" if fault["type"] == "missing" else _found(fault["input"], secret=variable in secrets)
            lines.append(f"{name} ({variable}): {found}{_said(fault['msg'])}")
    return "\n  ".join(lines)


def _found(value: object, secret: bool) -> str:
    """What was given; nothing of a whole section, which may hold secrets."""
    if isinstance(value, Mapping | BaseModel):
        return ""
    return f"found {'a secret' if secret or isinstance(value, SecretStr) else repr(value)[:80]}; "


def _said(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "it must be")


def _path(variable: str) -> list[str]:
    return variable.removeprefix(PREFIX).lower().split("__")


def _nearest(name: str, known: Mapping[str, object] | Sequence[str] | set[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


class _DotEnv(DotEnvSettingsSource):
    """A `.env` is shared with other programs: what does not begin with our prefix is theirs."""

    def __call__(self) -> dict[str, Any]:
        return EnvSettingsSource.__call__(self)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = re.search(r"unrecognized arguments: ([^\s=]+)", message)
        if unknown is not None:             # what is given to them may be a secret
            message = unknown[0] + _nearest(unknown[1], flags)
        raise SettingsError(f"{message}; see {self.prog} --help")


def _renamed(arg: str, names: Mapping[str, str]) -> str:
    flag, equals, value = arg.partition("=")
    return names.get(flag, flag) + equals + value


def _toml(args: Sequence[str]) -> dict[str, Any]:
    """The TOML file that `--config` or ZMU_CONFIG names: it must be known before the sources are merged."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", default=os.environ.get(f"{PREFIX}CONFIG") or _dotenv().get(f"{PREFIX}CONFIG"))
    named = finder.parse_known_args(list(args))[0].config
    if not named:
        return {}
    path = Path(named)
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"--config {path}: cannot be read ({error.strerror}); name an existing TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: not valid TOML: {error}") from None

