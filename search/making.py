"""Making the result of one stage out of that of the stage before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.base import Context, Earlier, Recipe

from .parity import check_parity
from .runtimes.base import Runtime
from .stages import EXPORT, Stage, Step
from .task import LoadedTask

if TYPE_CHECKING:
    from torch import Tensor, nn

STATE_FILE = "state.safetensors"
TRAINING_FILE = "training.safetensors"  # with which a longer training can go on

EpochEnded = Callable[[int, int, "nn.Module"], None]


class Maker:
    """Runs single stages; it knows no cache.

    Args:
        pipeline: The compressors in order.
        session_threads: Of the runtime.
        device: Where models are trained, `cpu` or `cuda`, and in which numbers (`amp`).
    """

    def __init__(
        self,
        loaded: LoadedTask,
        pipeline: Iterable[Step],
        runtime: Runtime,
        session_threads: int,
        device: str,
        amp: str,
    ) -> None:
        self._loaded = loaded
        self._compressors: dict[str, Any] = {step.name: step.compressor for step in pipeline}
        self._runtime = runtime
        self._session_threads = session_threads
        self._device = device
        self._amp = amp

    def made(
        self,
        stage: Stage,
        folder: Path | None,
        facts: dict[str, Any],
        workdir: Path,
        epoch_ended: EpochEnded,
        earlier: Earlier | None,
    ) -> tuple[list[Path], dict[str, Any]]:
        """The files of a stage's result, and facts that go with them.

        Args:
            folder: Of the result before, which `facts` go with; None for the uncompressed model.
            workdir: An empty folder, where the files lie afterwards.
            epoch_ended: See `Context`.
            earlier: A shorter training to go on from.
        """
        context = Context(
            self._loaded.task,
            self._loaded.fresh_model,
            stage.seed,
            workdir,
            device=self._device,
            amp=self._amp,
            epoch_ended=epoch_ended,
            earlier=earlier,
        )
        if stage.changes_model:
            return self._compress_model(stage, folder, facts, context)
        if stage.name == EXPORT:
            return self._export(folder, facts, workdir)
        assert folder is not None
        return self._compress_artifact(stage, folder, context)

    def earlier(self, epochs: int, folder: Path, facts: dict[str, Any]) -> Earlier | None:
        """A cached training to go on from; None if it does not say how."""
        from safetensors.torch import load_file

        path = folder / TRAINING_FILE
        if not path.exists():
            return None
        return Earlier(epochs, self._restored(folder, facts["recipes"]), load_file(path))

    def _compress_model(
        self, stage: Stage, folder: Path | None, facts: dict[str, Any], context: Context
    ) -> tuple[list[Path], dict[str, Any]]:
        from safetensors.torch import save_file, save_model

        model = self._restored(folder, facts["recipes"])
        kept: dict[str, Tensor] = {}
        context = replace(context, keep=kept.update)
        compressed, recipe = stage.compressor.apply(model, stage.options, context)
        _check_weights(compressed, self._loaded.model)
        files = [context.workdir / STATE_FILE]
        save_model(compressed, str(files[0]))
        if kept:
            files.append(context.workdir / TRAINING_FILE)
            save_file({name: t.contiguous() for name, t in kept.items()}, files[1])
        found: dict[str, Any] = {"recipes": [*facts["recipes"], [stage.name, recipe]]}
        if context.earlier is not None:
            found["note"] = f"went on from a cached training of {context.earlier.epochs} epochs"
        return files, found

    def _export(
        self, folder: Path | None, facts: dict[str, Any], workdir: Path
    ) -> tuple[list[Path], dict[str, Any]]:
        model = self._restored(folder, facts["recipes"])
        path = workdir / self._runtime.main_file
        note = str(self._runtime.export(model, self._loaded.inputs, path) or "")
        session = self._runtime.load(path, threads=self._session_threads)
        check_parity(model, session, self._loaded.inputs)
        return sorted(workdir.iterdir()), {"note": note}

    def _compress_artifact(
        self, stage: Stage, folder: Path, context: Context
    ) -> tuple[list[Path], dict[str, Any]]:
        source = folder / self._runtime.main_file
        stage.compressor.apply(source, stage.options, context)
        if not (context.workdir / source.name).is_file():
            raise ValueError(f"it wrote no {source.name}")
        return sorted(context.workdir.iterdir()), {}

    def _restored(self, folder: Path | None, recipes: list[tuple[str, Recipe]]) -> nn.Module:
        """The model that the stages so far gave: structure by recipes, weights from the file."""
        from safetensors.torch import load_model

        model = self._loaded.fresh_model()
        if folder is None:
            return model
        for name, recipe in recipes:
            model = self._compressors[name].replay(model, recipe)
        load_model(model, folder / STATE_FILE)
        return model.eval()


def _check_weights(compressed: nn.Module, original: nn.Module) -> None:
    """Refuse what a training that diverged leaves behind.

    What is not finite in the uncompressed model, such as the minus infinity of an attention mask,
    may stay so.

    Raises:
        ValueError: A tensor holds NaN or infinite values.
    """
    before = original.state_dict()
    for name, tensor in compressed.state_dict().items():
        if not _is_finite(tensor) and (name not in before or _is_finite(before[name])):
            raise ValueError(f"the weights of {name!r} hold NaN or infinite values")


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
