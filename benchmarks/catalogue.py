"""The problems by name."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

from search.errors import NasliteError
from search.registry import unknown_name

from .problem import Problem
from .problem_file import parse_yaml
from .synthetic import synthetic_problem
from .tables import table_problem

FOLDER = Path(__file__).parent / "problems"
NOISE = "+noise"
SYNTHETIC = {
    f"synthetic-{layers}-{interaction:g}": (layers, interaction)
    for layers in (20, 50)
    for interaction in (0.0, 0.6, 1.2)
}


def known_problems() -> list[str]:
    """Every name that `load_problem` knows without a file of the user's."""
    names = []
    for path in sorted(FOLDER.glob("*.yaml")):
        name = path.stem.replace("_", "-")
        noisy = "\nnoise:" in path.read_text(encoding="utf-8")
        names += [name, name + NOISE] if noisy else [name]
    return names + list(SYNTHETIC)


@cache
def load_problem(name: str, data: Path | None, cache: Path) -> Problem:
    """The problem that a name means.

    Args:
        name: One of `known_problems`, a YAML file, either with `+noise` behind it, or
            `{name: synthetic, layers: 30, interaction: 0.6, seed: 1}`.
        data: The folder of the tables.
        cache: Where reference fronts that take long to compute are kept.

    Raises:
        NasliteError: One line that says what is wrong.
    """
    if name.lstrip().startswith("{"):
        options = dict(parse_yaml(name, f"--problem {name}"))
        kind = options.pop("name", None)
        if kind != "synthetic":
            raise NasliteError(f"--problem {name}: the name must be synthetic, got {kind!r}")
        known = [key for key in inspect.signature(synthetic_problem).parameters if key != "cache"]
        for key in options:
            if key not in known:
                raise NasliteError(f"--problem {name}: {unknown_name('key', key, known)}")
        try:
            return synthetic_problem(cache=cache, **options)
        except ValueError as error:
            raise NasliteError(f"--problem {name}: {error}") from None
    if name in SYNTHETIC:
        layers, interaction = SYNTHETIC[name]
        return synthetic_problem(cache=cache, layers=layers, interaction=interaction)
    plain = name.removesuffix(NOISE)
    if plain.endswith((".yaml", ".yml")):
        path = Path(plain)
    else:
        path = FOLDER / f"{plain.replace('-', '_')}.yaml"
        if not path.is_file():
            raise NasliteError(unknown_name("problem", name, known_problems()))
    return table_problem(path, data, noisy=name.endswith(NOISE))
