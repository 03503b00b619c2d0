"""The error by which a compressor or a runtime says no, and which errors are none of theirs."""

from __future__ import annotations


class Refused(Exception):
    """A compressor or a runtime cannot do this candidate; the message is the reason."""


# What torch on a CPU and on a GPU says, and ONNX Runtime.
NO_MEMORY = ("can't allocate memory", "out of memory", "Failed to allocate memory", "bad_alloc")


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error says nothing of the model: no memory, a full or failing disk.

    Such an error must not become a refusal, which would be believed wherever the same candidate
    is met again.
    """
    if isinstance(error, OSError):
        return error.errno is not None  # `inspect` raises one without where it finds no source
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)
