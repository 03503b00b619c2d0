"""Comparisons over metrics: `accuracy_drop <= 0.01 and not (size_bytes > 2e5 or state == failed)`.

expression := term ("or" term)*        term   := factor ("and" factor)*
factor     := "not" factor | "(" expression ")" | name op literal
op         := <= < >= > == !=          literal := number | word | 'text'
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import ExpressionError
from .registry import unknown_name

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPPOSITES = {"<=": ">", ">": "<=", "<": ">=", ">=": "<", "==": "!=", "!=": "=="}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))"
    r"|(?P<op><=|>=|==|!=|<|>)"
    r"|(?P<paren>[()])"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<name>[A-Za-z_][\w.@]*))"
)
_WORDS = ("and", "or", "not")
_DEPTH = 50  # of parentheses and nots
_FORM = 'write it as "METRIC <= NUMBER", joined by and, or, not and parentheses'


@dataclass(frozen=True, slots=True)
class Comparison:
    """`name op literal`; false where the name has no value."""

    name: str
    op: str
    literal: float | str

    def holds(self, row: Mapping[str, Any]) -> bool:
        value = row.get(self.name)
        if value is None:
            return False
        if isinstance(value, bool) and isinstance(self.literal, str):
            value = str(value).lower()
        if isinstance(value, str) != isinstance(self.literal, str):
            return self.op == "!="
        return OPERATORS[self.op](value, self.literal)

    def names(self) -> set[str]:
        return {self.name}

    def __str__(self) -> str:
        if isinstance(self.literal, str):
            quote = '"' if "'" in self.literal else "'"
            return f"{self.name} {self.op} {quote}{self.literal}{quote}"
        number = float(self.literal)
        text = str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
        return f"{self.name} {self.op} {text}"


@dataclass(frozen=True, slots=True)
class Not:
    part: Expression

    def holds(self, row: Mapping[str, Any]) -> bool:
        return not self.part.holds(row)

    def names(self) -> set[str]:
        return self.part.names()

    def __str__(self) -> str:
        return f"not ({self.part})"


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts joined by `and` (all hold) or `or` (one holds)."""

    word: str
    parts: tuple[Expression, ...]

    def holds(self, row: Mapping[str, Any]) -> bool:
        results = (part.holds(row) for part in self.parts)
        return all(results) if self.word == "and" else any(results)

    def names(self) -> set[str]:
        return set().union(*(part.names() for part in self.parts))

    def __str__(self) -> str:
        shown = (f"({p})" if isinstance(p, Joined) else str(p) for p in self.parts)
        return f" {self.word} ".join(shown)


Expression = Comparison | Not | Joined


def comparisons(expression: Expression) -> Iterator[Comparison]:
    """All comparisons of an expression, wherever they stand in it."""
    if isinstance(expression, Comparison):
        yield expression
        return
    for part in (expression.part,) if isinstance(expression, Not) else expression.parts:
        yield from comparisons(part)


def parse(text: str, known: Iterable[str] | None = None) -> Expression:
    """The expression that a text means; `known` are the names it may use.

    Raises:
        ExpressionError: It is malformed or uses an unknown name.
    """
    parser = _Parser(text)
    expression = parser.expression()
    if parser.peek() is not None:
        raise parser.error("expected and, or, or the end")
    if known is not None:
        names = set(known)
        for name in sorted(expression.names() - names):
            whole = sorted(k for k in names if k.endswith(f".{name}"))
            said = unknown_name("metric", name, names)
            if whole:
                said = f"unknown metric {name!r}; a knob is named in full: {', '.join(whole)}"
            raise ExpressionError(f"{said} (in {text!r})")
    return expression


def conjuncts(expression: Expression) -> tuple[Expression, ...]:
    """The expressions that must all hold for it to hold."""
    if isinstance(expression, Joined) and expression.word == "and":
        return tuple(part for joined in expression.parts for part in conjuncts(joined))
    return (expression,)


def is_limit(expression: Expression) -> bool:
    """Whether it bounds a value by a number: what a constraint may be."""
    return (
        isinstance(expression, Comparison)
        and expression.op not in ("==", "!=")
        and not isinstance(expression.literal, str)
    )


def parse_constraint(text: str) -> Comparison:
    """A single comparison of a metric with a number, by <=, <, >= or >.

    Raises:
        ExpressionError: It is something else.
    """
    expression = parse(text)
    if not isinstance(expression, Comparison):
        raise ExpressionError(
            f"a constraint must be one comparison, got {text!r}; write each as an item of its own"
        )
    if not is_limit(expression):
        raise ExpressionError(
            f"a constraint must compare a metric with a number by <=, <, >= or >, got {text!r}"
        )
    return expression


def violation(constraint: Comparison, value: float) -> float:
    """How far a value is off, relative to the bound: 0 if the constraint holds, else > 0."""
    if constraint.holds({constraint.name: value}):
        return 0.0
    bound = float(constraint.literal)
    excess = abs(value - bound) / (abs(bound) or 1.0)
    return excess or math.ulp(1.0)  # `<` broken by equality


