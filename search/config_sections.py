"""The sections of the config file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from .sizes import parse_bytes


def _size(value: Any) -> Any:
    if value is not None:
        parse_bytes(value)
    return value


def _lag(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is None or whole or value == "async":
        return value
    raise ValueError(f"lag must be a whole number >= 1 or async, got {value!r}")


# Checked before the types are, which would tell of each alternative in a line of its own.
Bytes = Annotated[str | int, BeforeValidator(_size)]
Lag = Annotated[int | Literal["async"] | None, BeforeValidator(_lag)]


STOP_OPTIONS: dict[str, dict[str, int]] = {  # of each rule, with their defaults
    "none": {},
    "median": {"warmup_epochs": 1, "min_trials": 4},
    "halving": {"reduction": 3, "min_epochs": 1},
}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RuntimeConfig(Section):
    """What executes the exported file, and how it is timed."""

    name: str = Field("onnxruntime", description="The runtime.")
    threads: int = Field(1, ge=1, description="Threads of a session when it is scored and timed.")
    batch_sizes: list[int] = Field(
        [1],
        min_length=1,
        description="Batch sizes to time; `latency_ms` and `latency_ratio` are of the first.",
    )
    timing_seconds: float = Field(
        2.0,
        gt=0,
        description="Seconds after which the timing of a file at a batch size ends with the"
        " interval that it has; the less, the wider.",
    )

    @field_validator("batch_sizes")
    @classmethod
    def _positive(cls, sizes: list[int]) -> list[int]:
        if any(size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
            raise ValueError(f"batch sizes must be >= 1 and differ, got {sizes}")
        return sizes


class StrategyConfig(Section):
    """Which candidate comes next; other keys are options of the strategy."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = Field("greedy", description="A strategy, or `file.py:Class`.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, (dict, StrategyConfig)):
            raise ValueError(f"must be a name, or `name` and options, got {value!r}")
        return value


class StopConfig(Section):
    """When a training is given up for its score on up to 1,024 samples after an epoch."""

    rule: Literal["none", "median", "halving"] = Field(
        "none",
        description="`median`: at its best it is worse than the median of the others;"
        " `halving`: it is not among the best 1 / `reduction` at a rung.",
    )
    warmup_epochs: int | None = Field(
        None, ge=0, description="`median`: so many first epochs are not judged; default 1."
    )
    min_trials: int | None = Field(
        None, ge=1, description="`median`: so many others must have come as far; default 4."
    )
    reduction: int | None = Field(
        None,
        ge=2,
        description="`halving`: how many reach a rung for each that goes on; default 3.",
    )
    min_epochs: int | None = Field(
        None,
        ge=1,
        description="`halving`: the first rung, the next ones are at `reduction` times the one"
        " before; default 1.",
    )

    @model_validator(mode="before")
    @classmethod
    def _options_of_the_rule(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"rule": value}
        if not isinstance(value, dict):
            return value
        rule = value.get("rule", "none")
        if not isinstance(rule, str) or rule not in STOP_OPTIONS:
            return value
        own = STOP_OPTIONS[rule]
        others = {key for options in STOP_OPTIONS.values() for key in options} - set(own)
        wrong = sorted(key for key in others if value.get(key) is not None)
        if wrong:
            takes = f"it takes {', '.join(own)}" if own else "choose median or halving"
            raise ValueError(f"rule {rule!r} has no {wrong[0]!r}; {takes}")
        given = {key: number for key, number in value.items() if number is not None}
        return {**own, **given}


class BudgetConfig(Section):
    """When the search ends: whichever comes first."""

    trials: int = Field(60, ge=1, description="Trials, without the baseline.")
    minutes: float | None = Field(
        None, gt=0, description="Minutes of work, all sessions together."
    )


class LimitsConfig(Section):
    """What one trial may take before it is given up; the search goes on."""

    timeout: float | None = Field(
        3600,
        gt=0,
        description="Seconds for all that one trial runs, after which it fails: raise it for long"
        " trainings; null: for ever.",
    )
    memory: Bytes | None = Field(
        None,
        description="Resident memory of a worker with its children, such as `4 GB`; default: 90 %"
        " of the machine's, shared by the workers and the timing process.",
    )
    max_attempts: int = Field(
        2, ge=1, description="How often a trial is begun whose worker dies; errors never repeat."
    )
