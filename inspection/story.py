"""One request's log lines as its story: what was called when, what was tried again, what was waited for, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from inspection.fields import CATALOGUE
from inspection.times import parsed

Line = Mapping[str, Any]

#: What a row is about ends before another begins if it ends by then, in milliseconds: clocks are read one by one.
_TOLERANCE: Final = 0.05
#: A queue that was stood in for less, in milliseconds, is not worth a word.
_LEAST_WAIT: Final = 1.0
#: Events that are drawn; all others of a request stand below the waterfall.
_DRAWN: Final = frozenset(
    {
        *("request.started", "request.finished", "attempt.finished", "call.finished", "call.skipped"),
        *("retry.scheduled", "flight.joined", "merge.finished", "client.disconnected"),
    }
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the waterfall; times are milliseconds from the arrival of the request.

    `what`: `attempt`; `refused`, a call or a retry that was not let through; `skipped`, for want of another's value;
    `shared`, a call that took an identical one's answer; `absent`, nothing was to be asked; `merge`. `wait_ms` was
    waited before it, for the next try or in a queue. `of` is the trace id of the other request whose attempt it is.
    """

    what: str
    call: str
    start_ms: float
    took_ms: float
    upstream: str | None = None
    host: str | None = None
    method: str | None = None
    attempt: int | None = None
    kind: str | None = None
    outcome: str | None = None
    status: int | None = None
    error: str | None = None
    detail: str | None = None
    sent: bool | None = None
    conn: str | None = None
    body_bytes: int | None = None
    span_id: str | None = None
    wait_ms: float | None = None
    of: str | None = None
    note: str | None = None
    critical: bool = False

    @property
    def is_anothers(self) -> bool:
        """Whether it is the attempt of another request."""
        return self.what == "attempt" and self.of is not None

    @property
    def end_ms(self) -> float:
        """When it ended."""
        return self.start_ms + self.took_ms


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the wide line says of a request, or its first line as far as that goes; `inputs` are the page's log_fields.

    `finished` is the timestamp of the wide line, None without one. Timestamps are as in the log.
    """

    method: str | None
    path: str | None
    route: str | None
    page: str | None
    status: int | None
    outcome: str | None
    error: str | None
    duration_ms: float | None
    queued_ms: float | None
    request_id: str | None
    trace_id: str | None
    span_id: str | None
    parent_span_id: str | None
    instance: str | None
    started: str | None
    finished: str | None
    calls: int | None
    attempts: int | None
    failed_calls: list[str]
    bytes_out: int | None
    complete: bool | None
    inputs: dict[str, Any]


class Slowest(msgspec.Struct, frozen=True):
    """The call that took longest, and its share, 0 to 1, of the request's duration."""

    call: str
    took_ms: float
    share: float


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A request: `rows` by call, in the order of their calls' start; `span_ms` reaches to the end of the last row.

    `attempts` and `calls` count what the rows show of this request's own. `missing` are the calls without a value in
    the answer. `remarks` are sentences on what the log does not have. `lines` are its other lines, as logged.
    """

    request: Head
    rows: list[Row]
    span_ms: float
    attempts: int
    calls: int
    slowest: Slowest | None
    missing: list[str]
    remarks: list[str]
    lines: list[dict[str, Any]]


class Other(NamedTuple):
    """What other requests' lines say that a story needs: the attempts of leaders, and changes of breakers."""

    attempts: Sequence[Line] = ()
    breakers: Sequence[Line] = ()


def divided(lines: Iterable[Line]) -> list[list[Line]]:
    """Divide lines into requests, in the order of their arrival: an id, or a whole trace, may come again.

    Lines that say when their request arrived go to the one that arrived then, others to the one under way.
    """
    clients = defaultdict[tuple[str | None, ...], list[Line]](list)
    for line in lines:
        clients[tuple(text(line, name) for name in ("service.instance.id", "trace_id", "request_id"))].append(line)
    found = [request for of_one in clients.values() for request in _repeated(of_one)]
    return sorted(found, key=arrival)


def arrival(lines: Iterable[Line]) -> float:
    """Return when a request arrived, in milliseconds since 1970, by the best that its lines know; 0 by none."""
    known = list(lines)
    for line in known:
        if line.get("event") == "request.started" and (at := _arrival_by(line)) is not None:
            return at
    guesses = [guess for line in known if (guess := _arrival_by(line)) is not None]
    return min(guesses) if guesses else min((at for line in known if (at := moment(line)) is not None), default=0.0)


