"""Writes docs/config.md from the models and the plug-ins; a test fails when it is stale."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import compressors
import strategies
from compressors.patterns import Pattern
from search import runtimes
from search.config import (
    BudgetConfig,
    LimitsConfig,
    RuntimeConfig,
    StopConfig,
    StrategyConfig,
    StudyConfig,
)
from search.metrics import METRICS
from search.registry import load
from search.report import knob_values
from strategies.space import Knob

HERE = Path(__file__).parent

HEADER = """# The config file

*Written by `make docs` from the code; do not edit.*

YAML 1.2. Every key has a default but `task`. Paths are relative to the config's folder. All
problems of a file are reported at once, each with its path in it, such as
`pipeline.0.structured_pruning.ratio.high`. `naslite init DIR` writes a commented example,
`naslite check CONFIG` validates a config with its task.
"""


def main() -> None:
    (HERE / "config.md").write_text(config_reference(), encoding="utf-8")


def config_reference() -> str:
    parts = [
        HEADER,
        _keys("Top-level keys", StudyConfig),
        _keys("`runtime`", RuntimeConfig),
        _keys("`strategy`", StrategyConfig),
        "A strategy without options may be given by its name alone: `strategy: random`.\n",
        _keys("`budget`", BudgetConfig),
        _keys("`stop`", StopConfig),
        "A rule without options may be given by its name alone: `stop: median`.\n",
        _keys("`limits`", LimitsConfig),
        _plugins("Strategies", "strategies", strategies.BUILTIN),
        *_strategy_options(),
        _plugins("Runtimes", "runtimes", runtimes.BUILTIN),
        _compressors(),
        _metrics(),
    ]
    return "\n".join(parts)


def _keys(title: str, model: type[BaseModel]) -> str:
    lines = [f"## {title}\n", "| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(
            f"| `{name}` | {_type(field.annotation)} | {_default(field)} |"
            f" {_cell(field.description or '')} |"
        )
    return "\n".join(lines) + "\n"


def _plugins(title: str, group: str, table: dict[str, str]) -> str:
    lines = [f"## {title}\n", "| name | what it is |", "|---|---|"]
    for name in table:
        found = load(group, group, name, table, HERE)
        lines.append(f"| `{name}` | {_cell(_first_paragraph(found))} |")
    return "\n".join(lines) + "\n"


def _strategy_options() -> list[str]:
    """A table for each strategy that has options: from its constructor and its docstring."""
    parts = []
    for name, rows in strategy_options().items():
        lines = [f"### Options of `{name}`\n", "| option | default | meaning |", "|---|---|---|"]
        for row in rows:
            shown = row.name if " " in row.name else f"`{row.name}`"
            lines.append(f"| {shown} | {row.default} | {_cell(row.meaning)} |")
        parts.append("\n".join(lines) + "\n")
    return parts


class Option(typing.NamedTuple):
    """An option of a strategy; `default` as it would stand in a config."""

    name: str
    default: str
    meaning: str


def strategy_options() -> dict[str, list[Option]]:
    """What each strategy with options takes; names that it checks itself have no default."""
    found = {}
    for strategy in strategies.BUILTIN:
        cls = load("strategy", "strategies", strategy, strategies.BUILTIN, HERE)
        meanings = _arguments(cls)
        parameters = inspect.signature(cls).parameters.values()
        options = [
            Option(p.name, _literal(p.default), meanings.pop(p.name, ""))
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]
        open_ended = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        options += [
            Option("other keys" if name in open_ended else name, "", meaning)
            for name, meaning in meanings.items()
        ]
        if options:
            found[strategy] = options
    return found


def _arguments(documented: Any) -> dict[str, str]:
    """The `Args` section of a docstring: name -> meaning in one line."""
    _, _, section = inspect.cleandoc(documented.__doc__ or "").partition("\nArgs:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break  # the next section
        entry = re.match(r"    \*{0,2}(\w+): *(.*)", line)
        if entry:
            name, found[entry[1]] = entry[1], entry[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _literal(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    return "" if default is None else f"`{json.dumps(default)}`"


def _compressors() -> str:
    lines = [
        "## Compressors and their knobs\n",
        "In a `pipeline` entry a scalar fixes a knob, a list or `{low, high, step, log}` searches",
        "it; a knob that is left out takes its default, which may be several values. The neutral",
        "value means no compression. A knob that is not active is absent from a candidate.",
    ]
    for name in compressors.BUILTIN:
        compressor = load("compressor", "compressors", name, compressors.BUILTIN, HERE)()
        lines += [
            f"\n### `{name}`\n",
            inspect.cleandoc(type(compressor).__doc__ or ""),
            "",
            "| knob | values | default | neutral | active when |",
            "|---|---|---|---|---|",
        ]
        for knob in compressor.knobs(None, None):
            when = knob.active_when
            lines.append(
                f"| `{knob.name}` | {_values(knob)} |"
                f" {_searched(knob)} | {_neutral(knob)} |"
                f" {f'`{when.knob} {when.op} {when.value}`' if when else 'always'} |"
            )
    return "\n".join(lines) + "\n"


def _values(knob: Knob) -> str:
    return "patterns of layers" if isinstance(knob, Pattern) else knob_values(knob.to_json())


def _neutral(knob: Knob) -> str:
    return "none" if knob.neutral == "" else f"`{knob.neutral}`"


def _searched(knob: Knob) -> str:
    if isinstance(knob, Pattern):
        return "none"
    return "all" if knob.default is None else knob_values(knob.resolve().to_json())


def _metrics() -> str:
    lines = [
        "## Metrics\n",
        "For objectives, constraints, `--where` and `--sort`; all are read off the exported file.",
        "`<score>` is the task's `score_name`. Latency metrics of a second and later batch size",
        "have its number in their names: `latency_ratio_batch32`.\n",
        "| metric | what it is |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {_cell(_first_paragraph(f))} |" for name, f in METRICS.items()]
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return " or ".join(str(value) for value in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(part) for part in inner if part is not type(None))
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return "mapping" if inner[1] is Any else f"mapping to {_type(inner[1])}"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, str(annotation))


def _default(field: Any) -> str:
    default = field.default
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return "see below"
    if default in (None, "", {}, []):
        return ""
    return f"`{json.dumps(default)}`"


def _first_paragraph(found: Any) -> str:
    return " ".join(inspect.cleandoc(found.__doc__ or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
