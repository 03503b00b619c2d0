"""The config file: its schema, its defaults, and all of its problems at once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator

from .config_sections import (
    BudgetConfig,
    Bytes,
    Lag,
    LimitsConfig,
    RuntimeConfig,
    Section,
    StopConfig,
    StrategyConfig,
)
from .errors import ConfigError, Problem
from .expressions import parse_constraint
from .registry import unknown_name

DEFAULT_STORE = "sqlite:///naslite.db"
DEFAULT_PIPELINE: list[dict[str, dict[str, Any]]] = [
    {"structured_pruning": {}},
    {"distillation": {}},
    {"onnx_quantization": {}},
]


def _canonical_constraint(text: str) -> str:
    return str(parse_constraint(text))


def _one_compressor(entry: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if len(entry) != 1:
        raise ValueError(f"an entry must name one compressor, got {sorted(entry)}")
    return entry


Constraint = Annotated[str, AfterValidator(_canonical_constraint)]
Entry = Annotated[dict[str, dict[str, Any]], AfterValidator(_one_compressor)]


class StudyConfig(Section):
    """A search: what to compress, how, towards what, for how long."""

    study: str = Field("", description="Unique name in the store; default: the file's name.")
    task: str = Field(description="`file.py:Class` beside this file, or `package.module:Class`.")
    task_options: dict[str, Any] = Field({}, description="Keyword arguments of the task.")
    store: str | None = Field(
        None, description=f"Database URL; default: NASLITE_STORE, else `{DEFAULT_STORE}`."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every random choice.")
    objectives: dict[str, Literal["minimize", "maximize"]] = Field(
        {},
        description="One to three metrics; default: the task's score and `latency_ratio`.",
    )
    constraints: list[Constraint] = Field(
        [], description="Comparisons of a metric with a number, such as `accuracy_drop <= 0.01`."
    )
    pipeline: list[Entry] = Field(
        DEFAULT_PIPELINE,
        min_length=1,
        description="Compressors in order, each with its knobs: a scalar fixes a knob, a list or"
        " `{low, high, step, log}` searches it, a knob that is left out takes its default.",
    )
    runtime: RuntimeConfig = Field(RuntimeConfig(), description="What runs the exported file.")
    strategy: StrategyConfig = Field(StrategyConfig(), description="How to search.")
    budget: BudgetConfig = Field(BudgetConfig(), description="How long to search.")
    enqueue: list[dict[str, Any]] = Field(
        [],
        description="Candidates to evaluate first, as trials 1, 2... of the budget, such as"
        " `{structured_pruning.ratio: 0.5}`; a knob that is left out compresses nothing.",
    )
    workers: int = Field(
        1, ge=1, le=256, description="Trials that are built at a time, each in a process."
    )
    lag: Lag = Field(
        None,
        description="Trial n is proposed from the outcomes of the trials up to n - lag, so that a"
        " study with workers repeats exactly; `async`: from all that have ended, no promise."
        " Default: 1 for one worker, else 2 x workers.",
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of torch in each worker; default: cores // workers."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where models are trained; `auto`: on a GPU if torch finds one when the study"
        " is created. Files are scored and timed on the CPU all the same.",
    )
    amp: Literal["none", "bf16", "fp16"] = Field(
        "none", description="Mixed precision of trainings on a GPU; a CPU takes no notice of it."
    )
    stop: StopConfig = Field(StopConfig(), description="When a training is given up.")
    limits: LimitsConfig = Field(LimitsConfig(), description="What one trial may take.")
    exclusive_latency: bool = Field(
        True,
        description="Whether builds stand still while a file is timed; if not, timings beside a"
        " build are marked noisy.",
    )
    stage_evaluation: bool = Field(
        False,
        description="Whether a candidate is given up after 256 or 1,024 of the samples if its drop"
        " is beyond a constraint by then (95 %); needs a constraint on the drop or the score.",
    )
    durability: Literal["normal", "full"] = Field(
        "normal",
        description="`normal` survives the death of any process; `full` also a loss of power at"
        " any moment (slower commits).",
    )
    stage_cache: Bytes = Field(
        "20 GB",
        description="The most that cached stage results may take; the least recently used go.",
    )

    @field_validator("study")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_study_name(name)

    @field_validator("task_options")
    @classmethod
    def _json(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(options, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"options must be numbers, text, true/false, lists and mappings ({error});"
                " quote a date to make it text"
            ) from None
        return options

    @field_validator("objectives")
    @classmethod
    def _one_to_three(cls, objectives: dict[str, str]) -> dict[str, str]:
        if len(objectives) > 3:
            raise ValueError(f"one to three objectives, got {len(objectives)}")
        return objectives

    @field_validator("pipeline", mode="before")
    @classmethod
    def _bare_names(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        return [_entry(entry) for entry in entries]

    @field_validator("pipeline")
    @classmethod
    def _no_repeats(
        cls, entries: list[dict[str, dict[str, Any]]]
    ) -> list[dict[str, dict[str, Any]]]:
        names = [name for entry in entries for name in entry]
        repeated = [name for position, name in enumerate(names) if name in names[:position]]
        if repeated:
            raise ValueError(f"a compressor may stand in the pipeline once, got {repeated}")
        return entries


def check_study_name(name: str) -> str:
    """The name, if it can be typed in a shell and shown in a table.

    Raises:
        ValueError: It is something else.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(
            f"a study's name must be 1 to 100 letters, digits, '.', '_' or '-', got {name!r}"
        )
    return name


