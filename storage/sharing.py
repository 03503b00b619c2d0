"""What anybody may write to a store, whoever runs its studies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from . import removing, writing
from .fencing import new_event
from .lease import new_owner, removed
from .reading import StoreReader
from .records import REQUESTS, Study

_T = TypeVar("_T")


class SharedStore(StoreReader):
    """The part of a store that needs no ownership of a study; `Store` is what to use."""

    def add_request(self, study: Study, kind: str, payload: Mapping[str, Any] = {}) -> None:
        """Ask something of the study's controller.

        Raises:
            UnknownStudy: It was removed.
        """
        assert kind in REQUESTS, kind
        work = partial(
            writing.insert_request, study=study, kind=kind, payload=payload, event=new_event()
        )
        try:
            self._transactions.write("add_request", work)
        except IntegrityError:  # it was removed while we looked
            raise removed(study) from None

    def write(self, name: str, work: Callable[[Connection], _T]) -> _T:
        """What a function of a connection returns, after what it did is committed; `name` is the
        event's, for `faults`. The function may be called again."""
        return self._transactions.write(name, work)

    def remove(self, name: str) -> list[str]:
        """Delete a study and the artifacts that no other study uses; returns their SHA-256s.

        Raises:
            UnknownStudy, StudyBusy
        """
        study, owner = self.study(name), new_owner()
        unused = self._transactions.write(
            "remove", partial(removing.remove_study, study=study, owner=owner)
        )
        return self.remove_artifacts(unused)

    def remove_artifacts(self, sha256s: Iterable[str]) -> list[str]:
        """Delete those of the artifacts that nothing points to, rows and files; returns them.

        No controller can begin to use one while it is being deleted.
        """
        removed = []
        for sha256 in sha256s:
            work = partial(removing.remove_artifact, sha256=sha256, files=self.artifacts)
            if self._transactions.write("remove_artifacts", work):
                removed.append(sha256)
        return removed
