"""`naslite db`: the store as a whole."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import store_option, store_url
from ..sizes import format_bytes
from . import options

if TYPE_CHECKING:
    from storage import Store
    from storage.garbage import Amount, Garbage
    from storage.status import Status


@click.group()
def db() -> None:
    """Look at a store, upgrade it, and remove what no study needs."""


@db.command()
@options.store
@options.format
def status(store: str | None, format: str) -> None:
    """Print the address, schema, studies and sizes of a store; it changes nothing."""
    from storage import status as storage_status

    url = store_url(store)
    found = storage_status.status(url)
    _print(format, _status_json(found), _status_text(found, store_option(url)))


@db.command()
@options.store
def upgrade(store: str | None) -> None:
    """Bring a store that an earlier naslite wrote to this one's schema.

    All or nothing, while no study of the store runs. A copy of an SQLite file stays beside it.
    """
    from storage.database import without_password
    from storage.upgrading import upgrade as run_upgrade

    url = store_url(store)
    done, shown = run_upgrade(url), without_password(url)
    if done.before == done.after:
        click.echo(f"{shown} is up to date (schema {done.after})")
        return
    click.echo(f"upgraded {shown} from schema {done.before} to {done.after}")
    if done.copy is not None:
        click.echo(f"the file as it was is {done.copy}")


@db.command()
@options.store
@click.option("--dry-run", is_flag=True, help="Remove nothing, and say what would be removed.")
@options.format
def gc(store: str | None, dry_run: bool, format: str) -> None:
    """Remove artifacts and cached stages that no trial needs, leftovers of killed processes, and
    logs without a study.

    Studies may run meanwhile: what is in use, or was made lately, stays.
    """
    from storage import Store
    from storage.garbage import Amount, collect

    with closing(Store(store_url(store), create=False)) as opened:
        found = collect(opened, dry_run=dry_run)
        old = _old_logs(opened)
    logs = Amount(len(old), sum(old.values()))
    for path in old:
        if not dry_run:
            path.unlink(missing_ok=True)
    _print(format, _garbage_json(found, logs), _garbage_text(found, logs, dry_run=dry_run))


def _old_logs(store: Store) -> dict[Path, int]:
    """Logs without a study, and their bytes; a search that begins writes its log before its study
    is there."""
    from storage.garbage import MARGIN_S

    from ..detach import unused_logs

    studies = [summary.study.name for summary in store.studies()]
    found = {}
    for path in unused_logs(store.artifacts.root.parent, studies):
        with suppress(FileNotFoundError):  # somebody else collects, too
            seen = path.stat()
            if seen.st_mtime < time.time() - MARGIN_S:
                found[path] = seen.st_size
    return found


def _print(format: str, record: Mapping[str, Any], text: str) -> None:
    if format == "table":
        click.echo(text)  # as it is: paths and commands are to be copied
    else:
        options.emit(format, record, lambda: text)


def _status_json(found: Status) -> dict[str, Any]:
    return {
        "url": found.url,
        "schema": found.schema,
        "needs_upgrade": found.needs_upgrade,
        "studies": found.studies,
        "rows": dict(found.rows),
        "size_bytes": found.size_bytes,
        **{
            name: {
                "path": str(folder.path),
                "count": folder.count,
                "size_bytes": folder.size_bytes,
            }
            for name, folder in (("artifacts", found.artifacts), ("stages", found.stages))
        },
    }


def _status_text(found: Status, at: str) -> str:
    rows = ", ".join(f"{count} {name}" for name, count in found.rows.items())
    schema = str(found.schema)
    if found.needs_upgrade:
        schema += f", written by an older naslite: `naslite db upgrade{at}` upgrades it"
    lines = {
        "store": found.url,
        "schema": schema,
        "rows": rows,
        "database": format_bytes(found.size_bytes),
    }
    for name, folder in (("artifacts", found.artifacts), ("stages", found.stages)):
        lines[name] = f"{folder.count}, {format_bytes(folder.size_bytes)}, in {folder.path}"
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _garbage_json(found: Garbage, logs: Amount) -> dict[str, Any]:
    amounts = {
        name: {"count": amount.count, "size_bytes": amount.size_bytes}
        for name, amount in (
            ("artifacts", found.artifacts),
            ("stages", found.stages),
            ("leftovers", found.leftovers),
            ("logs", logs),
            ("in_use", found.in_use),
            ("kept", found.kept),
        )
    }
    return {**amounts, "rows": found.rows}


def _garbage_text(found: Garbage, logs: Amount, *, dry_run: bool) -> str:
    removed = ", ".join(
        (
            _amount(found.artifacts, "artifacts"),
            _amount(found.stages, "cached stages"),
            _amount(found.leftovers, "leftovers of killed processes"),
            _amount(logs, "logs"),
            f"{found.rows} rows",
        )
    )
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb}: {removed}", f"kept: {_amount(found.kept, 'entries that trials need')}"]
    if found.in_use.count:
        lines.append(f"kept for now: {_amount(found.in_use, 'entries in use or made lately')}")
    return "\n".join(lines)


def _amount(amount: Amount, what: str) -> str:
    return f"{amount.count} {what} ({format_bytes(amount.size_bytes)})"
