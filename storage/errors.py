"""Errors of the store, each a line that a user can act on.

StoreError
+-- NoStore          nothing is stored at this address
+-- ForeignDatabase  not a naslite database, or one of another schema version
+-- NameTaken        a study of this name exists
+-- UnknownStudy
+-- UnknownTrial
+-- StudyBusy        another controller owns the study
+-- CorruptFiles     stored files are missing or differ from their SHA-256
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of the store."""


class NoStore(StoreError):
    pass


class ForeignDatabase(StoreError):
    pass


class NameTaken(StoreError):
    pass


class UnknownStudy(StoreError):
    pass


class UnknownTrial(StoreError):
    pass


class StudyBusy(StoreError):
    pass


class CorruptFiles(StoreError):
    pass
