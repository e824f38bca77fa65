"""DuckDB over the log's files: one view, `logs`, with a column for every field. It can read them and nothing else.

It is imported as `_duckdb`, the extension itself: what the package `duckdb` puts around it is not used here, and takes
more than a tenth of a second to import.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from inspection.fault import Unanswerable
from inspection.fields import Fields, literal, quoted
from inspection.files import LONGEST_LINE
from inspection.filters import Filter
from inspection.sources import Sources
from inspection.times import ALWAYS, Window

if TYPE_CHECKING:
    import _duckdb as duckdb

_MEMORY: Final = "200MB"
_PROGRESS_AFTER: Final = 0.5
_PROGRESS_EVERY: Final = 0.1
_OPTIONS: Final = (
    "SET memory_limit = '{memory}'",
    "SET temp_directory = ''",
    "SET preserve_insertion_order = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_progress_bar = false",
    "SET allowed_paths = [{paths}]",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class Table(NamedTuple):
    """What a SELECT gave: its columns' names and types, and the first rows; `more` tells whether there are others."""

    names: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    more: bool = False


class Logs:
    """The lines of some files, in a window, that meet some filters. Live: holds a connection to DuckDB.

    A line that is half written, or no JSON, is passed over; a value of an unexpected type is NULL. What is wrong with a
    file is mended as Sources says. Unanswerable is raised for what DuckDB cannot do.
    """

    def __init__(
        self, files: Sequence[Path], fields: Fields, window: Window = ALWAYS, filters: Sequence[Filter] = ()
    ) -> None:
        self.files = list(files)
        self.fields = fields
        self._conditions = [*_during(window), *(condition.sql for condition in filters)]
        self._sources = Sources(files, window)
        self.connection = _connected(self._sources.paths)

    def __repr__(self) -> str:
        """Show what is read."""
        return f"<Logs {len(self.files)} files {' AND '.join(self._conditions)}>"

    def rows(self, select: str, picked: str = "") -> list[dict[str, Any]]:
        """Return the rows of a SELECT in which `{logs}` stands for the lines; keys are its columns' names.

        `{everything}` stands for what the files hold: also what is no line of a log, all NULL where it is no JSON.

        `picked` is a condition in SQL that the `text` of all lines meets that are wanted, and of few others. It is
        faster where these are few, for only they are read as JSON.
        """

        def written() -> str:
            lines = self._lines(self._picked(select, picked) if picked else self.everything)
            stands = {"{logs}": lines, "{everything}": self.everything}
            return re.sub("{logs}|{everything}", lambda found: f"({stands[found[0]]})", select)

        table = self._fetched(written)
        return [dict(zip(table.names, row, strict=True)) for row in table.rows]

    def table(self, select: str, *, limit: int, seconds: float) -> Table:
        """Return the first rows of a SELECT of somebody's from `logs`, in which `timestamp` is a TIMESTAMP.

        Raises Unanswerable for what is not one SELECT, or takes longer than some seconds.
        """
        if not _is_select(self.connection, select):
            raise Unanswerable("only one SELECT is run here, such as SELECT event, count(*) FROM logs GROUP BY event")
        timer = threading.Timer(seconds, self._interrupt)
        timer.start()
        try:
            return self._fetched(lambda: select, limit, view=True)
        except _Stopped:
            raise Unanswerable(f"stopped after {seconds:g} s; narrow it with --since, or give it a --timeout") from None
        finally:
            timer.cancel()
            timer.join()

    def _interrupt(self) -> None:
        """Stop what runs, on the connection that there is by now."""
        self.connection.interrupt()

    @property
    def lines(self) -> str:
        """The SELECT that gives the lines: a column for each field, and `file`."""
        return self._lines(self.everything)

    @property
    def damaged(self) -> list[Path]:
        """The files that could not be read to their end, of those that have been read."""
        return [path for path in self.files if path not in self._sources.paths and path.exists()]

    @property
    def everything(self) -> str:
        """The SELECT that gives what is in the files, whatever it is."""
        types = self.fields.types.items()
        if not self._sources.paths:
            none = (f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in types)
            return f"SELECT {', '.join(none)}, CAST(NULL AS VARCHAR) AS file WHERE false"
        columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types)
        names = ", ".join(map(quoted, self.fields.types))
        return (
            f"SELECT {names}, {self._file} AS file FROM read_json({self._paths}, columns = {{{columns}}}, "
            f"format = 'newline_delimited', ignore_errors = true, filename = true, "
            f"maximum_object_size = {LONGEST_LINE})"
        )

    def texts(self, part: str) -> Iterator[bytes]:
        """Yield the lines, as they are written and whatever the window, in which a text occurs."""
        if not self.files:
            return
        table = self._fetched(lambda: f"SELECT text FROM {self._texts} WHERE contains(text, {literal(part)})")
        for (text,) in table.rows:
            yield text.encode()

    def _lines(self, read: str) -> str:
        """Return the SELECT that keeps, of what was read, the lines."""
        return f"SELECT * FROM ({read}) WHERE {' AND '.join(self._conditions)}"

    def _picked(self, select: str, condition: str) -> str:
        """Return the SELECT that gives what is in the files where their text meets a condition: the fields named."""
        asked = select + " ".join(self._conditions)
        types = {name: kind for name, kind in self.fields.types.items() if quoted(name)[1:-1] in asked}
        line = f"TRY(json_transform(text, {literal(msgspec.json.encode(types).decode())}))"
        once = f"SELECT unnest([{line}]) AS line FROM {self._texts} WHERE {condition}"  # a list, lest each field parses
        return f"SELECT unnest(line) FROM ({once})"

    @property
    def _texts(self) -> str:
        """The lines as they are written, garbage too: a table of one column, which no byte of a line divides."""
        if not self._sources.paths:
            return "(SELECT '' AS text WHERE false)"
        return (
            f"read_csv({self._paths}, columns = {{'text': 'VARCHAR'}}, header = false, auto_detect = false, "
            f"delim = '\x01', quote = '', escape = '', comment = '', new_line = '\\n', strict_mode = false, "
            f"ignore_errors = true, max_line_size = {LONGEST_LINE}, buffer_size = {2 * LONGEST_LINE})"
        )

    @property
    def _paths(self) -> str:
        return f"[{', '.join(literal(str(path)) for path in self._sources.paths)}]"

    @property
    def _file(self) -> str:
        """The name of a line's file in SQL: that of the log's where a copy is read."""
        whens = (f"WHEN {literal(str(copy))} THEN {literal(str(path))}" for copy, path in self._sources.copies.items())
        return f"CASE filename {' '.join(whens)} ELSE filename END" if self._sources.copies else "filename"

    def _fetched(self, select: Callable[[], str], limit: int | None = None, *, view: bool = False) -> Table:
        """Return what a SELECT gives, to which there is the view `logs` or not; again where files had to be mended."""
        import _duckdb as duckdb  # noqa: PLC0415 - slow to import where it is not needed

        while True:
            try:
                if view:
                    self._make_view()
                with watched(self.connection):
                    table = _table(self.connection.execute(select()), limit)
                if not self._sources.moved():
                    return table
                self.connection = _connected(self._sources.paths)
            except duckdb.OutOfMemoryException:
                raise Unanswerable(f"that needs more memory than {_MEMORY}; narrow it with --since or -f") from None
            except duckdb.InterruptException:
                raise _Stopped from None
            except duckdb.Error as error:
                if not self._sources.mend(str(error)):
                    raise Unanswerable(_sentence(str(error))) from None
                self.connection = _connected(self._sources.paths)

    def _make_view(self) -> None:
        self.connection.execute(
            f"CREATE OR REPLACE TEMP VIEW logs AS "
            f"SELECT * REPLACE (try_cast(timestamp AS TIMESTAMP) AS timestamp) FROM ({self.lines})"
        )