def load_config(path: str | Path) -> dict[str, Any]:
    """The content of a config file; `study` defaults to the file's name.

    Raises:
        ConfigError: The file cannot be read or is not YAML.
    """
    path = Path(path)
    raw = _read(path)
    raw = {"study": re.sub(r"[^A-Za-z0-9._-]", "-", path.stem) or "study", **raw}
    prefix, store = "sqlite:///", raw.get("store")
    if isinstance(store, str) and store.startswith(prefix):  # relative like every other path
        raw["store"] = prefix + str(path.resolve().parent / store.removeprefix(prefix))
    return raw


def parse_config(raw: Mapping[str, Any]) -> tuple[StudyConfig | None, list[Problem]]:
    """Validate a config.

    Returns:
        The config, and its problems. Keys with problems hold their defaults, so that the rest
        can be checked further; None if not even the task is there.
    """
    try:
        return StudyConfig.model_validate(dict(raw)), []
    except ValidationError as error:
        problems = [_problem(dict(details)) for details in error.errors()]
        wrong = [details["loc"] for details in error.errors()]
    try:
        return StudyConfig.model_validate(_without(raw, wrong)), problems
    except ValidationError:
        return None, problems


def _without(raw: Mapping[str, Any], wrong: list[tuple[int | str, ...]]) -> dict[str, Any]:
    """The content without the wrong keys; a section that is no mapping goes as a whole."""
    rest = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for key, *inner in wrong:
        section = rest.get(str(key))
        if inner and isinstance(section, dict):
            section.pop(inner[0], None)
        else:
            rest.pop(str(key), None)
    return rest


def store_url(explicit: str | None, config: StudyConfig | None = None) -> str:
    """--store, else the config's, else NASLITE_STORE, else the default."""
    configured = config.store if config is not None else None
    return explicit or configured or os.environ.get("NASLITE_STORE") or DEFAULT_STORE


def configured_store(path: str | Path) -> str | None:
    """The `store:` of a config file, if it has one.

    Raises:
        ConfigError: See `load_config`.
    """
    found = load_config(path).get("store")
    return found if isinstance(found, str) else None


def store_option(url: str) -> str:
    """What a command needs to be given to find this store: nothing where it is the default.

    A password is never shown: `--store "$NASLITE_STORE"` asks for it in the environment.
    """
    from storage.database import option

    return "" if url == store_url(None) else option(url)


def _read(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(str(path), [Problem("", f"the config file {reason}")]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Problem("", "the config file is not UTF-8 text")]) from None
    try:
        raw = YAML(typ="safe", pure=True).load(text)  # YAML 1.2: 1e-3 is a number, no is a word
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        message = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(str(path), [Problem(where, str(message))]) from None
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise ConfigError(
            str(path), [Problem("", f"the config must be keys and values, got {found}")]
        )
    return {str(key): value for key, value in raw.items()}


def _entry(entry: Any) -> Any:
    """`- distillation` and `- distillation:` mean all defaults."""
    if isinstance(entry, str):
        return {entry: {}}
    if isinstance(entry, dict):
        return {str(name): {} if knobs is None else knobs for name, knobs in entry.items()}
    return entry


def _problem(details: dict[str, Any]) -> Problem:
    path = ".".join(str(part) for part in details["loc"])
    kind, got = details["type"], details.get("input")
    if kind == "extra_forbidden":
        *parents, key = details["loc"]
        section = StudyConfig.model_fields[parents[0]].annotation if parents else StudyConfig
        known = getattr(section, "model_fields", {})
        return Problem(path, unknown_name("key", key, known))
    if kind == "missing":
        return Problem(path, "this key is required")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(path, f"must be keys and values, got {got!r}")
    if kind == "value_error":
        return Problem(path, str(details["ctx"]["error"]))
    message = details["msg"][0].lower() + details["msg"][1:]
    return Problem(path, f"{message}, got {got!r}")
