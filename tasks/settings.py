"""Every setting, in one place: from the environment (`SUMMATIVE_…`) or a `.env` file in the working folder.

It lives with the tasks because flows that a Prefect worker starts need it too, and imports point one way.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """What a team may choose. The defaults run everything on one machine, with nothing to install or start."""

    model_config = SettingsConfigDict(env_prefix="SUMMATIVE_", env_file=".env", extra="ignore", frozen=True)

    data_folder: Path = Field(
        default=Path("out"), description="Where studies live: ledgers, files, releases. Ignored by git."
    )
    database_url: str = Field(
        default="",
        description="Ledger on PostgreSQL, e.g. postgresql+psycopg://summative@db/summative. "
        "Empty: one SQLite file per study in the data folder.",
    )
    files: str = Field(
        default="",
        description="Files on S3, e.g. s3://bucket/prefix, or another folder. Empty: the study's folder in the data "
        "folder.",
    )
    s3_endpoint: str = Field(default="", description="Endpoint of an S3 server that is not Amazon's.")
    s3_region: str = Field(default="eu-west-2", description="Region of the bucket (London).")
    s3_access_key: str = Field(default="", description="Empty: boto3's own search (profile, role, environment).")
    s3_secret_key: SecretStr = Field(default=SecretStr(""), description="Goes with the access key.")
    contacts: Path = Field(
        default=Path("contacts"),
        description="Folder of the people at the sites, a file <study>.toml each; keep it outside the repository.",
    )
    smtp_url: str = Field(
        default="",
        description="Mail server, with STARTTLS smtp://name@mail.example.org:587, with TLS from the start "
        "smtps://name@mail.example.org:465. Empty: messages are written as files to outbox_mail in the study's folder.",
    )
    smtp_password: SecretStr = Field(default=SecretStr(""), description="Goes with the name in the mail server's URL.")
    mail_from: str = Field(
        default="summative@study.invalid",
        description="Address that messages come from, and to which those come back that cannot be delivered.",
    )
    mail_from_name: str = Field(default="", description="Name that messages come from. Empty: the study's title.")
    mail_reply_to: str = Field(
        default="", description="Address for answers. Empty: the one that messages come from, as mailbox too."
    )
    mail_authority: str = Field(
        default="",
        description="File (PEM) of the authority that signed the mail servers' certificates. Empty: the system's.",
    )
    mail_seconds: int = Field(
        default=60,
        ge=1,
        description="How long a mail server may take for a step; ten times as long to take a message.",
    )
    imap_url: str = Field(
        default="",
        description="Mailbox that is read for answers and for what came back, imaps://name@mail.example.org:993, or a "
        "folder of the kind Maildir, maildir:path. Empty: none is read.",
    )
    imap_password: SecretStr = Field(default=SecretStr(""), description="Goes with the name in the mailbox's URL.")
    mail_folder: str = Field(default="INBOX", description="Folder of the mailbox that is read.")
    sites_config: Path = Field(default=PROJECT / "sites_config", description="Folder of studies.")
    instruments: Path = Field(default=PROJECT / "instruments", description="Folder of instruments.")
    quarantine_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key that held files are encrypted with, as `summative held-files new-key` makes one; keep it "
        "apart from the data. Several, with commas between: the first encrypts, all decrypt.",
    )
    settle_seconds: int = Field(
        default=10, ge=0, description="A file in a drop-box that is no complete workbook is left alone this long."
    )
    largest_return_mb: int = Field(default=50, ge=1, description="A larger file is refused unread.")


@lru_cache(maxsize=1)
def read_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