def leaders(lines: Iterable[Line]) -> set[str]:
    """Return the trace ids of other requests whose answers were shared."""
    lines = list(lines)
    own = {text(line, "trace_id") for line in lines}
    found = {text(line, "leader.trace_id") for line in lines if line.get("event") == "flight.joined"}
    return {trace_id for trace_id in found - own if trace_id}


def refused(lines: Iterable[Line]) -> bool:
    """Tell whether a breaker let something of a request not through."""
    return any(text(line, "error.type") == "destination_unavailable" for line in lines)


def told(lines: Iterable[Line], other: Other = Other()) -> Story:  # noqa: B008 - it is frozen
    """Return the story of one request's lines, in whatever order; fields that are none of the log's count as absent."""
    known = sorted(lines, key=lambda line: (text(line, "timestamp") or "", number(line, "seq") or 0))
    head = _head(known)
    rows = _ordered(_Rows(known, other).all())
    path = set(map(id, _critical(rows, head)))
    rows = [msgspec.structs.replace(row, critical=True) if id(row) in path else row for row in rows]
    own = [row for row in rows if row.what == "attempt" and row.of is None]
    return Story(
        request=head,
        rows=rows,
        span_ms=round(max([row.end_ms for row in rows] + [head.duration_ms or 0.0]), 3),
        attempts=sum(row.kind != "transparent" for row in own),
        calls=len({row.call for row in rows if row.what != "merge"}),
        slowest=_slowest(rows, head),
        missing=list(head.failed_calls) if head.complete is not None else [],
        remarks=list(_remarks(known, own, head)),
        lines=[dict(line) for line in known if text(line, "event") not in _DRAWN],
    )


def text(line: Line, name: str) -> str | None:
    """Return a field that is a text, else None."""
    value = line.get(name)
    return value if isinstance(value, str) else None


def number(line: Line, name: str) -> float | None:
    """Return a field that is a number, else None."""
    value = line.get(name)
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e15 else None


def moment(line: Line) -> float | None:
    """Return a line's timestamp in milliseconds since 1970; None if it is none."""
    when = parsed(text(line, "timestamp") or "")
    return when.timestamp() * 1000 if when else None


def _whole(line: Line, name: str) -> int | None:
    value = number(line, name)
    return int(value) if value is not None else None


def _arrival_by(line: Line) -> float | None:
    """Return when a line's request arrived, if it says so."""
    at, took, start = moment(line), number(line, "duration_ms"), number(line, "start_offset_ms")
    if at is None:
        return None
    if line.get("event") == "request.started":
        return at - (number(line, "queued_ms") or 0.0)
    if took is None or (start is None and line.get("event") != "request.finished"):
        return None
    return at - took - (start or 0.0)


def _repeated(lines: list[Line]) -> list[list[Line]]:
    """Divide the lines of one id into the requests that bore it, one after the other or at once."""
    for event in ("request.started", "request.finished"):
        arrivals = sorted(at for line in lines if line.get("event") == event and (at := _arrival_by(line)) is not None)
        if len(arrivals) > 1:
            break
    else:
        return [lines]
    requests: list[list[Line]] = [[] for _ in arrivals]
    for line in lines:
        arrived = _arrival_by(line)
        if arrived is None:
            at = moment(line) or 0.0
            requests[max(sum(other <= at for other in arrivals) - 1, 0)].append(line)
        else:
            distances = [abs(other - arrived) for other in arrivals]
            requests[distances.index(min(distances))].append(line)
    return [request for request in requests if request]


