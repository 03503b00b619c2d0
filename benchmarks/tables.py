"""A table of measured candidates as a search problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from search.errors import NasliteError
from search.expressions import parse_constraint
from search.goals import Goals
from search.registry import unknown_name
from strategies.space import Candidate, Choice, Space

from .columns import Column, CsvTable
from .formulas import Affine, parse_formula
from .problem import Problem, hypervolume_of, true_front
from .problem_file import KnobSpec, Scalar, TableSpec, read_problem_file, scalar_key

DIRECTIONS = {"up": 1, "down": -1, "none": 0}


def table_problem(path: Path, data: Path | None, *, noisy: bool = False) -> Problem:
    """The problem that a YAML file describes.

    Args:
        data: Where the table is looked for first; then beside the YAML file.
        noisy: Measurements draw from the columns of `noise:`.

    Raises:
        NasliteError: What is wrong with the file or its table, in one line.
    """
    spec = read_problem_file(path)
    try:
        return _problem(spec, path, _found(spec.path, path, data), noisy)
    except (NasliteError, ValueError) as error:
        raise NasliteError(f"{path}: {error}") from None


class TableRows:
    """The metrics of the candidates that have a row; the others are refused.

    Args:
        formulas: Metric -> what it is made of.
        noise: Column -> columns of which one measurement draws one.
        paths: Column -> the key of the YAML file that speaks of it; others are metrics.
    """

    def __init__(
        self,
        space: Space,
        formulas: Mapping[str, Affine],
        noise: Mapping[str, Sequence[str]],
        table: CsvTable,
        paths: Mapping[str, str],
    ) -> None:
        self.formulas = formulas
        self.noise = noise
        used = {name for formula in formulas.values() for name in formula.factors}
        drawn = {name for columns in noise.values() for name in columns}
        self.columns = {name: table.numbers(name, paths[name]) for name in sorted(used | drawn)}
        self.metrics: dict[str, Column] = {
            name: np.broadcast_to(formula(self.columns), (len(table.rows),))
            for name, formula in formulas.items()
        }
        needed = [*self.metrics.values(), *(self.columns[name] for name in drawn)]
        self.complete: Column = np.isfinite(np.array(needed)).all(axis=0)
        self._levels = [(k.name, {scalar_key(k.at(i)): i for i in range(k.size)}) for k in space]
        positions = []
        for name, levels in self._levels:
            found = [levels.get(scalar_key(value)) for value in table.scalars(name, "knobs")]
            if None in found:
                number = found.index(None)
                value = table.scalars(name, "knobs")[number]
                known = ", ".join(repr(level) for _, level in levels)
                raise NasliteError(
                    f"knobs.{name}.levels: must hold every value of the column,"
                    f" got {value!r} in row {number + 1}; levels: {known}"
                )
            positions.append(found)
        self.rows: dict[tuple[int, ...], int] = {}
        for row, key in enumerate(zip(*positions, strict=True)):
            if key in self.rows:
                raise NasliteError(
                    f"knobs: rows {self.rows[key] + 1} and {row + 1} have the same knobs;"
                    " a candidate must have one row"
                )
            self.rows[key] = row
        self.rows = {key: row for key, row in self.rows.items() if self.complete[row]}

    def exact(self, candidate: Candidate) -> Mapping[str, float] | None:
        row = self._row(candidate)
        if row is None:
            return None
        return {name: float(column[row]) for name, column in self.metrics.items()}

    def measured(self, candidate: Candidate, seed: int, visit: int) -> Mapping[str, float] | None:
        row = self._row(candidate)
        if row is None or not self.noise:
            return self.exact(candidate)
        cells = {name: float(column[row]) for name, column in self.columns.items()}
        # One draw for all noisy columns: the metrics of one training belong together.
        position = np.random.default_rng([seed, row, visit]).random()
        for name, columns in self.noise.items():
            cells[name] = cells[columns[int(position * len(columns))]]
        return {name: formula(cells) for name, formula in self.formulas.items()}

    def _row(self, candidate: Candidate) -> int | None:
        return self.rows.get(
            tuple(levels[scalar_key(candidate[name])] for name, levels in self._levels)
        )


def _problem(spec: TableSpec, path: Path, source: Path, noisy: bool) -> Problem:
    if noisy and not spec.noise:
        raise NasliteError("noise: this key is required to run the problem with noise")
    table = CsvTable(source, spec.where)
    space = Space(_knobs(spec, table))
    formulas = _formulas(spec, table.header)
    goals = _goals(spec, formulas)
    noise: Mapping[str, Sequence[str]] = spec.noise if noisy else {}
    needed = [*goals.objectives, *(limit.name for limit in goals.constraints)]
    paths = _paths(spec, goals, formulas)
    evaluator = TableRows(space, {name: formulas[name] for name in needed}, noise, table, paths)
    missing = (space.size or 0) - len(evaluator.rows)
    if missing and spec.missing == "error":
        raise NasliteError(f"missing: {missing:,} of {space.size:,} candidates have no row")
    front, corner = _front_and_corner(evaluator, goals, spec)
    hypervolume = hypervolume_of(front, corner)
    if not hypervolume > 0:
        raise NasliteError("objectives: no row is better than the reference point")
    if evaluator.exact(space.baseline()) is None:
        raise NasliteError(f"knobs: the neutral candidate {space.baseline()!r} has no row")
    inside = int((front < np.array(corner)).all(axis=1).sum())
    title = spec.title or path.stem
    return Problem(
        name=path.stem.replace("_", "-") + "+noise" * noisy,
        title=title + ", with noise" * noisy,
        space=space,
        goals=goals,
        reference=corner,
        hypervolume=hypervolume,
        quality=spec.quality or next(iter(goals.objectives)),
        evaluator=evaluator,
        refuses=missing > 0,
        facts={
            "candidates": f"{space.size:,}, {len(evaluator.rows):,} of them with a row",
            "true front": f"{inside} distinct points below the reference, by brute force",
        },
    )


def _found(name: str, beside: Path, data: Path | None) -> Path:
    folders = [*([data] if data else []), beside.parent]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = " and ".join(str(folder) for folder in folders)
    raise NasliteError(
        f"path: no file {name!r} in {looked}; give --data DIR or set NASLITE_BENCH_DATA"
    )


def _knobs(spec: TableSpec, table: CsvTable) -> list[Choice]:
    """One knob per column that a name or pattern means, in the order of the columns."""
    specs: dict[str, KnobSpec] = {}
    for pattern, knob in spec.knobs.items():
        exact = pattern in table.header
        names = [n for n in table.header if (n == pattern if exact else fnmatchcase(n, pattern))]
        if not names:
            raise NasliteError(f"knobs: {unknown_name('column', pattern, table.header)}")
        for name in names:
            if name in specs:
                raise NasliteError(f"knobs: column {name!r} must be meant once, got {pattern!r}")
            specs[name] = knob
    return [_knob(name, specs[name], table) for name in table.header if name in specs]


def _knob(name: str, spec: KnobSpec, table: CsvTable) -> Choice:
    values = table.scalars(name, "knobs")
    text = any(isinstance(value, str) for value in values)
    levels: list[Scalar] = spec.levels or list(dict.fromkeys(values))
    if spec.levels is None and not text:
        levels = sorted(levels)
    ordered = not text if spec.ordered is None else spec.ordered
    if ordered and text and spec.levels is None:
        raise NasliteError(f"knobs.{name}.levels: needed, as words have no order of their own")
    keys = [scalar_key(level) for level in levels]
    if scalar_key(spec.neutral) not in keys:
        known = ", ".join(repr(level) for level in levels)
        raise NasliteError(f"knobs.{name}.neutral: must be one of {known}, got {spec.neutral!r}")
    if spec.direction in ("up", "down") and not ordered:
        raise NasliteError(f"knobs.{name}.direction: needs an ordered knob; set `ordered: true`")
    if spec.direction is not None:
        direction = DIRECTIONS[spec.direction]
    else:
        ends = {keys[0]: 1, keys[-1]: -1}
        direction = ends.get(scalar_key(spec.neutral), 0) if ordered and len(levels) > 1 else 0
    return Choice(
        name=name,
        values=tuple(levels),
        neutral=levels[keys.index(scalar_key(spec.neutral))],
        ordered=ordered,
        direction=direction,
    )


def _formulas(spec: TableSpec, header: Sequence[str]) -> dict[str, Affine]:
    """Every column and every derived one by name."""
    formulas = {name: Affine(factors={name: 1.0}) for name in header}
    for name, text in spec.derived.items():
        if name in header:
            raise NasliteError(
                f"derived.{name}: must not be the name of a column, got {name!r}; choose another"
            )
        try:
            formulas[name] = parse_formula(text, formulas)
        except NasliteError as error:
            raise NasliteError(f"derived.{name}: {error}") from None
    for name, columns in spec.noise.items():
        for column in (name, *columns):
            if column not in header:
                raise NasliteError(f"noise.{name}: {unknown_name('column', column, header)}")
        if not columns:
            raise NasliteError(f"noise.{name}: must name at least one column, got []")
    return formulas


def _goals(spec: TableSpec, formulas: Mapping[str, Affine]) -> Goals:
    words = {"min": "minimize", "max": "maximize"}
    objectives = {name: words[goal.goal] for name, goal in spec.objectives.items()}
    for name in objectives:
        if name not in formulas:
            raise NasliteError(f"objectives.{name}: {unknown_name('column', name, formulas)}")
    limits = []
    for position, text in enumerate(spec.limits):
        try:
            limits.append(parse_constraint(text))
        except NasliteError as error:
            raise NasliteError(f"limits.{position}: {error}") from None
        if limits[-1].name not in formulas:
            unknown = unknown_name("column", limits[-1].name, formulas)
            raise NasliteError(f"limits.{position}: {unknown}")
    return Goals(objectives, tuple(limits))


def _paths(spec: TableSpec, goals: Goals, formulas: Mapping[str, Affine]) -> dict[str, str]:
    """Of each column that is read as numbers, the key of the file that is the first to use it."""
    paths: dict[str, str] = {}
    used = {name: f"objectives.{name}" for name in goals.objectives}
    for position, limit in enumerate(goals.constraints):
        used.setdefault(limit.name, f"limits.{position}")
    used |= {name: f"derived.{name}" for name in spec.derived if name in used}
    for name, path in used.items():
        for column in formulas[name].factors:
            paths.setdefault(column, path)
    for name, columns in spec.noise.items():
        for column in columns:
            paths.setdefault(column, f"noise.{name}")
    return paths


def _front_and_corner(
    rows: TableRows, goals: Goals, spec: TableSpec
) -> tuple[Column, tuple[float, ...]]:
    """The true front of the feasible rows and the reference point, both minimised."""
    kept = rows.complete.copy()
    if not kept.any():
        raise NasliteError(_why_no_row(rows, goals))
    signs = [-1.0 if goal == "maximize" else 1.0 for goal in goals.objectives.values()]
    corner = []
    for name, sign in zip(goals.objectives, signs, strict=True):
        worst = sign * float((sign * rows.metrics[name][kept]).max())
        corner.append(sign * spec.objectives[name].corner(worst))
    for limit in goals.constraints:
        holds = [limit.holds({limit.name: float(v)}) for v in rows.metrics[limit.name]]
        kept &= np.array(holds)
    columns = [s * rows.metrics[n] for n, s in zip(goals.objectives, signs, strict=True)]
    values = np.stack(columns, axis=1)[kept]
    if not len(values):
        raise NasliteError("limits: no row meets them")
    return true_front(values), tuple(corner)


def _why_no_row(rows: TableRows, goals: Goals) -> str:
    """Why no row has all that it needs."""
    for name, column in rows.metrics.items():
        if not np.isfinite(column).any():
            path = f"objectives.{name}" if name in goals.objectives else "limits"
            return f"{path}: no row has a finite number for {name!r}"
    for name, columns in rows.noise.items():
        for drawn in columns:
            if not np.isfinite(rows.columns[drawn]).any():
                return f"noise.{name}: no row has a finite number in column {drawn!r}"
    needed = [*rows.metrics, *(name for names in rows.noise.values() for name in names)]
    return f"objectives: no row has a finite number for all of {', '.join(needed)}"