def shortfall(expression: Expression, row: Mapping[str, Any]) -> float:
    """How far a row is from meeting an expression: 0 if it does, else > 0.

    A comparison of numbers is off as a `violation` is, any other by 1; `and` adds up, `or` takes
    the least.
    """
    if expression.holds(row):
        return 0.0
    if isinstance(expression, Comparison):
        value = row.get(expression.name)
        is_number = isinstance(value, (int, float)) and not isinstance(expression.literal, str)
        if not is_number or expression.op == "!=":
            return 1.0
        return violation(expression, float(value or 0))
    if isinstance(expression, Joined):
        parts = [shortfall(part, row) for part in expression.parts]
        return sum(parts) if expression.word == "and" else min(parts)
    return shortfall(_negated(expression.part), row)


def _negated(expression: Expression) -> Expression:
    """The opposite without a `not` outside; for rows that have a value for every name."""
    if isinstance(expression, Not):
        return expression.part
    if isinstance(expression, Comparison):
        return replace(expression, op=_OPPOSITES[expression.op])
    word = "or" if expression.word == "and" else "and"
    return Joined(word, tuple(Not(part) for part in expression.parts))


def violations(constraint: Comparison, values: np.ndarray) -> np.ndarray:
    """`violation` of each value."""
    bound = float(constraint.literal)
    excess = np.abs(values - bound) / (abs(bound) or 1.0)
    excess[excess == 0] = math.ulp(1.0)
    excess[OPERATORS[constraint.op](values, bound)] = 0.0
    return excess


def _hint(rest: str) -> str:
    """What somebody should write instead of something that cannot be read."""
    if rest.startswith("%") or re.match(r"[\d.]+\s*%", rest):
        return "write a share as a number, 0.01 for 1 %"
    if re.match(r"[\d.]*\s*[kMG]i?B?\b", rest):
        return "write sizes in bytes, 60e3 for 60 kB"
    if re.match(r"=(?![=<>])", rest):
        return "write == for equal"
    if re.match(r"=[<>]", rest):
        return "write <= or >="
    if re.match(r"[<>]=?\s*[-+\d.]", rest):
        return "write two comparisons, joined by and"
    return _FORM


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        self.next = 0
        self.depth = 0
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None or match.lastgroup is None:
                at = len(stripped[position:]) - len(stripped[position:].lstrip()) + position
                hint = _hint(stripped[at:])
                raise ExpressionError(
                    f"cannot read {text!r} at {stripped[at:]!r} (character {at + 1}); {hint}"
                )
            kind = match.lastgroup
            self.tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()

    def peek(self) -> tuple[str, str] | None:
        return self.tokens[self.next][:2] if self.next < len(self.tokens) else None

    def take(self) -> tuple[str, str] | None:
        token = self.peek()
        self.next += 1
        return token

    def error(self, expected: str) -> ExpressionError:
        if self.next < len(self.tokens):
            at = self.tokens[self.next][2]
            where, hint = f"at {self.text[at:]!r} (character {at + 1})", _hint(self.text[at:])
        else:
            where, hint = "at the end", _FORM
        return ExpressionError(f"{expected} {where} of {self.text!r}; {hint}")

    def expression(self) -> Expression:
        return self.joined("or", self.term)

    def term(self) -> Expression:
        return self.joined("and", self.factor)

    def joined(self, word: str, part: Callable[[], Expression]) -> Expression:
        parts = [part()]
        while self.peek() == ("name", word):
            self.take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def factor(self) -> Expression:
        self.depth += 1
        if self.depth > _DEPTH:
            raise self.error(f"expected at most {_DEPTH} parentheses and nots in each other")
        found = self.nested()
        self.depth -= 1
        return found

    def nested(self) -> Expression:
        token = self.peek()
        if token == ("name", "not"):
            self.take()
            return Not(self.factor())
        if token == ("paren", "("):
            self.take()
            inner = self.expression()
            if self.peek() != ("paren", ")"):
                raise self.error("expected )")
            self.take()
            return inner
        return self.comparison()

    def comparison(self) -> Comparison:
        token = self.peek()
        if token is None or token[0] != "name" or token[1] in _WORDS:
            raise self.error("expected a metric")
        self.take()
        op = self.peek()
        if op is None or op[0] != "op":
            raise self.error("expected one of " + " ".join(OPERATORS))
        self.take()
        literal = self.peek()
        if literal is None or literal[0] not in ("number", "name", "text") or literal[1] in _WORDS:
            raise self.error("expected a number or a word")
        kind, text = literal
        if kind == "number" and not math.isfinite(float(text)):
            raise self.error("expected a finite number")
        self.take()
        value = float(text) if kind == "number" else text[1:-1] if kind == "text" else text
        return Comparison(token[1], op[1], value)
