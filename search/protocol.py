"""What workers say to their pool, as bytes."""

from __future__ import annotations

import pickle
from typing import Any

from .channel import Damaged
from .errors import one_line

SHAPES: dict[str, tuple[type | tuple[type, ...], ...]] = {  # of what workers say, by kind
    "ready": (type(None),),
    "broken": (str, bool),
    "stage": (str, tuple),
    "epoch": (int, int, (float, type(None))),
    "returned": (object, float),
    "raised": (str, float, bool),
}


def answer(kind: str, content: Any) -> bytes:
    """A message to the pool: what happened, and what is to be said of it.

    The content is pickled by itself, so that the kind is known even if the content cannot be read.
    """
    return pickle.dumps((kind, pickle.dumps(content)))


def heard(message: bytes) -> tuple[str, Any]:
    """What a worker says; a result that cannot be read here is as if it had raised.

    Raises:
        Damaged: It is nothing that a worker says.
    """
    try:
        kind, content = pickle.loads(message)
        shape = SHAPES[kind]
    except Exception as error:
        raise Damaged(one_line(error)) from None
    try:
        found = pickle.loads(content)
    except (Exception, SystemExit) as error:
        if kind == "returned":
            return "raised", (f"its result cannot be unpickled: {one_line(error)}", 0.0, False)
        raise Damaged(one_line(error)) from None
    parts = found if isinstance(found, tuple) else (found,)
    if len(parts) != len(shape) or not all(map(isinstance, parts, shape)):
        raise Damaged(f"{kind} and something else")
    return kind, found
