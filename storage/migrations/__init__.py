"""Migrations of the database, run by `storage.upgrading`; revisions are numbers of schemas."""