class _Stopped(Exception):
    """A query was interrupted."""


@contextmanager
def watched(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Show on a terminal how far a query is that takes long."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    showing = threading.Thread(target=_show_progress, args=(connection, done, sys.stderr), daemon=True)
    showing.start()
    try:
        yield
    finally:
        done.set()
        showing.join()


def _show_progress(connection: duckdb.DuckDBPyConnection, done: threading.Event, terminal: IO[str]) -> None:
    shown = False
    wait = _PROGRESS_AFTER
    while not done.wait(wait):
        wait = _PROGRESS_EVERY
        if (share := connection.query_progress()) >= 0:
            shown = True
            terminal.write(f"\rReading the log: {share:3.0f} %")
            terminal.flush()
    if shown:
        terminal.write("\r\x1b[K")
        terminal.flush()


def _connected(files: Sequence[Path]) -> duckdb.DuckDBPyConnection:
    try:
        import _duckdb as duckdb  # noqa: PLC0415 - an extra, and slow to import where it is not needed
    except ImportError:
        raise Unanswerable("this needs DuckDB: install tributary[logs], or duckdb itself") from None
    connection = duckdb.connect()
    for option in _OPTIONS:
        connection.execute(option.format(memory=_MEMORY, paths=", ".join(literal(str(path)) for path in files)))
    return connection


def _during(window: Window) -> Iterator[str]:
    yield "timestamp BETWEEN '1970' AND '9999'"  # what is none sorts outside; nor is it NULL
    since, until = window.texts
    if since is not None:
        yield f"timestamp >= {literal(since)}"
    if until is not None:
        yield f"timestamp < {literal(until)}"


def _is_select(connection: duckdb.DuckDBPyConnection, text: str) -> bool:
    """Tell whether a text is one SELECT. Raises Unanswerable when it is no SQL."""
    import _duckdb as duckdb  # noqa: PLC0415 - slow to import where it is not needed

    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise Unanswerable(_sentence(str(error))) from None
    return len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT


def _table(cursor: duckdb.DuckDBPyConnection, limit: int | None) -> Table:
    rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
    described = cursor.description or []
    names, types = [column[0] for column in described], [str(column[1]) for column in described]
    return Table(names, types, rows[:limit], limit is not None and len(rows) > limit)


def _sentence(complaint: str) -> str:
    """Return what DuckDB says as one line, without the excerpt of the query that follows it."""
    if "pytz" in complaint:
        return "a TIMESTAMP WITH TIME ZONE cannot be shown; CAST it AS TIMESTAMP"
    said = complaint.partition("\n\nLINE ")[0].partition("\nLINE ")[0]
    return " ".join(said.split())