def _head(lines: Sequence[Line]) -> Head:
    wide = next((line for line in lines if line.get("event") == "request.finished"), None)
    first = next((line for line in lines if line.get("event") == "request.started"), None)
    said: Line = {**(lines[0] if lines else {}), **(first or {}), **(wide or {})}
    routes = [route for line in lines if (route := text(line, "http.route"))]
    failed = said.get("calls_failed")
    complete = said.get("complete")
    return Head(
        method=text(said, "http.request.method"),
        path=text(said, "url.path"),
        route=routes[-1] if routes else None,
        page=text(said, "page"),
        status=_whole(wide, "http.response.status_code") if wide else None,
        outcome=text(wide, "outcome") if wide else None,
        error=text(wide, "error.type") if wide else None,
        duration_ms=number(wide, "duration_ms") if wide else None,
        queued_ms=number(said, "queued_ms"),
        request_id=text(said, "request_id"),
        trace_id=text(said, "trace_id"),
        span_id=text(wide, "span_id") if wide else None,
        parent_span_id=text(wide, "parent_span_id") if wide else None,
        instance=text(said, "service.instance.id"),
        started=text(first, "timestamp") if first else None,
        finished=text(wide, "timestamp") if wide else None,
        calls=_whole(wide, "calls") if wide else None,
        attempts=_whole(wide, "attempts") if wide else None,
        failed_calls=[name for name in failed if isinstance(name, str)] if isinstance(failed, list) else [],
        bytes_out=_whole(wide, "bytes_out") if wide else None,
        complete=complete if isinstance(complete, bool) else None,
        inputs={name: value for name, value in (wide or {}).items() if name not in CATALOGUE},
    )


