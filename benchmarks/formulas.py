"""Columns derived from others by an affine formula: `100 - mean_acc`, `(a + b) / 2`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.errors import NasliteError
from search.registry import unknown_name

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<sign>[-+*/()])|`(?P<quoted>[^`]+)`|(?P<name>[A-Za-z_][\w.@]*))"
)
_FORM = "numbers and columns joined by + - * / and parentheses, `odd name` in backticks"


@dataclass(frozen=True, slots=True)
class Affine:
    """constant + sum of factor * column."""

    constant: float = 0.0
    factors: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, row: Mapping[str, Any]) -> Any:
        """The value of a row of numbers, or the values of columns."""
        return self.constant + sum(factor * row[name] for name, factor in self.factors.items())

    def plus(self, other: Affine, sign: float = 1.0) -> Affine:
        names = {**self.factors, **other.factors}
        return Affine(
            self.constant + sign * other.constant,
            {n: self.factors.get(n, 0.0) + sign * other.factors.get(n, 0.0) for n in names},
        )

    def times(self, number: float) -> Affine:
        return Affine(self.constant * number, {n: f * number for n, f in self.factors.items()})


def parse_formula(text: str, known: Mapping[str, Affine]) -> Affine:
    """What a formula means; it may use the `known` names.

    Raises:
        NasliteError: It is malformed, not affine, or uses an unknown name.
    """
    parser = _Parser(text, known)
    formula = parser.sum()
    if parser.tokens:
        raise parser.error(f"cannot read {parser.tokens[0][1]!r}")
    return formula


class _Parser:
    """Recursive descent.

    sum := product (+|- product)*   product := atom (*|/ atom)*
    atom := number | name | -atom | (sum)
    """

    def __init__(self, text: str, known: Mapping[str, Affine]) -> None:
        self.text = text
        self.known = known
        self.tokens: list[tuple[str, str]] = []
        position, stripped = 0, text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None or match.lastgroup is None:
                raise self.error(f"cannot read {stripped[position:].strip()!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()

    def error(self, what: str) -> NasliteError:
        return NasliteError(f"{what} in the formula {self.text!r}; write {_FORM}")

    def sum(self) -> Affine:
        left = self.product()
        while self._next_is("+", "-"):
            _, sign = self.tokens.pop(0)
            left = left.plus(self.product(), 1.0 if sign == "+" else -1.0)
        return left

    def product(self) -> Affine:
        left = self.atom()
        while self._next_is("*", "/"):
            _, sign = self.tokens.pop(0)
            left = self._multiplied(left, self.atom(), divided=sign == "/")
        return left

    def _multiplied(self, left: Affine, right: Affine, *, divided: bool) -> Affine:
        if divided:
            if right.factors or not right.constant:
                raise self.error("a column may be divided by a number other than 0 only")
            return left.times(1 / right.constant)
        if left.factors and right.factors:
            raise self.error("columns cannot be multiplied with each other")
        return left.times(right.constant) if left.factors else right.times(left.constant)

    def atom(self) -> Affine:
        if not self.tokens:
            raise self.error("expected a number or a column at the end")
        kind, text = self.tokens.pop(0)
        if kind == "number":
            return Affine(float(text))
        if kind in ("name", "quoted"):
            if text not in self.known:
                raise NasliteError(unknown_name("column", text, self.known))
            return self.known[text]
        if text == "-":
            return self.atom().times(-1.0)
        if text == "(":
            inner = self.sum()
            if not self._next_is(")"):
                raise self.error("expected )")
            self.tokens.pop(0)
            return inner
        raise self.error(f"expected a number or a column at {text!r}")

    def _next_is(self, *signs: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in [("sign", sign) for sign in signs]
