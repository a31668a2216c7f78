"""The kinds of values that settings hold: each says what it found and what it wanted."""

import datetime as dt
import re
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_MEMBER: Final = re.compile(r"zt:[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_USER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _host(value: str | None) -> str | None:
    if not value:
        return None
    if _MEMBER.fullmatch(value):
        return value
    if not _HOST.fullmatch(value) or re.fullmatch(r"[^:]+:\d+", value):
        raise ValueError("wanted a host name or IP address without a port (see broker.port)")
    return value


def _network(value: str | None) -> str | None:
    try:
        return None if value is None else str(ip_network(value))
    except ValueError as err:
        raise ValueError("wanted a network such as 10.147.17.0/24, its host bits 0") from err


def _user(value: str | None) -> str | None:
    if value is not None and not _USER.fullmatch(value):
        raise ValueError("wanted a user name: 1 to 64 of A-Z a-z 0-9 . _ -")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as err:
        raise ValueError("wanted an IANA zone such as UTC or Europe/Paris") from err
    return value


def _start_date(value: object) -> object:
    if isinstance(value, str) and value not in ("yesterday", "today"):
        try:
            return dt.date.fromisoformat(value)
        except ValueError as err:
            raise ValueError("wanted yesterday, today or a date such as 2025-10-05") from err
    return value


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("wanted a number")  # noqa: TRY004  pydantic catches ValueError only
    return Decimal(str(value))


def _label(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("wanted a label: one line of printable text")
    return value


def _topic_name(value: str) -> str:
    if not _TOPIC.fullmatch(value):
        raise ValueError("wanted a topic name: 1 to 249 of A-Z a-z 0-9 . _ -")
    return value


Host = Annotated[str | None, AfterValidator(_host)]
Limit = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, decimal_places=6)]
Label = Annotated[str, AfterValidator(_label), Field(max_length=200)]
TopicName = Annotated[str, AfterValidator(_topic_name)]
Network = Annotated[str | None, AfterValidator(_network)]
UserName = Annotated[str | None, AfterValidator(_user)]
ZoneName = Annotated[str, AfterValidator(_zone)]
StartDate = Annotated[Literal["yesterday", "today"] | dt.date, BeforeValidator(_start_date)]
Seconds = Annotated[int, Field(ge=0)]
OptionalPath = Annotated[Path | None, Field(strict=False)]


class Section(BaseModel):
    """A part of the settings: frozen, without unknown keys, silent about its values."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