class _Rows:
    """One request's lines on their way to rows."""

    def __init__(self, lines: Sequence[Line], other: Other) -> None:
        self.arrival = arrival(lines)
        self.other = other
        self.by_event = defaultdict[str, list[Line]](list)
        for line in lines:
            self.by_event[text(line, "event") or ""].append(line)
        self.starts: dict[str, float] = {}
        for line in self.by_event["call.finished"]:
            self.starts.setdefault(_call(line), number(line, "start_offset_ms") or 0.0)

    def all(self) -> list[Row]:
        attempts = self.attempts()
        rows = [*attempts, *self.unmade_calls(), *self.unmade_retries(attempts), *self.shared(), *self.merges()]
        rows += [_skipped(line) for line in self.by_event["call.skipped"]]
        return rows

    def attempts(self) -> list[Row]:
        """Return the attempts, each with the wait before it: for its turn to be tried again, or in a queue."""
        rows = [_attempt(line) for line in self.by_event["attempt.finished"]]
        waits = [line for line in self.by_event["retry.scheduled"] if number(line, "wait_ms") is not None]
        firsts = {row.call: row for row in sorted(rows, key=lambda row: -row.start_ms)}
        for nth, row in enumerate(rows):
            wait = None
            if row.kind == "retry":
                wait = self._wait(row, waits)
            elif firsts[row.call] is row:
                queued = row.start_ms - self.starts.get(row.call, row.start_ms)
                wait = round(queued, 3) if queued >= _LEAST_WAIT else None
            rows[nth] = msgspec.structs.replace(row, wait_ms=wait)
        return rows

    def _wait(self, row: Row, waits: list[Line]) -> float | None:
        """Take the wait that led to a retry: a join has several calls of one name under way."""
        led = [line for line in waits if _call(line) == row.call and number(line, "attempt") == (row.attempt or 0) - 1]
        if not led:
            return None
        best = min(led, key=lambda line: abs(self._end_of(line) - row.start_ms))
        waits.remove(best)
        return number(best, "wait_ms")

    def _end_of(self, line: Line) -> float:
        return (moment(line) or self.arrival) - self.arrival + (number(line, "wait_ms") or 0.0)

    def unmade_calls(self) -> Iterator[Row]:
        """Yield the calls that made no attempt, and those that were given up while an attempt went on."""
        joined = {_call(line) for line in self.by_event["flight.joined"]}
        for line in self.by_event["call.finished"]:
            outcome, error = text(line, "outcome"), text(line, "error.type")
            made = bool(number(line, "attempts"))
            if made or _call(line) in joined or (outcome == "ok"):
                continue
            yield Row(
                what="absent" if outcome == "absent" else "refused",
                call=_call(line),
                upstream=text(line, "upstream"),
                start_ms=number(line, "start_offset_ms") or 0.0,
                took_ms=number(line, "duration_ms") or 0.0,
                outcome=outcome,
                error=error,
                note=self._breaker(line),
            )

    def _breaker(self, line: Line) -> str | None:
        """Say when the breaker that refused a call had opened, and for how long."""
        if text(line, "error.type") != "destination_unavailable":
            return None
        at = text(line, "timestamp") or ""
        own = ("upstream", "service.instance.id")
        changes = [
            change
            for change in self.other.breakers
            if all(text(change, name) == text(line, name) for name in own) and (text(change, "timestamp") or "") <= at
        ]
        latest = max(changes, key=lambda change: text(change, "timestamp") or "", default=None)
        if latest is None or text(latest, "to") == "closed":
            return None
        when, open_ms = (text(latest, "timestamp") or "")[11:23], number(latest, "open_ms")
        state = (text(latest, "to") or "").replace("_", " ")
        return f"breaker {state} since {when}Z" + (f", for {open_ms:.0f} ms" if open_ms is not None else "")

    def unmade_retries(self, attempts: Sequence[Row]) -> Iterator[Row]:
        """Yield the retries that were waited for and never begun."""
        made = {(row.call, row.attempt) for row in attempts}
        ends = {_call(line): line for line in self.by_event["call.finished"]}
        for line in self.by_event["retry.scheduled"]:
            attempt = (_whole(line, "attempt") or 0) + 1
            if (_call(line), attempt) in made:
                continue
            at = (moment(line) or self.arrival) - self.arrival
            end = ends.get(_call(line))
            until = (number(end, "start_offset_ms") or 0.0) + (number(end, "duration_ms") or 0.0) if end else at
            yield Row(
                what="refused",
                call=_call(line),
                upstream=text(line, "upstream"),
                attempt=attempt,
                kind="retry",
                outcome="not made" if end else "waiting",
                start_ms=round(max(at, until), 3),
                took_ms=0.0,
                wait_ms=number(line, "wait_ms"),
            )

    def shared(self) -> Iterator[Row]:
        """Yield the calls that took an identical one's answer, each with that one's attempts if they are known."""
        ends = {_call(line): line for line in self.by_event["call.finished"]}
        own = {text(line, "span_id") for line in self.by_event["attempt.finished"]}
        for line in self.by_event["flight.joined"]:
            joined = round((moment(line) or self.arrival) - self.arrival, 3)
            end = ends.get(_call(line), {})
            begin = number(end, "start_offset_ms")
            took = number(end, "duration_ms")
            until = begin + took if begin is not None and took is not None else joined
            if bool(number(end, "attempts")):  # the leader gave up, and the call was made after all
                until = joined
            leader, trace = text(line, "leader"), text(line, "leader.trace_id")
            other = trace if trace != text(line, "trace_id") else None
            yield Row(
                what="shared",
                call=_call(line),
                upstream=text(line, "upstream"),
                start_ms=joined,
                took_ms=round(max(until - joined, 0.0), 3),
                outcome=text(end, "outcome"),
                error=text(end, "error.type"),
                of=other,
                note=f"shares {leader}" + (f" of trace {other[:8]}" if other else ""),
            )
            yield from self._led(line, other, joined, own)

    def _led(self, joined: Line, trace: str | None, since: float, own: set[str | None]) -> Iterator[Row]:
        """Yield the attempts of another request that a call waited for, by this request's time."""
        if trace is None:
            return
        for line in self.other.attempts:
            same = text(line, "trace_id") == trace and _call(line) == text(joined, "leader")
            arrived = _arrival_by(line)
            if not same or arrived is None or text(line, "span_id") in own:
                continue
            row = _attempt(line)
            start = round(row.start_ms + arrived - self.arrival, 3)
            if start + row.took_ms + _TOLERANCE >= since:
                yield msgspec.structs.replace(row, call=_call(joined), start_ms=start, of=trace)

    def merges(self) -> Iterator[Row]:
        for line in self.by_event["merge.finished"]:
            took = number(line, "duration_ms") or 0.0
            end = (moment(line) or self.arrival) - self.arrival
            yield Row(what="merge", call="merge", start_ms=round(max(end - took, 0.0), 3), took_ms=took, outcome="ok")


def _call(line: Line) -> str:
    return text(line, "call") or text(line, "upstream") or "?"


def _attempt(line: Line) -> Row:
    sent = line.get("sent")
    return Row(
        what="attempt",
        call=_call(line),
        upstream=text(line, "upstream"),
        host=text(line, "server.address"),
        method=text(line, "http.request.method"),
        attempt=_whole(line, "attempt"),
        kind=text(line, "kind"),
        outcome=text(line, "outcome"),
        status=_whole(line, "http.response.status_code"),
        error=text(line, "error.type"),
        detail=text(line, "exception.message"),
        sent=sent if isinstance(sent, bool) else None,
        conn=text(line, "conn"),
        body_bytes=_whole(line, "body_bytes"),
        span_id=text(line, "span_id"),
        start_ms=number(line, "start_offset_ms") or 0.0,
        took_ms=number(line, "duration_ms") or 0.0,
    )


