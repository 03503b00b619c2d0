"""How does a model become smaller? Compressors of modules and of exported files."""

from __future__ import annotations

# Name in a config -> "module:Class", imported only when a study uses it.
BUILTIN = {
    "depth_pruning": "compressors.depth:DepthPruning",
    "structured_pruning": "compressors.pruning:StructuredPruning",
    "unstructured_pruning": "compressors.sparsity:UnstructuredPruning",
    "distillation": "compressors.distillation:Distillation",
    "weight_clustering": "compressors.clustering:WeightClustering",
    "onnx_quantization": "compressors.quantization:OnnxQuantization",
}
# What these do is smaller only when it is packed, and never faster: see `size_zstd_bytes`.
PACKED_ONLY = ("unstructured_pruning", "weight_clustering")
