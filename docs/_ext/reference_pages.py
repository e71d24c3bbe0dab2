"""Directives that write reference pages from what the program itself knows.

```{cli-stage} train          flags of a stage, from cli.STAGES
```{config-keys} train        config keys of a stage, from the dataclasses in clue_jax/config
```{config-files}             headers of the files in configs/
"""

import ast
import dataclasses
import enum
import inspect
import itertools
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from clue_jax import cli, cli_help

CONFIGS = Path(__file__).parents[2] / "configs"


class MarkdownDirective(SphinxDirective):
    """Puts the Markdown that `text` gives in its place."""

    required_arguments = 1
    final_argument_whitespace = True  # stages of two words

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.text(), allow_section_headings=True)

    def text(self) -> str:
        raise NotImplementedError

    def stage(self) -> cli.Stage:
        name = self.arguments[0]
        if name not in cli.STAGES:
            raise self.error(f"no stage {name!r}; stages: {', '.join(cli.STAGES)}")
        return cli.STAGES[name]


class CliStage(MarkdownDirective):
    """What a stage takes: synopsis, flags, an example."""

    def text(self) -> str:
        stage = self.stage()
        rows = [
            (f"`--{flag.name}`", cell(flag.help), f"`{flag.default}`" if flag.default else needed)
            for flag in stage.flags
            for needed in ["" if flag.optional or flag.kind is bool else "must be given"]
        ]
        summary = f"{stage.summary[0].upper()}{stage.summary[1:]}."
        parts = [cell(summary), code(cli_help.usage(cli.PROGRAM, stage))]
        if rows:
            parts.append(table(("flag", "what it is", "default"), rows))
        if stage.config:
            of = cli_help.ELSEWHERE.get(
                stage.config, stage.name
            )  # `compile` takes those of `train`
            link = f"[config keys](config.md#{of})"
            more = f"; without `--config` it is `{stage.default_config}`" * bool(
                stage.default_config
            )
            parts.append(f"`--config.KEY=VALUE` sets any of its {link}{more}.")
        return "\n\n".join([*parts, code(f"{cli.PROGRAM} {stage.example}")])


class ConfigKeys(MarkdownDirective):
    """Every key of the config of a stage: name, type, default, and the comment beside the field."""

    def text(self) -> str:
        stage = self.stage()
        if stage.config is None:
            raise self.error(f"{stage.name} has no config")
        return "\n\n".join(sections(stage.config()))


class ConfigFiles(MarkdownDirective):
    """The header of each file in configs/: what it is for, its variants, what came out."""

    required_arguments = 0

    def text(self) -> str:
        parts = []
        for path in sorted(CONFIGS.rglob("*.py")):
            header = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            parts += [f"## `configs/{path.relative_to(CONFIGS)}`", code(header, "text")]
        return "\n\n".join(parts)


def sections(defaults: Any) -> Iterator[str]:
    """A table of the keys of each group, and what enumerations and elements of lists mean."""
    groups: dict[str, list[tuple[str, str, Any, str]]] = {"": []}
    for key, *rest in cli_help.config_keys(defaults):
        prefix, _, name = key.rpartition(".")
        groups.setdefault(prefix, []).append((name, *rest))
    listed: list[tuple[str, type]] = []
    for prefix, rows in groups.items():
        kind = _class_at(type(defaults), prefix)
        yield _heading(prefix, kind)
        yield keys_table(rows)
        yield from _choices(kind, [name for name, *_ in rows])
        listed += [(f"{prefix}.{name}".strip("."), inner) for name, inner in _elements(kind)]
    for key, kind in listed:
        yield from _element_section(key, kind)


def _element_section(key: str, kind: type) -> Iterator[str]:
    yield f"**Each of `{key}`**, a `{kind.__name__}`. {_first_line(kind)}"
    fields = dataclasses.fields(kind)
    needed = [f for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    yield keys_table(list(cli_help.config_keys(kind(**{f.name: None for f in needed}))))
    yield from _choices(kind, [field.name for field in fields])
    for name, inner in _elements(kind):
        yield from _element_section(f"{key}[].{name}", inner)


def _heading(prefix: str, kind: type) -> str:
    return f"**`{prefix}`**. {_first_line(kind)}" if prefix else _first_line(kind)


def _class_at(kind: type, prefix: str) -> type:
    for name in filter(None, prefix.split(".")):
        kind = typing.get_type_hints(kind)[name]
    return kind


def _elements(kind: type) -> Iterator[tuple[str, type]]:
    """Fields that are lists of dataclasses, and of which."""
    for name, hint in typing.get_type_hints(kind).items():
        inner = next(iter(typing.get_args(hint)), None)
        if dataclasses.is_dataclass(inner):
            yield name, inner


def _choices(kind: type, names: list[str]) -> Iterator[str]:
    """What the values of enumerations mean, where they say so."""
    for name, hint in typing.get_type_hints(kind).items():
        if name in names and isinstance(hint, type) and issubclass(hint, enum.Enum):
            notes = cli_help.comments(hint)
            values = [
                f"`{member.name.lower()}`"
                + (f" ({notes[member.name]})" if member.name in notes else "")
                for member in hint
            ]
            yield cell(f"`{name}`: {'; '.join(values)}.")


def _first_line(kind: type) -> str:
    """The first paragraph of the docstring, where a person wrote one."""
    text = kind.__doc__ or ""
    if text.startswith(f"{kind.__name__}("):  # made by dataclass
        return ""
    return cell(inspect.cleandoc(text).partition("\n\n")[0])


def keys_table(rows: list[tuple[str, str, Any, str]]) -> str:
    """Rows of `config_keys` as a table."""
    lines = []
    for key, kind, value, note in rows:
        default = "must be given" if value is None else f"`{cli_help.shown(value)}`"
        lines.append(
            (
                f"`{key}`",
                cell(kind.replace(", ...", " ...").replace("|", " | ")),
                default if kind else "",
                cell(note),
            )
        )
    return table(("key", "type", "default", ""), lines)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Text that stays what it is in a cell of a table, but for its backticks."""
    odd = text.split("`")[::2]  # outside of backticks
    odd = [part.replace("*", r"\*").replace("_", r"\_").replace("<", r"\<") for part in odd]
    code_parts = [f"`{part}`" for part in text.split("`")[1::2]]
    joined = "".join(itertools.chain(*itertools.zip_longest(odd, code_parts, fillvalue="")))
    return " ".join(joined.replace("|", r"\|").split())


def code(text: str, language: str = "bash") -> str:
    """A fenced block."""
    return f"```{language}\n{text}\n```"


def setup(app: Sphinx) -> dict[str, bool]:
    for name, directive in (
        ("cli-stage", CliStage),
        ("config-keys", ConfigKeys),
        ("config-files", ConfigFiles),
    ):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