def _skipped(line: Line) -> Row:
    return Row(
        what="skipped",
        call=_call(line),
        upstream=text(line, "upstream"),
        start_ms=0.0,
        took_ms=0.0,
        outcome="skipped",
        note=f"no {text(line, 'because') or '?'}",
    )


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Put a call's rows together, the calls in the order of their start, what was never begun behind them."""
    begins: dict[str, tuple[bool, float]] = {}
    for row in rows:
        begin = (row.what in {"skipped", "merge"}, row.start_ms)
        begins[row.call] = min(begins.get(row.call, begin), begin)
    return sorted(rows, key=lambda row: (begins[row.call], row.call, row.is_anothers, row.start_ms, row.attempt or 0))


def _critical(rows: Sequence[Row], head: Head) -> Iterator[Row]:
    """Yield the rows that the request's duration is made of, the last first.

    From the end of the request back: what ended last by then; before a further attempt, the one it follows; before a
    call's first attempt, what ended last before that call began. What was cancelled counts only when the client left.
    """
    if head.duration_ms is None:
        return
    left = head.outcome == "disconnected"
    known = [row for row in rows if row.what not in {"skipped", "absent"} and not row.is_anothers]
    until, current = head.duration_ms, None
    seen: set[int] = set()
    while True:
        rest = [row for row in known if id(row) not in seen]
        current = _followed(current, rest) or _latest(
            until, [row for row in rest if left or row.outcome != "cancelled"]
        )
        if current is None:
            return
        seen.add(id(current))
        yield current
        until = current.start_ms - (current.wait_ms or 0.0)


def _followed(current: Row | None, rows: Sequence[Row]) -> Row | None:
    """Return the attempt that a further one follows, or stands beside; None for a first."""
    if current is None or current.kind not in {"retry", "transparent", "hedge"}:
        return None
    own = [row for row in rows if row.call == current.call and row.start_ms < current.start_ms]
    if current.kind == "hedge":
        return max(own, key=lambda row: row.start_ms, default=None)
    ended = [row for row in own if row.end_ms <= current.start_ms + _TOLERANCE]
    return max(ended, key=lambda row: row.end_ms, default=None)


def _latest(until: float, rows: Sequence[Row]) -> Row | None:
    """Return what ended last by then."""
    ended = [row for row in rows if row.end_ms <= until + _TOLERANCE]
    return max(ended, key=lambda row: (row.end_ms, row.start_ms), default=None)


def _slowest(rows: Sequence[Row], head: Head) -> Slowest | None:
    spans = defaultdict[str, list[Row]](list)
    for row in rows:
        if row.what in {"attempt", "shared"} and row.of is None:
            spans[row.call].append(row)
    took = {
        call: max(row.end_ms for row in own) - min(row.start_ms - (row.wait_ms or 0.0) for row in own)
        for call, own in spans.items()
    }
    if not took or not head.duration_ms:
        return None
    call = max(took, key=lambda call: took[call])
    return Slowest(call, round(took[call], 3), round(min(took[call] / head.duration_ms, 1.0), 4))


def _remarks(lines: Sequence[Line], own: Sequence[Row], head: Head) -> Iterator[str]:
    events = {text(line, "event") for line in lines}
    over = "request.finished" in events
    if not over:
        yield "It has not finished by the log: it is under way, or its process ended or lost lines."
    if over and "request.started" not in events and not own and head.attempts:
        yield f"Its steps were not kept: {head.attempts} attempts for {head.calls} calls (LOG_STEPS=problems)."
    elif head.attempts is not None and head.attempts > sum(row.kind != "transparent" for row in own):
        yield "Attempts without a line: they are still under way, below LOG_LEVEL, or were lost."
    if head.outcome == "disconnected":
        yield "The client left before its answer was ready: reads were cancelled."
    late = [row.call for row in own if head.duration_ms is not None and row.end_ms > head.duration_ms + _LEAST_WAIT]
    if late:
        yield f"Went on after the answer: {', '.join(dict.fromkeys(late))}."
