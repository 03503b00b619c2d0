"""The YAML that says what the columns of a table mean, checked by a schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from search.errors import NasliteError
from search.registry import unknown_name

Scalar = bool | int | float | str
ScalarKey = tuple[bool, Scalar]
_GOALS = {"minimize": "min", "maximize": "max"}
_WORST = re.compile(r"worst(?:\s*\*\s*(?P<factor>\d+\.?\d*|\.\d+))?")


def scalar_key(value: Scalar) -> ScalarKey:
    """Equal for equal values; true is not 1, and false is not 0."""
    return isinstance(value, bool), value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class KnobSpec(Section):
    """A knob column; a bare value means `{neutral: value}`.

    Args:
        levels: In the order of their meaning; default: sorted, or as they come if they are text.
        ordered: Whether neighbours are alike; default: true for numbers, false for text.
        direction: up = later levels compress more; default: away from a neutral end of the levels.
    """

    neutral: Scalar
    levels: list[Scalar] | None = Field(None, min_length=1)
    ordered: bool | None = None
    direction: Literal["up", "down", "none"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"neutral": value} if isinstance(value, (bool, int, float, str)) else value


class ObjectiveSpec(Section):
    """An objective; a bare `min` or `max` means `{goal: min}`.

    Args:
        goal: min or max; minimize and maximize, as in a study's config, mean the same.
        reference: A number, `worst` (of the table) or `worst * 1.02`; default: the latter for
            what is minimised and positive, else the former.
    """

    goal: Literal["min", "max"]
    reference: float | str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"goal": value}
        if isinstance(value, dict):
            goal = value.get("goal")
            value = {**value, "goal": _GOALS.get(goal, goal) if isinstance(goal, str) else goal}
        return value

    @model_validator(mode="after")
    def _known_form(self) -> ObjectiveSpec:
        if isinstance(self.reference, str) and not _WORST.fullmatch(self.reference.strip()):
            raise ValueError(
                "the reference must be a number, `worst` or `worst * 1.02`,"
                f" got {self.reference!r}"
            )
        return self

    def corner(self, worst: float) -> float:
        """The reference in the objective's own direction; `worst` is that of the table."""
        reference = self.reference
        if reference is None:
            reference = "worst * 1.02" if self.goal == "min" and worst > 0 else "worst"
        if not isinstance(reference, str):
            return float(reference)
        match = _WORST.fullmatch(reference.strip())
        assert match is not None  # checked when the file was read
        return worst * float(match["factor"] or 1.0)


class TableSpec(Section):
    """What the columns of a table mean.

    Args:
        path: A csv or csv.gz with a header, below the data folder or beside this file.
        where: Columns that must have these values; other rows are left out.
        knobs: Column, or pattern of columns (`layer*`), -> its levels.
        missing: What a combination of levels without a row, or with an empty metric, means:
            a `refused` candidate (default), or an `error` of the table.
        derived: Name -> affine formula of columns: `err: 100 - mean_acc`.
        quality: The objective that says how good a model is; default: the first.
        limits: `err <= 20`: what breaks one counts nothing in the hypervolume.
        noise: Column -> columns of which one measurement draws one; used by `NAME+noise`.
    """

    title: str = ""
    path: str
    where: dict[str, Scalar] = {}
    knobs: dict[str, KnobSpec] = Field(min_length=1)
    missing: Literal["refused", "error"] = "refused"
    derived: dict[str, str] = {}
    objectives: dict[str, ObjectiveSpec] = Field(min_length=1, max_length=3)
    quality: str | None = None
    limits: list[str] = []
    noise: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _quality_is_an_objective(self) -> TableSpec:
        if self.quality is not None and self.quality not in self.objectives:
            raise ValueError(
                "quality must be one of the objectives: "
                + unknown_name("objective", self.quality, self.objectives)
            )
        return self


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The mapping in a YAML file.

    Raises:
        NasliteError: The file cannot be read, or holds something else; one line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NasliteError(f"{path}: cannot read the problem: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, label: str) -> Mapping[str, Any]:
    """The mapping that a YAML text holds.

    Raises:
        NasliteError: It holds something else; one line that begins with the label.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise NasliteError(f"{label}: {where}{problem}") from None
    if not isinstance(content, dict):
        raise NasliteError(f"{label}: must be keys and values, got {content!r}")
    return {str(key): value for key, value in content.items()}


def read_problem_file(path: Path) -> TableSpec:
    """The checked content of a problem file.

    Raises:
        NasliteError: What is wrong first, in one line: file, key, rule and what was got.
    """
    try:
        return TableSpec.model_validate(read_yaml(path))
    except ValidationError as error:
        # A value that is of none of several types is one problem and not one for each type.
        lines = dict.fromkeys(_one_line(dict(details)) for details in error.errors())
        first, more = next(iter(lines)), len(lines) - 1
        raise NasliteError(f"{path}: {first}" + f" (and {more} more)" * bool(more)) from None


_SECTIONS: Mapping[str, type[Section]] = {"knobs": KnobSpec, "objectives": ObjectiveSpec}
_SHORT = {"knobs": "the neutral level alone", "objectives": "`min` or `max` alone"}
_TYPES = ("bool", "int", "float", "str")
_RULES = {
    "dict_type": "must be keys and values",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
    "too_long": "must be three at most",
}


def _one_line(details: dict[str, Any]) -> str:
    location, kind = [str(part) for part in details["loc"]], details["type"]
    got = f"got {details.get('input')!r}"
    if len(location) > 2 and location[-1] in _TYPES:  # pydantic names the types that it tried
        where = ".".join(location[:-1])
        if location[-2] == "reference":
            return f"{where}: must be a number, `worst` or `worst * 1.02`, {got}"
        return f"{where}: must be a number, a text, true or false, {got}"
    where = ".".join(location)
    if kind == "extra_forbidden":
        section = _SECTIONS[location[0]] if len(location) > 1 else TableSpec
        return f"{where}: {unknown_name('key', location[-1], section.model_fields)}"
    if kind == "missing":
        return f"{where}: this key is required"
    if kind == "value_error":
        message = str(details["ctx"]["error"])
        return f"{where}: {message}" if where else message
    if kind == "model_type":
        keys = ", ".join(_SECTIONS[location[0]].model_fields)
        return f"{where}: must be keys and values ({keys}) or {_SHORT[location[0]]}, {got}"
    rule = _RULES.get(kind, details["msg"][0].lower() + details["msg"][1:])
    return f"{where}: {rule}, {got}"
