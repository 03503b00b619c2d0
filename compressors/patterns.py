"""A knob whose values are patterns that name layers of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from strategies.space import Choice, Condition, Knob, SpaceError

from .inspect import PRUNABLE, layers_matching


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(Choice):
    """Any pattern that names at least one layer; a study searches the few that its config names.

    Args:
        model: Whose layers are named; None if it could not be loaded.
    """

    model: Any = None

    @classmethod
    def of_layers(cls, model: nn.Module, *, name: str, active_when: Condition) -> Pattern:
        """A knob whose neutral value, the empty pattern, names no layer."""
        return cls(
            name=name, values=("",), neutral="", default="", active_when=active_when, model=model
        )

    def narrow(self, spec: object) -> Knob:
        patterns = spec if isinstance(spec, list) else [spec]
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise SpaceError(f"a pattern must be text, got {pattern!r}")
            if pattern and self.model is not None and not layers_matching(self.model, pattern):
                modules = self.model.named_modules()
                names = [name for name, module in modules if isinstance(module, PRUNABLE)]
                raise SpaceError(
                    f"the pattern must match a layer, got {pattern!r}; layers: {', '.join(names)}"
                )
        known = Choice(
            name=self.name,
            values=("", *(p for p in dict.fromkeys(patterns) if p)),
            neutral=self.neutral,
            active_when=self.active_when,
        )
        return known.narrow(patterns)
