"""Removing what no row needs: artifacts, cached stages and what killed processes left."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, select

from . import queries, schema
from .artifacts import ContentStore
from .entries import Entry, changed_at, list_entries, list_leftovers, size_of
from .errors import StoreError
from .eviction import Removal, removing
from .lease import holds, is_here
from .removing import exclude_keepers
from .store import Store

# How long before the first claim of a live controller, or before now, a file may have been made
# for a trial that has no row yet: a new study measures its baseline before it is stored.
MARGIN_S = 3600.0


@dataclass(frozen=True, slots=True)
class Amount:
    """Folders in the file stores, and the bytes of their files."""

    count: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a collection removed, or would remove, and what it left.

    Args:
        artifacts: Removed: those that no trial and no known fact points to.
        stages: Removed: cached results that no trial and no known fact names.
        leftovers: Removed: what killed processes were writing or deleting.
        rows: Removed: artifacts in the database that nothing points to.
        in_use: Left though no row needs it: somebody holds it, or it was made or used lately.
        kept: Left because a row needs it.
    """

    artifacts: Amount
    stages: Amount
    leftovers: Amount
    rows: int
    in_use: Amount
    kept: Amount


def collect(store: Store, *, dry_run: bool = False, margin_s: float = MARGIN_S) -> Garbage:
    """Remove what no row needs, beside controllers that run.

    What a process of this machine holds is left, and what was made or used less than `margin_s`
    seconds before now, or before the first live controller began. The store's folder of files
    must be this store's alone.

    Args:
        dry_run: Remove nothing, and say what would be removed.

    Raises:
        StoreError: The folder is another store's, or cannot be written.
    """
    if not store.is_shared:
        raise StoreError("a store in memory does not own its files; nothing can be collected")
    rule = _rule(store, dry_run, margin_s)
    try:
        leftovers = [(files, _leftovers(files)) for files in (store.artifacts, store.stages)]
        # Rows before files: wherever this is killed, no row points to a file that is gone.
        rows = _remove_rows(store, rule)
        artifacts = _sweep_artifacts(store, rule)
        stages = _sweep_stages(store, rule)
        cleared = [_clear(files, found, rule) for files, found in leftovers]
    except OSError as error:
        raise StoreError(
            f"cannot collect garbage: {error.strerror} ({error.filename}); the user who owns the"
            " store's files can"
        ) from None
    swept = [artifacts, stages, *cleared]
    return Garbage(
        artifacts=_amount(artifacts.removed),
        stages=_amount(stages.removed),
        leftovers=_amount(entry for one in cleared for entry in one.removed),
        rows=rows,
        in_use=_amount(entry for one in swept for entry in one.in_use),
        kept=_amount(entry for one in swept for entry in one.kept),
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """What may go.

    Args:
        unused_since: Entries that were made or used after this moment (Unix seconds) stay.
        unchanged_since: Leftovers that were written after this moment stay; None: only those
            that are held.
    """

    dry_run: bool
    unused_since: float
    unchanged_since: float | None


@dataclass(frozen=True, slots=True)
class _Swept:
    removed: list[Entry]
    in_use: list[Entry]
    kept: list[Entry]


def _rule(store: Store, dry_run: bool, margin_s: float) -> _Rule:
    now = time.time()
    studies = [summary.study for summary in store.studies()]
    # A lease may have run out because its controller was paused.
    live = [s for s in studies if holds(s.owner, s.lease_until + margin_s, now)]
    since = min([now, *(study.claimed_at for study in live)]) - margin_s
    # The locks of another machine may not reach us; a container is taken for one.
    is_alone = all(is_here(study.owner) for study in live)
    return _Rule(dry_run, since, None if is_alone else since)


def _remove_rows(store: Store, rule: _Rule) -> int:
    """Delete the rows of artifacts that nothing points to; returns how many there are."""

    def work(connection: Connection) -> int:
        exclude_keepers(connection)
        unused = queries.unused_artifacts(connection)
        table = schema.artifacts
        connection.execute(delete(table).where(table.c.sha256.not_in(queries.USED)))
        return len(unused)

    if rule.dry_run:
        return len(store.read(queries.unused_artifacts))
    return store.write("collect_rows", work)


def _sweep_artifacts(store: Store, rule: _Rule) -> _Swept:
    """Take away the artifacts that nothing points to, while nobody can begin to use one."""
    found, used = list_entries(store.artifacts.root), store.used_artifacts()
    _check_folder(store.artifacts.root, found, used)
    if rule.dry_run:
        return _sweep(store.artifacts, found, used, rule)

    def work(connection: Connection) -> _Swept:
        exclude_keepers(connection)
        return _sweep(store.artifacts, found, queries.used_artifacts(connection), rule)

    return store.write("collect_files", work)


def _check_folder(root: Path, found: Sequence[Entry], used: Collection[str]) -> None:
    """Check that the folder belongs to this database.

    Raises:
        StoreError: It holds artifacts, and none of those that are used.
    """
    if found and used and {entry.key for entry in found}.isdisjoint(used):
        raise StoreError(
            f"{root} holds none of the {len(used)} artifacts that the studies of this store need,"
            " so it may be another store's; set NASLITE_FILES to the right folder"
        )


def _sweep_stages(store: Store, rule: _Rule) -> _Swept:
    found = list_entries(store.stages.root)
    return _sweep(store.stages, found, store.read(_named_stages), rule)


def _named_stages(connection: Connection) -> frozenset[str]:
    """The keys of all stages that a trial or a known fact went through."""
    keys = set(connection.scalars(select(schema.stages.c.key).distinct()))
    for stages in connection.scalars(select(schema.known.c.stages)):
        keys.update(stage["key"] for stage in stages)
    return frozenset(keys)


def _sweep(
    files: ContentStore, found: Sequence[Entry], used: Collection[str], rule: _Rule
) -> _Swept:
    """Take away the entries that are not used.

    They become leftovers: deleting takes time, and controllers may wait for us.
    """
    unused = [entry for entry in found if entry.key not in used]
    removed: list[Entry] = []
    in_use: list[Entry] = []
    if unused:
        with _removal(files, rule, delete=False) as removal:
            for entry in unused:
                is_gone = removal.take(entry.key, unused_since=rule.unused_since)
                (removed if is_gone else in_use).append(entry)
    return _Swept(removed, in_use, [entry for entry in found if entry.key in used])


def _leftovers(files: ContentStore) -> list[Entry]:
    return [
        Entry(folder.name, size_of(folder), changed_at(folder))
        for folder in list_leftovers(files.root)
    ]


def _clear(files: ContentStore, found: Sequence[Entry], rule: _Rule) -> _Swept:
    """Delete the leftovers: those that were found, and what this collection took away."""
    gone: set[str] = set()
    folders = list_leftovers(files.root)
    if folders:
        with _removal(files, rule, delete=True) as removal:
            for folder in folders:
                if removal.take_leftover(folder, unchanged_since=rule.unchanged_since):
                    gone.add(folder.name)
    removed = [entry for entry in found if entry.key in gone]
    return _Swept(removed, [entry for entry in found if entry.key not in gone], [])


@contextmanager
def _removal(files: ContentStore, rule: _Rule, *, delete: bool) -> Iterator[Removal]:
    if rule.dry_run:
        yield Removal(files.root, files.reach, rehearsed=True)
        return
    with removing(files.root, files.reach, delete=delete) as removal:
        assert removal is not None
        yield removal


def _amount(entries: Iterable[Entry]) -> Amount:
    sizes = [entry.size_bytes for entry in entries]
    return Amount(len(sizes), sum(sizes))
