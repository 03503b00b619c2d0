"""The three compressors of the demo, each with a knob that makes it fail; and two that pass a
fault on: to the export in the model, to scoring and timing in the file."""

import copy

# Loaded with the worker and not by its first job, so that jobs are quick and limits tight.
import onnx
import onnxruntime.quantization.shape_inference  # noqa: F401
import torch
import torch_pruning  # noqa: F401
from faulty_acts import (
    HERE,
    HUGE,
    STRIKES,
    damage,
    first_time,
    is_armed,
    spoils,
    strike,
    write_too_much,
)

from compressors.distillation import Distillation
from compressors.pruning import StructuredPruning
from compressors.quantization import OnnxQuantization
from storage.artifacts import ContentStore
from strategies.space import Choice

FAULTS = ("none", *STRIKES, "nan", "disk", "odd", "harmless")
MARKS = (
    "none",
    "harmless",
    *(f"{job} {fault}" for job in ("score", "time") for fault in (*STRIKES, "disk")),
    "score nan",
    "score nan records",
    "score odd",
    *(
        f"{when} {how} {often}"
        for when in ("built", "scored")
        for how in ("truncate", "flip")
        for often in ("once", "always")
    ),
)


def fault_knob(values=FAULTS):
    return Choice(name="fault", values=values, neutral="none")


class FaultyModelCompressor:
    """Does its work, and then the fault."""

    def knobs(self, model, task):
        return [*super().knobs(model, task), fault_knob()]

    def apply(self, model, options, context):
        fault = options["fault"]
        compressed, recipe = super().apply(model, options, context)
        strike(fault)
        if spoils(fault, "nan"):
            for tensor in compressed.parameters():
                tensor.data.fill_(torch.nan)
        if spoils(fault, "disk"):
            compressed.register_buffer("huge", torch.zeros(HUGE // 4))
        return None if spoils(fault, "odd") else (compressed, recipe)


class FaultyPruning(FaultyModelCompressor, StructuredPruning):
    pass


class FaultyDistillation(FaultyModelCompressor, Distillation):
    pass


class FaultyQuantization(OnnxQuantization):
    """Does its work, and then the fault."""

    def knobs(self, model, task):
        return [*super().knobs(model, task), fault_knob()]

    def apply(self, path, options, context):
        quantized = super().apply(path, options, context)
        strike(options["fault"])
        if spoils(options["fault"], "nan"):
            fill_with_nan(quantized)
        if spoils(options["fault"], "disk"):
            write_too_much(context.workdir)
        if spoils(options["fault"], "odd"):
            quantized.rename(quantized.with_suffix(".bin"))
        return quantized


class MarkedModel:
    """Changes nothing; the runtime's export finds the fault in the model."""

    version = 1
    libraries = ()

    def knobs(self, model, task):
        return [fault_knob()]

    def apply(self, model, options, context):
        recipe = {"fault": options["fault"]}
        return self.replay(model, recipe), recipe

    def replay(self, model, recipe):
        marked = copy.deepcopy(model)
        marked.fault = recipe["fault"]
        return marked


class MarkedFile:
    """Changes nothing that counts; the runtime's sessions find the fault in the file."""

    version = 1
    libraries = ()
    formats = frozenset({"onnx"})

    def knobs(self, model, task):
        return [fault_knob(MARKS)]

    def apply(self, path, options, context):
        marked = onnx.load(path)
        onnx.helper.set_model_props(marked, {"fault": options["fault"]})
        onnx.save(marked, context.workdir / path.name)
        return context.workdir / path.name


def fill_with_nan(path):
    """Replace every floating-point constant of an ONNX file."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            spoilt = onnx.numpy_helper.to_array(tensor) * float("nan")
            tensor.CopyFrom(onnx.numpy_helper.from_array(spoilt, tensor.name))
    onnx.save(model, path)


def damage_what_is_marked(point):
    """Damage artifacts that say so as soon as they are stored, each once or whenever it is."""
    if point != "put/end":
        return
    for path in (HERE / "naslite.db.files" / "artifacts").glob("??/*/model.onnx"):
        content = path.read_bytes()
        for how in ("truncate", "flip"):
            is_due = f"built {how} once".encode() in content and first_time(path.parent.name)
            if is_due or f"built {how} always".encode() in content:
                damage(path, how)


if is_armed():
    ContentStore.faults = damage_what_is_marked

# Under the names by which the compressors are known, which are those of the stages.
structured_pruning = FaultyPruning
distillation = FaultyDistillation
onnx_quantization = FaultyQuantization
marked_model = MarkedModel
marked_file = MarkedFile
