"""How does a model become smaller? Compressors of modules and of exported files."""

from __future__ import annotations

# Name in a config -> "module:Class", imported only when a study uses it.
BUILTIN = {
    "structured_pruning": "compressors.pruning:StructuredPruning",
    "distillation": "compressors.distillation:Distillation",
    "onnx_quantization": "compressors.quantization:OnnxQuantization",
}
