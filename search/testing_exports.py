"""The contract of model compressors as a search uses them, which exports what they make.

class TestMyPruning(ExportedModelContract):
    options = [{"ratio": 0.5}]

    def make(self) -> ModelCompressor:
        return MyPruning()

    def task(self) -> Task:
        return ToyTask()
"""

from __future__ import annotations

from pathlib import Path

from compressors.testing import ModelCompressorContract

from .parity import check_parity
from .runtimes.base import Runtime
from .runtimes.onnx_runtime import OnnxRuntime

__all__ = ["ExportedModelContract"]


class ExportedModelContract(ModelCompressorContract):
    """All that a model compressor promises, and that its result survives its export."""

    def runtime(self) -> Runtime:
        """What exports and loads."""
        return OnnxRuntime()

    def test_the_exported_file_agrees_with_the_module(self, tmp_path: Path) -> None:
        runtime, task = self.runtime(), self.task()
        inputs = task.inputs(next(iter(task.eval_batches())))
        for number, options in enumerate(self._all_options()):
            folder = tmp_path / f"export {number}"
            folder.mkdir()
            model, _ = self._applied(options, tmp_path)
            runtime.export(model.eval(), inputs, folder / runtime.main_file)
            session = runtime.load(folder / runtime.main_file, threads=1)
            check_parity(model, session, inputs)  # raises where they disagree
