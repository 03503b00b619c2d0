"""What one compressor alone does to a task's model, without training: the files, scored.

    python benchmarks/compressing.py configs/digits.py:Digits structured_pruning \\
        ratio=0.1,0.3 importance=l1,l2,random scope=uniform,global

prints a row for each combination: the drop of the score with its one-sided 95 % bounds, and
parameters and bytes relative to the uncompressed file's. A knob that is not named takes its
default, of several the value that compresses least. `--task-option depth=56` goes to the task.
"""

from __future__ import annotations

import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

# See strategies.py beside this file: the repository's root takes the place of its folder.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import click  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402


@click.command(help=__doc__)
@click.argument("task")
@click.argument("compressor")
@click.argument("options", nargs=-1)
@click.option("--task-option", "task_options", multiple=True, metavar="KEY=VALUE")
def command(
    task: str, compressor: str, options: tuple[str, ...], task_options: tuple[str, ...]
) -> None:
    from search.errors import NasliteError

    try:
        _print(task, compressor, _parsed(options), _parsed(task_options))
    except NasliteError as error:
        raise click.UsageError(str(error)) from error


def _print(
    task: str, compressor: str, named: dict[str, list[Any]], task_options: dict[str, list[Any]]
) -> None:
    import tempfile

    from benchmarks.benching import open_workbench

    file, _, attribute = task.rpartition(":")
    path = Path(file).resolve()
    given = {key: values[0] for key, values in task_options.items()}
    with tempfile.TemporaryDirectory(prefix="naslite-compressing-") as files:
        bench = open_workbench(
            f"{path.name}:{attribute}", path.parent, [{compressor: named}], Path(files), given
        )
        unpruned = bench.build({}).artifact
        assert unpruned is not None
        before = bench.score(unpruned)
        name = bench.loaded.task.score_name
        click.echo(f"{name} {before.score:.4f}, {before.parameters:.0f} parameters\n")
        click.echo(f"| {' | '.join(named)} | drop | parameters | size | zstd |")
        click.echo(f"|{'---|' * (len(named) + 4)}")
        for values in product(*named.values()):
            chosen = dict(zip(named, values, strict=True))
            candidate = bench.space.complete({f"{compressor}.{k}": v for k, v in chosen.items()})
            shown = " | ".join(str(value) for value in values)
            row = _row(bench, candidate, before, unpruned.size_bytes)
            click.echo(f"| {shown} | {row} |")


def _parsed(texts: tuple[str, ...]) -> dict[str, list[Any]]:
    """`key=1,2` as {key: [1, 2]}, values as in a config."""
    parsed = {}
    for text in texts:
        key, separator, values = text.partition("=")
        if not separator:
            raise click.BadParameter(f"must be KEY=VALUE[,VALUE...], got {text!r}")
        parsed[key] = [YAML(typ="safe", pure=True).load(v or "''") for v in values.split(",")]
    return parsed


def _row(bench: Any, candidate: dict[str, Any], before: Any, size_bytes: int) -> str:
    built = bench.build(candidate)
    if built.artifact is None:
        return f"{built.state}: {built.cause} | | | "
    found = bench.score(built.artifact, before.records)
    drop = (before.score - found.score) * (1 if bench.loaded.task.higher_is_better else -1)
    bounds = "" if found.drop is None else f" [{found.drop[0]:.4f}, {found.drop[1]:.4f}]"
    ratios = (
        found.parameters / before.parameters,
        built.artifact.size_bytes / size_bytes,
        found.size_zstd_bytes / before.size_zstd_bytes,
    )
    return f"{drop:.4f}{bounds} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios)


if __name__ == "__main__":
    command()
