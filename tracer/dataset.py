# SPDX-License-Identifier: MIT
"""The trace dataset: a folder `NAME.cosytrace/`, schema version 3.

docs/architecture.md, "The trace dataset", says what each column means.

Path strings are text. A name on Linux is bytes, so names are kept in percent form:
bytes that are no UTF-8 as `%XX`, and `%` itself as `%25`. `path_text` and
`path_bytes` convert; for nearly all names both change nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.interrupt import uninterrupted
from tracer.target import DatasetError, check_target

SCHEMA_VERSION = 3
READABLE = (1, 2, 3)  # 1: without sites.parquet; 2: without threads.parquet and ends of processes
# Events. Nothing is left to do while the last group is written; a quarter of the memory of 1 Mi.
ROW_GROUP = 1 << 18

_TEXT = pa.dictionary(pa.int32(), pa.string())
EVENTS = pa.schema(
    [
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("dur_ns", pa.int64(), nullable=False),
        pa.field("pid", pa.int32(), nullable=False),
        pa.field("tid", pa.int32(), nullable=False),
        pa.field("nr", pa.int16(), nullable=False),
        *[pa.field(f"a{i}", pa.uint64(), nullable=False) for i in range(6)],
        pa.field("ret", pa.int64()),
        pa.field("path", _TEXT),
        pa.field("path2", _TEXT),
        pa.field("bytes_in", pa.int64(), nullable=False),
        pa.field("bytes_out", pa.int64(), nullable=False),
        pa.field("site", _TEXT),
        pa.field("object_id", pa.int32()),
        pa.field("names", pa.list_(pa.uint32())),
        pa.field("st_mode", pa.uint32()),
        pa.field("st_size", pa.int64()),
        pa.field("st_ino", pa.int64()),
    ]
)
ENDS = ("end_ns", "user_ns", "system_ns")  # of processes, since version 3
PROCESSES = pa.schema(
    [
        pa.field("pid", pa.int32(), nullable=False),
        pa.field("ppid", pa.int32(), nullable=False),
        pa.field("exe", pa.string()),
        pa.field("build_id", pa.string()),
        pa.field("argv", pa.list_(pa.string())),
        pa.field("cwd", pa.string()),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("exit", pa.int32()),
        *[pa.field(name, pa.int64()) for name in ENDS],
    ]
)
THREADS = pa.schema(
    [
        pa.field("pid", pa.int32(), nullable=False),
        pa.field("tid", pa.int32(), nullable=False),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("end_ns", pa.int64()),
    ]
)
OBJECTS = pa.schema(
    [
        pa.field("object_id", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("dev", pa.uint64()),
        pa.field("ino", pa.uint64()),
        pa.field("path", pa.string()),
        pa.field("event", pa.int64()),
    ]
)
SITES = pa.schema(
    [
        pa.field("site", pa.string(), nullable=False),
        pa.field("module", pa.string()),
        pa.field("build_id", pa.string()),
        pa.field("offset", pa.uint64(), nullable=False),
        pa.field("symbol", pa.string()),
    ]
)
META_KEYS = frozenset(
    (
        "schema",
        "backend",
        "kernel",
        "clock",
        "lost_events",
        "command",
        "recorded",
        "wall_ns",
        "tool_version",
    )
)
_META_TYPES: dict[str, type] = {
    **dict.fromkeys(("lost_events", "wall_ns", "user_ns", "system_ns", "unread_lines"), int),
    **dict.fromkeys(("command", "unseen_programs"), list),
    **dict.fromkeys(("adopted_programs", "adopted_why", "adopted_by"), list),
}
# How each column is kept: what takes the least time, as long as an event of the file tools takes
# less than 20 bytes (bench.tracing --part writing; all by zstd as it comes: 1.5 times the time).
# Texts come with a dictionary; numbers are sought in none. All by lz4 but for paths, zstd at a
# level between the two. Where all events go into one row group, time does not count: with zstd for
# all 88,000 events of du take 18.9 bytes each instead of 23.0.
_TEXTS = ["path", "path2", "site"]
_DELTAS = ["t_ns", "dur_ns", "bytes_in", "st_size", "st_ino"]
_PATH_LEVEL = -1
# Of the objects: 8.4 bytes and 0.24 us each; with a dictionary for each column 15.5 and 0.40.
_OBJECTS = {
    **dict.fromkeys(["object_id", "ino", "event"], "DELTA_BINARY_PACKED"),
    "path": "DELTA_BYTE_ARRAY",
}
# Columns by which a reader may leave out row groups; those of the others take time.
_SEARCHED = ["t_ns", "pid", "tid", "nr", "object_id"]
FEW_WORDS = 1 / 8  # of the events
_BATCH = 1 << 16  # values that the library encodes at a time; 1 Ki, its default: 6 % more time

_ESCAPE = re.compile("[%\udc80-\udcff]")
_ESCAPED = re.compile(b"%([0-9A-F]{2})")


def path_text(raw: bytes) -> str:
    """Return the percent form of a name."""
    text = raw.decode("utf-8", "surrogateescape")
    if not _ESCAPE.search(text):
        return text
    return _ESCAPE.sub(lambda m: f"%{ord(m[0]) & 0xFF:02X}", text)


def path_bytes(text: str) -> bytes:
    """Return the name that a percent form stands for."""
    return _ESCAPED.sub(lambda m: bytes([int(m[1], 16)]), text.encode())


def _codecs(few: bool) -> dict[str, Any]:
    """How pages are compressed, for few events or for many."""
    if few:
        return {"compression": "zstd"}
    leaves = ["names.list.element" if name == "names" else name for name in EVENTS.names]
    return {
        "compression": {leaf: "zstd" if leaf == "path" else "lz4" for leaf in leaves},
        "compression_level": {"path": _PATH_LEVEL},
    }


class Writer:
    """Writes a dataset: into `PATH.tmp-PID/`, which finish() renames.

    As a context manager it removes what is unfinished. An existing dataset is only
    replaced with `force`, anything else that is in the way never. `row_group`: events in each of
    the file's row groups.
    """

    def __init__(self, path: Path, force: bool = False, row_group: int = ROW_GROUP) -> None:
        check_target(path, force)
        self._row_group = row_group
        # A link to a dataset stays one: what it means is replaced.
        self.path = path = Path(os.path.realpath(path))
        self._tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        # Ctrl-C may come before anybody has us as a context manager.
        self._remove = weakref.finalize(self, shutil.rmtree, self._tmp, ignore_errors=True)
        try:
            self._tmp.mkdir()
        except OSError as error:
            self._remove.detach()
            raise self._failed(error) from error
        self._events: pq.ParquetWriter | None = None
        self.n_events = 0
        self._tables: list[pa.Table] = []
        # One table is compressed while the next is made.
        self._behind = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._behind.shutdown(cancel_futures=True)
        if self._tmp.exists() and self._events:
            self._events.close()
        self._remove()

    def write_events(self, events: pa.Table) -> None:
        """Append events, sorted by t_ns and none earlier than those before."""
        self._tables.append(events)
        self.n_events += events.num_rows
        if sum(table.num_rows for table in self._tables) >= self._row_group:
            every = pa.concat_tables(self._tables)
            whole = every.num_rows // self._row_group * self._row_group
            self._write(every.slice(0, whole), few=False)
            self._tables = [every.slice(whole)]

    def _failed(self, error: OSError) -> DatasetError:
        return DatasetError(f"cannot write: {self.path}: {error.strerror or error}")

    def _write(self, events: pa.Table, few: bool) -> None:
        self._wait()
        file = self._events = self._events or self._open(few)
        self._written = self._behind.submit(
            lambda: file.write_table(_unified(events), row_group_size=self._row_group)
        )

    def _open(self, few: bool) -> pq.ParquetWriter:
        try:
            return pq.ParquetWriter(
                self._tmp / "events.parquet",
                EVENTS,
                use_dictionary=_TEXTS,
                column_encoding=dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED"),
                write_statistics=_SEARCHED,
                write_batch_size=_BATCH,
                **_codecs(few),
            )
        except OSError as error:
            raise self._failed(error) from error

    def end_events(self) -> None:
        """Begin to write what is left; other tables can be made meanwhile."""
        tables, self._tables = self._tables, []
        if any(table.num_rows for table in tables):
            self._write(pa.concat_tables(tables), few=True)
        self._events = self._events or self._open(few=True)

    def _wait(self) -> None:
        if self._written:
            written, self._written = self._written, None
            written.result()

    def finish(
        self,
        processes: pa.Table,
        objects: pa.Table,
        meta: Mapping[str, Any],
        sites: pa.Table | None = None,
        threads: pa.Table | None = None,
    ) -> None:
        """Write the rest and put the dataset in its place."""
        self.end_events()
        for name, table, schema in (
            ("sites", sites, SITES),
            ("threads", threads, THREADS),
            ("processes", processes, PROCESSES),
        ):
            found = pa.Table.from_batches([], schema) if table is None else table
            pq.write_table(found, self._tmp / f"{name}.parquet", compression="zstd")
        pq.write_table(
            objects,
            self._tmp / "objects.parquet",
            compression="zstd",
            use_dictionary=["kind", "dev"],
            column_encoding=_OBJECTS,
            write_batch_size=_BATCH,
        )
        text = json.dumps({"schema": SCHEMA_VERSION, **meta}, indent=1, ensure_ascii=True)
        (self._tmp / "meta.json").write_text(text + "\n")
        self._wait()
        if self._events:
            self._events.close()
        old = self.path.with_name(f"{self.path.name}.old-{os.getpid()}")
        with uninterrupted():
            if self.path.exists():
                self.path.rename(old)
            self._tmp.rename(self.path)
            shutil.rmtree(old, ignore_errors=True)


class Dataset:
    """A dataset; raises DatasetError when there is none of this schema.

    A path with `://` in it (`s3://bucket/NAME.cosytrace`) is read through fsspec.
    """

    def __init__(self, path: Path | str) -> None:
        self._url = str(path).rstrip("/") if "://" in str(path) else None
        self.path = Path(path)
        try:
            with self._file("meta.json") as file:
                meta = json.loads(file.read())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DatasetError(
                f"no trace dataset: {self.path}: record one with cosy-trace"
            ) from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise DatasetError(f"cannot read: {self.path / 'meta.json'}: {why}") from error
        if not isinstance(meta, dict) or meta.get("schema") not in READABLE:
            version = meta.get("schema") if isinstance(meta, dict) else None
            raise DatasetError(
                f"schema {version}, not {SCHEMA_VERSION}: {self.path}: record it again"
            )
        missing = META_KEYS - set(meta)
        if missing:
            raise DatasetError(f"no {min(missing)} in {self.path / 'meta.json'}: record it again")
        for key, kinds in _META_TYPES.items():
            if not isinstance(meta.get(key, kinds()), kinds):
                wrong = f"{key} is no {kinds.__name__} in {self.path / 'meta.json'}"
                raise DatasetError(f"{wrong}: record it again")
        self.meta: dict[str, Any] = meta
        self.progress: Callable[[int, int], None] | None = None
        """Told how many events batches() has handed out, of how many."""
        self._events = self._open("events.parquet", EVENTS)

    def _file(self, name: str) -> BinaryIO:
        if self._url is None:
            return (self.path / name).open("rb")
        try:
            import fsspec
        except ImportError as error:
            raise DatasetError(
                f"no fsspec to read {self._url} with: pip install cosy[dask]"
            ) from error
        try:
            remote: BinaryIO = fsspec.open(f"{self._url}/{name}", "rb").open()
        except (ValueError, ImportError) as error:  # a protocol that nobody knows, or can read here
            raise DatasetError(f"cannot read: {self._url}: {error}") from error
        return remote

    def _open(self, name: str, schema: pa.Schema) -> pq.ParquetFile:
        path = self.path / name
        with self._reading(name):
            file = pq.ParquetFile(path if self._url is None else self._file(name))
        for field in schema:
            index = file.schema_arrow.get_field_index(field.name)
            # Other writers may store text without dictionaries.
            if index < 0 or not _compatible(file.schema_arrow.field(index).type, field.type):
                raise DatasetError(f"column {field.name} is not as it should be: {path}")
        return file

    def _read(self, name: str, schema: pa.Schema) -> pa.Table:
        with self._reading(name):
            return self._open(name, schema).read()

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turn what goes wrong with a file into DatasetError."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            why = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
            raise DatasetError(
                f"cannot read: {self.path / name}: {why}: record it again"
            ) from error

    def __len__(self) -> int:
        return int(self._events.metadata.num_rows)

    @property
    def events_file(self) -> pq.ParquetFile:
        """The events, for readers that pick row groups."""
        return self._events

    @property
    def objects_file(self) -> pq.ParquetFile:
        """The objects, for readers that pick row groups."""
        return self._open("objects.parquet", OBJECTS)

    def events(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all events, or these columns of them, in the order of time."""
        wanted = list(columns) if columns is not None else EVENTS.names
        with self._reading("events.parquet"):
            table = self._events.read(columns=wanted).select(wanted)
        return table.unify_dictionaries()

    def batches(
        self, columns: Sequence[str] | None = None, size: int = ROW_GROUP
    ) -> Iterator[pa.RecordBatch]:
        """Yield events in the order of time, `size` at a time, for traces beyond memory."""
        wanted = list(columns) if columns is not None else EVENTS.names
        done = 0
        with self._reading("events.parquet"):
            for batch in self._events.iter_batches(size, columns=wanted):
                yield batch
                done += batch.num_rows
                if self.progress:
                    self.progress(done, len(self))

    def processes(self) -> pa.Table:
        """Return the program images; before schema 3 nothing is known of their ends."""
        if self.meta["schema"] >= 3:
            return self._read("processes.parquet", PROCESSES)
        found = self._read("processes.parquet", pa.schema(list(PROCESSES)[: -len(ENDS)]))
        for name in ENDS:
            found = found.append_column(name, pa.nulls(len(found), pa.int64()))
        return found

    def threads(self) -> pa.Table:
        """Return when threads began and ended; nothing in a dataset before schema 3."""
        if self.meta["schema"] < 3:
            return pa.Table.from_batches([], THREADS)
        return self._read("threads.parquet", THREADS)

    def objects(self) -> pa.Table:
        """Return the objects."""
        return self._read("objects.parquet", OBJECTS)

    def sites(self) -> pa.Table:
        """Return what is known of the call sites; nothing in a dataset of schema 1."""
        if self.meta["schema"] == 1:
            return pa.Table.from_batches([], SITES)
        return self._read("sites.parquet", SITES)


def _unified(events: pa.Table) -> pa.Table:
    """Let columns of text with few different words have one dictionary each.

    Of the others Parquet writes the words themselves, which takes less time, and no more room.
    """
    for at, field in enumerate(events.schema):
        if pa.types.is_dictionary(field.type):
            found = events.column(at)
            words = sum(len(part.dictionary) for part in found.chunks)
            if words < events.num_rows * FEW_WORDS:
                events = events.set_column(at, field, found.unify_dictionaries())
    return events


def _compatible(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(wanted) and not pa.types.is_dictionary(found):
        return bool(found == wanted.value_type)
    return bool(found == wanted)
