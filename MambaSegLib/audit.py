"""The audit log of reviews: one JSON line per decision, only ever appended, each line chained to the one before it.

Torch-free. A record holds the sha256 of itself and of its predecessor, so a changed, deleted, inserted or moved record
breaks the chain. The newest record's number and hash stand in a second file, ``<log>.head``, so records missing at the
end are found too. What cannot be found: a forger who may write both files and chains everything anew. Against that,
note the head's hash now and then elsewhere (paper, e-mail) and give it to `verify` later.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from datetime import datetime, timezone
from pathlib import Path

from .errors import UserError
from .folder_lock import locked
from .job import to_json_value
from .safe_file import cannot_write, write_text
from .wording import counted

_START = "0" * 64
_CHUNK = 1 << 16
_COLUMNS = ("n", "time", "user", "action", "case", "model", "model_sha256", "voxels", "seconds", "decision", "comment")


def append(
    path: str | os.PathLike,
    action: str,
    user: str,
    case: str,
    model: dict | None = None,
    voxels: dict[str, dict[str, int]] | None = None,
    seconds: float | None = None,
    decision: str = "",
    comment: str = "",
) -> dict:
    """Add a record; processes that append at once wait for each other.

    Args:
        path: the log, made when missing.
        action: what was done, such as "review", "correct", "promote".
        user: who did it.
        case: to what.
        model: {"id", "sha256"} of the model concerned.
        voxels: structure -> {"added", "removed"}: what the user changed.
        seconds: how long it took.
        decision: "completed", "flagged", ...
        comment: the user's words.

    Returns:
        The record: these fields, "n" (from 1), "time" (UTC), "previous" and "hash".

    Raises:
        UserError: the log cannot be written, its end is damaged, or records are missing there.
    """
    path = Path(path)
    fields = {"user": user, "action": action, "case": case, "model": model, "voxels": voxels or {}}
    fields |= {"seconds": seconds, "decision": decision, "comment": comment}
    with locked(path.parent):
        last, torn = _end(path)
        _check_head(path, last)
        if torn:
            text = f"An unfinished line of {counted(torn, 'byte')}, left by an interruption, was cut off."
            last = _write(path, last, {"user": user, "action": "recovered", "comment": text}, torn)
        return _write(path, last, fields)


def records(path: str | os.PathLike) -> list[dict]:
    """All records, oldest first; nothing is verified. UserError when the file is missing or a line is no record."""
    return [_parsed(line, number, Path(path)) for number, line in enumerate(_lines(Path(path)), start=1)]


def verify(path: str | os.PathLike, known_head: str | None = None) -> dict:
    """Check the whole chain.

    Args:
        path: the log.
        known_head: a head's hash that was noted earlier; it must still be in the chain.

    Returns:
        {"records": their number, "head": hash of the newest one, "problems": [one sentence each]}; no problem, no
        tampering that could be found.
    """
    path = Path(path)
    problems, previous, hashes = [], _START, []
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = _parsed(line, number, path)
        except UserError as error:
            problems.append(error.message)
            previous = None
            continue
        if record["hash"] != _hash(record):
            problems.append(f"Record {number} was changed.")
        elif record["n"] != number or previous not in (None, record["previous"]):
            problems.append(f"Before record {number} something was deleted, inserted or moved.")
        previous = record["hash"]
        hashes.append(previous)
    head = _read_head(path)
    if head is None and hashes:
        problems.append(f"The head file {_head_file(path).name} is missing.")
    elif head and (len(hashes) < head["n"] or hashes[head["n"] - 1] != head["hash"]):
        problems.append(
            f"The head file knows {counted(head['n'], 'record')}; the end of the log was cut off or replaced."
        )
    if known_head and known_head not in hashes:
        problems.append("The noted hash is no longer in the chain: the log was replaced.")
    return {"records": len(hashes), "head": hashes[-1] if hashes else None, "problems": problems}


def export_csv(path: str | os.PathLike, output: str | os.PathLike) -> int:
    """Write all records as a table for spreadsheets; returns their number."""
    rows = records(path)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for record in rows:
        model = record.get("model") or {}
        changes = (record.get("voxels") or {}).items()
        flat = record | {"model": model.get("id", ""), "model_sha256": model.get("sha256", "")}
        flat["voxels"] = "; ".join(f"{name} +{c['added']} -{c['removed']}" for name, c in changes)
        writer.writerow([_cell(flat.get(column)) for column in _COLUMNS])
    write_text(output, "\ufeff" + text.getvalue())  # the mark tells Excel that it is UTF-8
    return len(rows)


def _cell(value) -> str:
    text = "" if value is None else str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text  # a comment must not run as a formula


def _write(path: Path, last: dict | None, fields: dict, torn: int = 0) -> dict:
    """Append one record and move the head; first cuts `torn` bytes off the end."""
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    record = {"n": last["n"] + 1 if last else 1, "time": time, **to_json_value(fields)}
    record["previous"] = last["hash"] if last else _START
    record["hash"] = _hash(record)
    line = json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
    try:
        with open(path, "ab") as file:
            start = file.tell() - torn
            file.truncate(start)
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)  # the disk is full: no part of a record stays
                raise
    except OSError as error:
        raise cannot_write(path, error) from error
    write_text(_head_file(path), json.dumps({"n": record["n"], "hash": record["hash"]}) + "\n")
    return record


def _hash(record: dict) -> str:
    content = {key: value for key, value in record.items() if key != "hash"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def _head_file(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _read_head(path: Path) -> dict | None:
    try:
        head = json.loads(_head_file(path).read_text(encoding="utf-8"))
        return {"n": int(head["n"]), "hash": str(head["hash"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{_head_file(path)}' is damaged.", "Keep it and the log, and begin a new log.") from error


def _check_head(path: Path, last: dict | None) -> None:
    """A head that knows more than the log means missing records; one that knows one less, an interrupted write."""
    head = _read_head(path)
    behind = head["n"] - (last["n"] if last else 0) if head else 0
    if behind > 0 or (head and behind == 0 and head["hash"] != last["hash"]) or (head is None and last):
        raise UserError(
            f"The end of the audit log '{path}' is not the one that was written last.",
            "Run 'mambaseg audit verify' on it, keep it, and begin a new log in another file.",
        )


def _end(path: Path) -> tuple[dict | None, int]:
    """(the last complete record, bytes of an unfinished line behind it)."""
    try:
        with open(path, "rb") as file:
            left, tail = file.seek(0, os.SEEK_END), b""
            while left and tail.count(b"\n") < 2:
                step = min(_CHUNK, left)
                left = file.seek(left - step)
                tail = file.read(step) + tail
    except FileNotFoundError:
        return None, 0
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}.", "Check the rights of the file.") from error
    complete, _, torn = tail.rpartition(b"\n")
    line = complete.rpartition(b"\n")[2]
    return (_parsed(line, None, path) if line else None), len(torn)


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().removesuffix(b"\n").split(b"\n") if path.stat().st_size else []
    except OSError as error:
        raise UserError(f"An audit log was expected at '{path}': {error.strerror}.", "Check the path.") from error


def _parsed(line: bytes, number: int | None, path: Path) -> dict:
    where = "The last line" if number is None else f"Line {number}"
    try:
        record = json.loads(line)
        if isinstance(record["n"], int) and isinstance(record["hash"], str) and isinstance(record["previous"], str):
            return record
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{where} of '{path}' is no record.", "Keep the file, and begin a new log.")
