"""The tables of uploads in parts. They belong to the schema of tables.py and share its rules."""

from typing import Any, Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table

from lowtide.store.schema.columns import WORD, Instant
from lowtide.store.schema.tables import metadata


def _text(name: str, **rest: Any) -> Column[str]:
    return Column(name, WORD, nullable=False, **rest)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _at(name: str, *, nullable: bool) -> Column[Any]:
    return Column(name, Instant, nullable=nullable)


uploads: Final = Table(
    "uploads",
    metadata,
    _text("id", primary_key=True),
    _text("project_id"),
    _text("file_id"),
    _text("purpose"),
    _text("filename"),
    _count("bytes"),
    Column("parts", Integer, nullable=False),
    _text("checksum"),
    _count("file_ttl_s"),
    _text("status"),
    _at("created_at", nullable=False),
    _at("expires_at", nullable=False),
    _at("ended_at", nullable=True),
    _count("token"),
    _at("completion_expires_at", nullable=True),  # None: nobody holds it
    _text("choice_digest"),
)
Index(
    "uploads_pending",  # what is due, and with `bytes` what is promised
    uploads.c.project_id,
    uploads.c.expires_at,
    uploads.c.bytes,
    sqlite_where=uploads.c.ended_at.is_(None),
    postgresql_where=uploads.c.ended_at.is_(None),
)
Index("uploads_ended", uploads.c.ended_at)

upload_parts: Final = Table(
    "upload_parts",
    metadata,
    _text("id", primary_key=True),
    Column("upload_id", WORD, ForeignKey(uploads.c.id), nullable=False),
    Column("number", Integer),  # None: named by id
    _count("bytes"),
    _text("md5"),
    _text("blob_key"),
    _at("created_at", nullable=False),
)
Index("upload_parts_by_number", upload_parts.c.upload_id, upload_parts.c.number, unique=True)
Index("upload_parts_blob", upload_parts.c.blob_key)
