"""ONNX files, written by torch.onnx and run by ONNX Runtime on the CPU."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressors.arrays import call_arguments
from compressors.errors import Refused, is_of_the_machine

if TYPE_CHECKING:
    from torch import nn

PROTOBUF_LIMIT_BYTES = 1_900_000_000
NO_SPINNING = ("session.intra_op.allow_spinning", "0")
PROVIDERS = ["CPUExecutionProvider"]


class OnnxRuntime:
    """ONNX Runtime's CPU provider with fixed threads and without spinning."""

    format = "onnx"
    main_file = "model.onnx"
    version = 2
    libraries: tuple[str, ...] = ("torch", "onnx", "onnxscript")
    modules = ("onnxruntime",)

    def export(self, model: nn.Module, inputs: Any, path: Path) -> str:
        """See `Runtime.export`; falls back to the TorchScript exporter, and says so."""
        from .onnx_graph import tidy

        inputs = _two_samples(inputs)
        note = ""
        with _quiet():
            try:
                _export_dynamo(model, inputs, path)
            except Exception as first:
                if is_of_the_machine(first):
                    raise
                for leftover in path.parent.glob(f"{path.name}*"):
                    leftover.unlink()
                try:
                    _export_torchscript(model, inputs, path)
                except Exception as second:
                    if is_of_the_machine(second):
                        raise
                    raise Refused(
                        "the model cannot be exported to ONNX:"
                        f" torch.export says {_reason(first)}; TorchScript says {_reason(second)}"
                    ) from first
                note = f"exported by TorchScript; torch.export says {_reason(first)}"
        tidy(path)
        return note

    def load(self, path: Path, *, threads: int) -> OnnxSession:
        return OnnxSession(path, threads)

    def inspect(self, path: Path) -> dict[str, float]:
        from .onnx_graph import count_work

        return count_work(path)

    def loading_example(self, path: Path, *, threads: int) -> list[str]:
        session = OnnxSession(path, threads)._session
        feed = ", ".join(
            f'"{v.name}": {v.name}' if v.name.isidentifier() else f'"{v.name}": array'
            for v in session.get_inputs()
        )
        inputs = ", ".join(f"{v.name} {v.shape} {v.type}" for v in session.get_inputs())
        return [
            "import onnxruntime",
            "options = onnxruntime.SessionOptions()",
            f"options.intra_op_num_threads, options.inter_op_num_threads = {threads}, 1",
            f"options.add_session_config_entry({NO_SPINNING[0]!r}, {NO_SPINNING[1]!r})",
            f'session = onnxruntime.InferenceSession("{path.name}", options, {PROVIDERS})',
            f"outputs = session.run(None, {{{feed}}})  # {inputs}",
        ]


class OnnxSession:
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry(*NO_SPINNING)
        options.log_severity_level = 4  # errors come as exceptions, once
        self._session = ort.InferenceSession(str(path), options, PROVIDERS)
        self.input_names = [value.name for value in self._session.get_inputs()]

    def __call__(self, feed: Mapping[str, np.ndarray]) -> Any:
        outputs = self._session.run(None, dict(feed))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _export_dynamo(model: nn.Module, inputs: Any, path: Path) -> None:
    import torch

    batch = "batch"  # a name, not a Dim: with that a model that says len(x) gets 2 for good

    def dynamic(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return {0: batch} if value.ndim else None
        if isinstance(value, dict):
            return {name: dynamic(part) for name, part in value.items()}
        return tuple(dynamic(part) for part in value)

    args, kwargs = call_arguments(inputs)
    torch.onnx.export(
        model,
        args,
        path,
        kwargs=kwargs,
        dynamo=True,
        dynamic_shapes=dynamic(kwargs or args),
        external_data=_weight_bytes(model) > PROTOBUF_LIMIT_BYTES,
        verbose=False,
    )


def _export_torchscript(model: nn.Module, inputs: Any, path: Path) -> None:
    import torch

    args, kwargs = call_arguments(inputs)
    declared = list(inspect.signature(model.forward).parameters)
    order = [n for n in declared if n in kwargs]
    kwargs = {n: kwargs[n] for n in (*order, *kwargs)}  # the exporter names inputs by position
    names = list(kwargs) or declared[: len(args)]  # the names that torch.export gives
    if len(names) < len(args):
        names = [f"input_{i}" for i in range(len(args))]
    values = list(kwargs.values()) if kwargs else list(args)
    torch.onnx.export(
        model,
        args,
        path,
        kwargs=kwargs,
        input_names=names,
        output_names=["output"],
        dynamic_axes={
            **{name: {0: "batch"} for name, v in zip(names, values, strict=True) if v.ndim},
            "output": {0: "batch"},
        },
        dynamo=False,
    )


def _two_samples(inputs: Any) -> Any:
    """Two samples of every tensor: torch.export takes a dimension of 1 for a constant."""
    import torch

    if isinstance(inputs, torch.Tensor):
        return torch.cat([inputs, inputs])[:2] if inputs.ndim else inputs
    if isinstance(inputs, dict):
        return {name: _two_samples(part) for name, part in inputs.items()}
    return tuple(_two_samples(part) for part in inputs)


def _weight_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def _reason(error: Exception) -> str:
    """The innermost cause in one line: the outer ones only say that exporting failed."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print, log and warn about their own deprecations; errors still come out."""
    disabled = logging.root.manager.disable
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
