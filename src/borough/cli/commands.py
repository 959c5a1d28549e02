"""How commands are declared: lazy groups, options that every command takes, an example in every help text.

Nothing here imports more than click, so that help is instant.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Function = TypeVar("Function", bound=Callable[..., Any])

COMMON_OPTIONS_TITLE: Final = "Common options"


@dataclass(slots=True, kw_only=True)
class Invocation:
    """What the common options said, on whichever level they stood."""

    json: bool = False
    verbose: bool = False
    town: str = "."
    server: str | None = None
    api_key: str | None = None
    no_start: bool = False
    socket: str | None = None
    no_color: bool = False


def invocation() -> Invocation:
    """Return what the common options of the present command line said."""
    return click.get_current_context().ensure_object(Invocation)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    told = context.ensure_object(Invocation)
    if value and parameter.name:
        setattr(told, parameter.name, value)


def common_options() -> list[click.Parameter]:
    """Return fresh options that every command takes."""
    return [
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_remember, help="One JSON document."),
        click.Option(
            ["-t", "--town"],
            metavar="PATH",
            expose_value=False,
            callback=_remember,
            help="The town's folder, or one below it.  [default: .]",
        ),
        click.Option(
            ["-s", "--server"],
            metavar="ADDR",
            expose_value=False,
            callback=_remember,
            help="A server, instead of the town's; a controller, instead of the saved one.",
        ),
        click.Option(
            ["-k", "--api-key"],
            metavar="KEY",
            expose_value=False,
            callback=_remember,
            help="Who asks; better in TOWNHALL_API_KEY or (for the fleet) TT_API_KEY, where others cannot see it.",
        ),
        click.Option(
            ["--no-start"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Start no server where none runs.",
        ),
        click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_remember, help="Say more."),
    ]


def shell_options() -> list[click.Parameter]:
    """Return fresh options that every command of the daemon's shell takes."""
    return [
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_remember, help="One JSON document."),
        click.Option(
            ["--socket"],
            metavar="PATH",
            expose_value=False,
            callback=_remember,
            help="The daemon's socket for operators.  [default: $SCARAB_SOCKET, the town's here, your own]",
        ),
        click.Option(["--no-color"], is_flag=True, expose_value=False, callback=_remember, help="Never in colour."),
        click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_remember, help="Say more."),
    ]


Options = Callable[[], list[click.Parameter]]

COMMON_NAMES: Final = frozenset(option.name for option in (*common_options(), *shell_options()))


class Described(click.Command):
    """A command with an example and the common options."""

    def __init__(self, *arguments: Any, example: str, common: Options = common_options, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.example = example
        taken = {option for parameter in self.params for option in parameter.opts}
        for option in common():
            longs = [word for word in option.opts if word.startswith("--")]
            if not taken.intersection(longs):
                option.opts = [word for word in option.opts if word not in taken]  # its letter may mean another here
                self.params.append(option)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first, the common ones after."""
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if record is not None:
                (common if parameter.name in COMMON_NAMES or "--help" in parameter.opts else own).append(record)
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        with formatter.section(COMMON_OPTIONS_TITLE):
            formatter.write_dl(common)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example, line by line as it is."""
        del context
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class LazyGroup(click.Group):
    """A group that knows its commands by name and sentence and imports one only when it is called."""

    def __init__(
        self,
        *arguments: Any,
        table: Mapping[str, tuple[str, str]],
        example: str,
        sections: Mapping[str, Sequence[str]] | None = None,
        common: Options = common_options,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self.table = table
        """Name → (``module:attribute``, sentence)."""
        self.example = example
        self._sections = sections or {"Commands": tuple(table)}
        self.params.extend(common())

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names, in the order in which help shows them."""
        del context
        return [name for names in self._sections.values() for name in names]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import and return a command."""
        del context
        if name not in self.table:
            return None
        module, _, attribute = self.table[name][0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        return command

    def shell_complete(self, context: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete names from the table, so that a keystroke imports no command."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=sentence)
            for name, (_, sentence) in self.table.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, context, incomplete)]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and sentences from the table."""
        del context
        for title, names in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.table[name][1]) for name in names])

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        Described.format_epilog(self, context, formatter)  # type: ignore[arg-type]  # needs only ``example``

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called; an unknown one is told with the nearest known."""
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as problem:
            import difflib

            near = difflib.get_close_matches(arguments[0], self.table, n=1)
            if near:
                told = f"{problem.message.rstrip('.')}. Did you mean {near[0]!r}?"
                raise click.UsageError(told, problem.ctx) from None
            raise


def command(name: str, *, example: str, common: Options = common_options) -> Callable[[Callable[..., Any]], Described]:
    """Declare a command; its docstring is its help."""

    def declare(function: Callable[..., Any]) -> Described:
        made = click.command(name, cls=Described, example=example, common=common)(function)
        assert isinstance(made, Described)  # noqa: S101 - what ``cls`` promises, told to the type checker
        return made

    return declare


def self_reference() -> str | None:
    """Return who this program speaks for inside an agent's CLI: the agent's id, else its name."""
    return os.environ.get("TINYTOWN_AGENT_ID") or os.environ.get("TINYTOWN_AGENT_NAME") or None
