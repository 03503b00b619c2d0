"""What one compressor alone does to a task's model, before any training and export.

    python benchmarks/compressing.py configs/digits.py:Digits structured_pruning \\
        ratio=0.1,0.3 importance=l1,l2,random scope=uniform,global

prints a row for each combination; a knob that is not named takes its default, of several the one
that compresses least. `--task-option depth=56` goes to the task.
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
    import compressors
    from search.registry import load
    from search.task import load_task

    given = {key: values[0] for key, values in _parsed(task_options).items()}
    file, _, attribute = task.rpartition(":")
    path = Path(file).resolve()
    loaded = load_task(f"{path.name}:{attribute}", given, path.parent)
    found = load("compressor", "compressors", compressor, compressors.BUILTIN, Path.cwd())()
    named = _parsed(options)
    score, packed = _score(loaded.task, loaded.model), _packed(loaded.model)
    click.echo(f"{loaded.task.score_name} {score:.4f}, {_parameters(loaded.model)} parameters\n")
    click.echo(f"| {' | '.join(named)} | drop | parameters | zstd |")
    click.echo(f"|{'---|' * (len(named) + 3)}")
    for values in product(*named.values()):
        choice = dict(zip(named, values, strict=True))
        shown = " | ".join(str(value) for value in values)
        click.echo(f"| {shown} | {_row(loaded, found, choice, score, packed)} |")


def _parsed(texts: tuple[str, ...]) -> dict[str, list[Any]]:
    """`key=1,2` as {key: [1, 2]}, values as in a config."""
    parsed = {}
    for text in texts:
        key, separator, values = text.partition("=")
        if not separator:
            raise click.BadParameter(f"must be KEY=VALUE[,VALUE...], got {text!r}")
        parsed[key] = [YAML(typ="safe", pure=True).load(v or "''") for v in values.split(",")]
    return parsed


def _row(loaded: Any, compressor: Any, choice: dict[str, Any], score: float, packed: int) -> str:
    import copy
    import tempfile

    from compressors.base import Context, Refused
    from strategies.space import Space

    model, task = loaded.model, loaded.task
    knobs = [knob.resolve(choice.get(knob.name)) for knob in compressor.knobs(model, task)]
    unknown = choice.keys() - {knob.name for knob in knobs}
    if unknown:
        raise click.UsageError(f"no knob {sorted(unknown)[0]!r}")
    space = Space(knobs)
    options = space.canonical({knob.name: knob.least_compressed() for knob in knobs})
    with tempfile.TemporaryDirectory() as workdir:
        context = Context(task, lambda: copy.deepcopy(model), 0, Path(workdir))
        try:
            result, _ = compressor.apply(model, options, context)
        except Refused as error:
            return f"refused: {error} | | "
    drop = (score - _score(task, result)) * (1 if task.higher_is_better else -1)
    share = _parameters(result) / _parameters(model)
    return f"{drop:.4f} | {share:.3f} | {_packed(result) / packed:.3f}"


def _score(task: Any, model: Any) -> float:
    import numpy as np
    import torch

    from compressors.inspect import forward
    from compressors.training import seeded

    records = []
    with seeded(0), torch.no_grad():
        for batch in task.eval_batches():
            outputs = forward(model.eval(), task.inputs(batch))
            records.append(task.records(outputs.numpy(), batch))
    return float(task.score(np.concatenate(records)))


def _parameters(model: Any) -> int:
    from compressors.inspect import parameter_count

    return parameter_count(model)


def _packed(model: Any) -> int:
    """The bytes of all parameters, packed by zstd as `size_zstd_bytes` packs files."""
    import zstandard

    from compressors.inspect import tensor_bytes

    data = b"".join(tensor_bytes(parameter) for parameter in model.parameters())
    return len(zstandard.compress(data, 19))


if __name__ == "__main__":
    command()
