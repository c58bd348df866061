"""How the service writes its log: a line an event, as JSON or as text. Fields are what a caller gave as `extra`."""

import json
import logging
import time
from typing import Any, TextIO

from outrider.errors import InvalidParameter

__all__ = ["configure_logs", "formatter_of"]

LOGGERS = ("cloud_verifier", "uvicorn.error")
BUILT_IN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, event, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: time, level, event, then the fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items() if value != "")
        line = f"{_utc(record)} {record.levelname.lower():7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


FORMATS = {"json": JsonFormatter, "text": TextFormatter}


def formatter_of(name: str) -> logging.Formatter:
    """Raises InvalidParameter for an unknown format."""
    if name not in FORMATS:
        raise InvalidParameter(f"--log-format is {name}; give {' or '.join(FORMATS)}")
    return FORMATS[name]()


def configure_logs(formatter: logging.Formatter, stream: TextIO | None = None) -> None:
    """Write the service's events to `stream`, standard error if none is given, and nowhere else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("cloud_verifier").setLevel(logging.INFO)


def _utc(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in BUILT_IN}
