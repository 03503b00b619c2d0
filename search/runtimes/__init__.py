"""What executes an artifact."""

from __future__ import annotations

# Name in a config -> "module:Class", imported only when a study uses it.
BUILTIN = {
    "onnxruntime": "search.runtimes.onnx_runtime:OnnxRuntime",
}
