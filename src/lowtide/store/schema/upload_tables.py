"""The tables of uploads in parts. They belong to the schema of tables.py and share its rules."""

from typing import Final

from sqlalchemy import Column, ForeignKey, Index, Integer, Table

from lowtide.store.schema.columns import WORD, at, count, only, text
from lowtide.store.schema.tables import metadata

uploads: Final = Table(
    "uploads",
    metadata,
    text("id", primary_key=True),
    text("project_id"),
    text("file_id"),
    text("purpose"),
    text("filename"),
    count("bytes"),
    Column("parts", Integer, nullable=False),
    text("checksum"),
    count("file_ttl_s"),
    text("status"),
    at("created_at", nullable=False),
    at("expires_at", nullable=False),
    at("ended_at", nullable=True),
    count("token"),
    at("completion_expires_at", nullable=True),  # None: nobody holds it
    text("choice_digest"),
)
Index(
    "uploads_pending",  # what is due, and with `bytes` what is promised
    uploads.c.project_id,
    uploads.c.expires_at,
    uploads.c.bytes,
    **only(uploads.c.ended_at.is_(None)),
)
Index("uploads_ended", uploads.c.ended_at)

upload_parts: Final = Table(
    "upload_parts",
    metadata,
    text("id", primary_key=True),
    Column("upload_id", WORD, ForeignKey(uploads.c.id), nullable=False),
    Column("number", Integer),  # None: named by id
    count("bytes"),
    text("md5"),
    text("blob_key"),
    at("created_at", nullable=False),
)
Index("upload_parts_by_number", upload_parts.c.upload_id, upload_parts.c.number, unique=True)
Index("upload_parts_blob", upload_parts.c.blob_key)
