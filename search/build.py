"""The composition root: from a config, or a stored study, to something that runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import Known, NewStudy, Outcome, Store, Study, StudyBusy
from storage.artifacts import file_stores
from storage.database import files_folder
from storage.lease import new_owner
from storage.store import check_new_study

from .config import StudyConfig, load_config, parse_config, store_url
from .dispatch import Dispatcher
from .errors import ConfigError, NasliteError, Problem
from .heartbeat import heartbeat
from .interrupts import Interrupts
from .observer import Observer
from .pools import baseline_outcome, local_dispatcher, study_dispatcher
from .questions import question
from .results import StudyResults
from .resume_warnings import warn_of_changes, warn_of_idle_workers
from .retiming import is_to_measure_again
from .warm_start import of_baseline

if TYPE_CHECKING:
    from .prepare import Prepared

Source = str | Path | Mapping[str, Any]


def run(
    source: Source,
    *,
    name: str | None = None,
    store: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    enqueue: Sequence[Mapping[str, Any]] = (),
    known_from: str | None = None,
    observer: Observer | None = None,
) -> StudyResults:
    """Create a study and run it to its end.

    Args:
        source: A config file, or its content as a mapping (paths are then relative to the
            current folder).
        name: Instead of the config's `study`; likewise the store, budget, seed and workers.
        enqueue: Candidates to evaluate first, after those of the config's own `enqueue`; also
            trials as `Row.to_json` gives them. Problems count on from the config's.
        known_from: A study of the same store and task: what it evaluated is not evaluated again.

    Raises:
        ConfigError: Everything that is wrong with the config and its task; nothing is stored.
        StoreError: The name is taken, or the store cannot be used.
        KeyboardInterrupt: Ctrl-C; the study is left so that `resume` continues it.
    """
    from .prepare import prepare

    config, folder, problems, label = _read(source, name, trials, minutes, seed, enqueue, workers)
    if config is None:
        raise ConfigError(label, problems)
    url = store_url(store, config)
    check_new_study(url, config.study)
    if known_from is not None:
        _stored(url, known_from)[0].close()  # it is there: said before the task is loaded
    observer, interrupts = observer or Observer(), Interrupts()
    files = files_folder(url)
    with interrupts.caught():
        observer.preparing(f"loading task {config.task}")
        prepared = prepare(config, folder, problems, label)
        interrupts.check()
        known = _known_facts(url, known_from, prepared, files)
        if known_from is not None:
            observer.preparing(f"{len(known)} evaluations of {known_from} are known facts")
        with study_dispatcher(prepared, files) as dispatcher:
            baseline = of_baseline(known, prepared)
            if baseline is None:
                observer.preparing("exporting and measuring the uncompressed model")
                baseline = _baseline(dispatcher, prepared, interrupts, label)
            opened, owner = Store(url, durability=config.durability), new_owner()
            with interrupts.deferred():  # from here on the controller decides
                study = opened.create_study(_new_study(prepared), owner, known)
                with _given_back(opened, study, owner, interrupts, "interrupted"):
                    return _control(
                        opened, study, owner, prepared, dispatcher, observer, interrupts, baseline
                    )


def resume(
    name: str,
    *,
    store: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    where: str | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> StudyResults:
    """Continue a study where it was left, with new totals of its budget if they are given.

    Args:
        epochs: Evaluate the rows of the front, or those that meet `where`, once more with so
            many epochs of each training that has had fewer. They are the next trials of the
            budget, which they raise if need be. A training goes on from the cached one if its
            schedule allows that.
        workers: From now on in this session, instead of the config's. What is proposed does not
            depend on it: the study's lag stays as it is.

    Raises:
        UnknownStudy, StudyBusy, StoreError
        TaskChanged: The task's files, options, weights or data are not those of the study.
        ConfigError: The task cannot be loaded any more.
        NasliteError: A total is too low, or nothing can be trained for longer.
    """
    from .continuing import longer_candidates
    from .prepare import prepare_stored

    if where is not None and epochs is None:
        raise NasliteError("--where chooses the rows of --epochs; give both, or neither")
    opened, study = _stored(store_url(store), name)
    question(study, where)  # what is wrong with it is said before the task is loaded
    budget = _new_budget(study, trials, minutes)
    if trials is not None:
        done = len(opened.trials(study)) - 1  # without the baseline
        if trials < done:
            raise NasliteError(
                f"the trials of a study are its new total, and {done} of {name!r} are there"
                f" already, got {trials}"
            )
    is_asked = any(request.kind != "stop" for request in opened.requests(study))
    unchanged = budget == (study.trials, study.minutes) and epochs is None
    results = StudyResults(opened, name)
    is_over = study.state == "finished" and unchanged and not is_asked
    if is_over and not is_to_measure_again(results):
        return results
    owner = new_owner()
    observer, interrupts = observer or Observer(), Interrupts()
    with interrupts.caught():
        opened.claim(study, owner)
        with _given_back(opened, study, owner, interrupts, study.state, study.cause):
            with heartbeat(opened, study, owner):
                for request in opened.requests(study):
                    if request.kind == "stop":  # meant for a controller that is gone
                        opened.handle_request(study, owner, request)
                observer.preparing(f"loading task {study.config['task']}")
                prepared = prepare_stored(study, workers)
                interrupts.check()
                warn_of_changes(study)
                warn_of_idle_workers(prepared.config)
                longer = []
                if epochs is not None:  # before anything is changed: there may be nothing to do
                    pipeline, loaded = prepared.pipeline, prepared.loaded
                    longer = longer_candidates(results, pipeline, loaded, epochs, where)
                if budget != (study.trials, study.minutes):
                    number = len(opened.trials(study, stages=False))
                    opened.set_budget(study, owner, *budget, number)
                if longer:
                    opened.add_request(study, "continue", {"candidates": longer})
                    what = f"{len(longer)} row{'s' * (len(longer) != 1)} of {name}"
                    observer.preparing(f"{what} will be trained to {epochs} epochs")
            now = opened.study(name)
            with study_dispatcher(prepared, files_folder(opened.url)) as dispatcher:
                return _control(opened, now, owner, prepared, dispatcher, observer, interrupts)


def open_study(name: str, *, store: str | None = None) -> StudyResults:
    """A stored study to query; needs no torch.

    Raises:
        NoStore, UnknownStudy, ForeignDatabase
    """
    return StudyResults(Store(store_url(store), create=False), name)


def check(
    source: Source,
    *,
    name: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    enqueue: Sequence[Mapping[str, Any]] = (),
) -> Prepared:
    """Validate a config and its task, export included; nothing is stored.

    Raises:
        ConfigError: Everything that is wrong.
    """
    from .prepare import prepare

    config, folder, problems, label = _read(source, name, trials, minutes, seed, enqueue)
    if config is None:
        raise ConfigError(label, problems)
    prepared = prepare(config, folder, problems, label)
    with tempfile.TemporaryDirectory(prefix="naslite-") as scratch:
        interrupts = Interrupts()
        with interrupts.caught(), local_dispatcher(prepared, Path(scratch)) as dispatcher:
            _baseline(dispatcher, prepared, interrupts, label)
    return prepared


def _read(
    source: Source,
    name: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    enqueue: Sequence[Mapping[str, Any]] = (),
    workers: int | None = None,
) -> tuple[StudyConfig | None, Path, list[Problem], str]:
    if isinstance(source, Mapping):
        label, folder, raw = "config", Path.cwd(), dict(source)
        raw.setdefault("study", "study")
    else:
        label, folder = str(source), Path(source).resolve().parent
        raw = load_config(source)
    if name is not None:
        raw["study"] = name
    if seed is not None:
        raw["seed"] = seed
    if workers is not None:
        raw["workers"] = workers
    budget = {"trials": trials, "minutes": minutes}
    given = {key: value for key, value in budget.items() if value is not None}
    if given and isinstance(raw.get("budget", {}), dict):
        raw["budget"] = {**raw.get("budget", {}), **given}
    if enqueue and isinstance(raw.get("enqueue", []), list):
        raw["enqueue"] = [*raw.get("enqueue", []), *enqueue]
    config, problems = parse_config(raw)
    return config, folder, problems, label


def _new_study(prepared: Prepared) -> NewStudy:
    config = prepared.config
    return NewStudy(
        name=config.study,
        config=prepared.stored_config,
        space=prepared.space.to_json(),
        task_fingerprint=prepared.loaded.fingerprint,
        seed=config.seed,
        trials=config.budget.trials,
        minutes=config.budget.minutes,
        facts=prepared.facts,
    )


def _stored(url: str, name: str) -> tuple[Store, Study]:
    """A study in its store, which is opened as durable as the study wants it."""
    store = Store(url, create=False)
    study = store.study(name)
    if study.config.get("durability") == "full":
        store.close()
        store = Store(url, create=False, durability="full")
    return store, study


@contextmanager
def _given_back(
    store: Store,
    study: Study,
    owner: str,
    interrupts: Interrupts,
    state: str,
    cause: str = "",
) -> Iterator[None]:
    """If the block fails, give the study up in this state, unless its controller has done so."""
    try:
        yield
    except BaseException:
        with interrupts.shielded(), suppress(StudyBusy):
            store.release(study, owner, state, cause)
        raise


def _known_facts(url: str, name: str | None, prepared: Prepared, files: Path) -> list[Known]:
    if name is None:
        return []
    from .warm_start import known_facts
    from .workbench import make_workbench

    store = Store(url, create=False)
    try:
        return known_facts(store, name, prepared, make_workbench(prepared, file_stores(files)))
    finally:
        store.close()


def _baseline(
    dispatcher: Dispatcher, prepared: Prepared, interrupts: Interrupts, label: str
) -> Outcome:
    """Trial 0, evaluated before its study exists: what cannot work leaves nothing behind."""
    attempts = prepared.config.limits.max_attempts
    outcome = baseline_outcome(dispatcher, prepared.space, interrupts, attempts)
    interrupts.check()
    if outcome.state != "complete":
        key = "limits" if "limits." in outcome.cause else "task"
        raise ConfigError(label, [Problem(key, outcome.cause)])
    return outcome


def _control(
    store: Store,
    study: Study,
    owner: str,
    prepared: Prepared,
    dispatcher: Dispatcher,
    observer: Observer,
    interrupts: Interrupts,
    baseline: Outcome | None = None,
) -> StudyResults:
    from .controller import Controller

    Controller(
        store,
        study,
        owner,
        space=prepared.space,
        strategy=prepared.strategy,
        goals=prepared.goals,
        dispatcher=dispatcher,
        observer=observer,
        interrupts=interrupts,
        baseline=baseline,
        max_attempts=prepared.config.limits.max_attempts,
    ).run()
    return StudyResults(store, study.name)


def _new_budget(
    study: Study, trials: int | None, minutes: float | None
) -> tuple[int, float | None]:
    if (trials is not None and trials < 1) or (minutes is not None and minutes <= 0):
        raise NasliteError(f"a budget must be positive, got trials={trials}, minutes={minutes}")
    return (
        study.trials if trials is None else trials,
        study.minutes if minutes is None else minutes,
    )
