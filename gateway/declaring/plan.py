"""A page's declarations as a checked graph: which calls there are, what each needs, and what the answer is made of.

Everything that can be wrong with a declaration by itself is found when the class is made, and all of it is told at
once. What needs the URLconf or the table of upstreams is left to the system checks.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, get_args, get_origin

import msgspec

from gateway.answering.answer import Answer
from gateway.declaring.annotations import accepts, admits, describe, is_union, plain, with_none, without_none
from gateway.declaring.declare import Declared, Joined, Policy, declared_in
from gateway.declaring.signature import (
    Reading,
    Report,
    Signature,
    decoding_fault,
    key_fault,
    read_declaration,
    read_decoder,
    read_fallback,
    read_row_key,
    read_signature,
)
from upstreams import Decoder
from upstreams.policy import status_faults

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_INPUTS: Final = frozenset({"query", "body"})
_STATUSES: Final = range(200, 600)
_NOT_HERE: Final[Mapping[str, str]] = {
    "claims": "there are no claims: this gateway verifies no tokens",
    "fan": "only a part has a fan: decorate it with @part",
}
_TAKEN: Final = frozenset({*_INPUTS, *_NOT_HERE, "request", "self", "merge"})


class DeclarationError(TypeError):
    """Everything that is wrong with one page's declaration, a sentence a line."""

    def __init__(self, page: str, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{page} cannot be a page:\n" + "\n".join(f"  {fault}" for fault in self.faults))


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch or each has beyond a call. `keys` are read by the page's method of that name, given `key_params`."""

    keys: str
    key_params: tuple[str, ...]
    row_key: Callable[[Any], Any] | None
    rows: Callable[[Any], Any]
    size: int
    concurrency: int


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One declaration in the graph.

    `params` are passed to its method by name. `needs` are the calls that must have come to an end before it starts,
    `strict` those of them without whose value it is skipped. `type` is its value's as others see it.
    """

    name: str
    kind: str
    attribute: str
    upstream: str
    params: tuple[str, ...]
    needs: tuple[str, ...]
    strict: tuple[str, ...]
    policy: Policy
    type: Any
    decoder: Decoder | None
    fallback: Callable[[], Any]
    public: bool
    join: Join | None = None

    @property
    def required(self) -> bool:
        """Whether the page fails when this has no value."""
        return self.policy.required


class Plan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A page's graph. `nodes` are in the order of declaration, which is the order of the answer."""

    page: str
    nodes: Mapping[str, Node]
    kwargs: Mapping[str, Any]
    query: Any
    body: Any
    merge: tuple[str, ...] | None
    merged: Any
    dependents: Mapping[str, frozenset[str]]
    required: frozenset[str]

    @cached_property
    def streamable(self) -> bool:
        """Whether frames can be sent before the status is known: not when `merge` decides on status and headers."""
        merged = plain(self.merged)
        members = get_args(merged) if is_union(merged) else (merged,)
        return not any(_is_answer(member) for member in map(plain, members))

    @cached_property
    def public(self) -> tuple[str, ...]:
        """The names of the calls that stand in the answer."""
        return tuple(node.name for node in self.nodes.values() if node.public)

    def not_in(self, kwargs: Collection[str]) -> list[str]:
        """Name the kwargs that the URL must give, and that are not among these."""
        return [name for name, type_ in self.kwargs.items() if name not in kwargs and not admits(type_)]

    def longest_chain(self) -> tuple[str, ...]:
        """Return the longest run of calls of which each waits for the one before."""
        chains: dict[str, tuple[str, ...]] = {}
        for node in _in_order(self.nodes):
            before = max((chains[need] for need in node.needs), key=len, default=())
            chains[node.name] = (*before, node.name)
        return max(chains.values(), key=len, default=())


def compile_plan(page: type, reserved: Iterable[str]) -> Plan:
    """Read a page class into its plan, or raise DeclarationError with every fault in it.

    `reserved` are attribute names the page's framework uses itself.
    """
    return _Compiler(page, frozenset(reserved)).plan()


class _Compiler:
    """Reads one page class, collecting faults as it goes."""

    def __init__(self, page: type, reserved: frozenset[str]) -> None:
        self.page = page
        self.reserved = reserved
        self.faults: list[str] = []
        self.kwargs: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}
        self.merges = getattr(page, "merge", None) is not None
        self.declared = self._declared()
        self.readings = self._readings()

    def plan(self) -> Plan:
        nodes = {name: self._node(self.declared[name], reading) for name, reading in self.readings.items()}
        self._refuse_cycles(nodes)
        merge, merged = self._merge() if self.merges else (None, None)
        if self.faults:
            raise DeclarationError(self.page.__qualname__, self.faults)
        return Plan(
            page=self.page.__qualname__,
            nodes=nodes,
            kwargs=self.kwargs,
            query=self.inputs.get("query"),
            body=self.inputs.get("body"),
            merge=merge,
            merged=merged,
            dependents={name: _dependents(name, nodes) for name in nodes},
            required=frozenset(node.name for node in nodes.values() if node.required),
        )

    def _report(self, attribute: str) -> Report:
        """Return what takes the faults of one method."""
        return lambda fault: self.faults.append(f"{self.page.__qualname__}.{attribute}: {fault}")

    def _declared(self) -> dict[str, Declared[Any, ..., Any]]:
        """Find the declarations by the names that others know them by."""
        found: dict[str, Declared[Any, ..., Any]] = {}
        for attribute, declared in declared_in(self.page).items():
            name, report = declared.name, self._report(attribute)
            if not isinstance(inspect.getattr_static(self.page, attribute), Declared):
                report("takes a call's place and is none: decorate it, or set it to None to be without that call")
            if name in _TAKEN:
                report(f"{name!r} names an input: give the call another name")
            elif attribute in self.reserved:
                report(f"would shadow the view's own {attribute!r}: rename it and give name={attribute!r}")
            if not _NAME.fullmatch(name):
                report(f"{name!r} is no name: letters, digits, '_' and '-', please")
            if name in found:
                report(f"the name {name!r} is taken by {found[name].attribute}: give the call another name")
            found[name] = declared
        return found

    def _readings(self) -> dict[str, Reading]:
        """Read every declaration by itself; one that is nothing a page can use is reported and left out."""
        readings = {}
        for name, declared in self.declared.items():
            owner, report = self._owner(declared.attribute), self._report(declared.attribute)
            reading = read_declaration(declared, owner, report)
            if reading is not None:
                readings[name] = reading
        return readings

    def _owner(self, attribute: str) -> type:
        return next(base for base in self.page.__mro__ if attribute in vars(base))

    def _signature(self, attribute: str, returns: str) -> Signature | None:
        """Read a method that declares no call: it tells keys, or merges."""
        owner = self._owner(attribute)
        return read_signature(vars(owner)[attribute], owner, self._report(attribute), returns=returns)

    def _node(self, declared: Declared[Any, ..., Any], reading: Reading) -> Node:
        policy, report = declared.policy, self._report(declared.attribute)
        for said in _policy_faults(policy):
            report(said)
        public = not self.merges if policy.internal is None else not policy.internal
        methods, join = [(declared.attribute, reading.takes)], None
        if isinstance(declared, Joined):
            keys = self._keys(declared, reading)
            methods.append((declared.keys_attribute or "", keys))
            join = self._join(declared, reading, tuple(keys))
            if public and (fault := key_fault(reading.key)):
                report(fault)
        needs = self._needs(*methods)
        strict = tuple(name for name, is_strict in needs.items() if is_strict)
        for name in strict if policy.required else ():
            report(f"needs {name!r}, which may have no value: annotate it with | None, or make this call optional")
        return Node(
            name=declared.name,
            kind=declared.kind,
            attribute=declared.attribute,
            upstream=declared.upstream,
            params=tuple(reading.takes),
            needs=tuple(dict.fromkeys((*needs, *self._after(declared)))),
            strict=strict,
            policy=policy,
            type=reading.type,
            decoder=read_decoder(declared, reading, report),
            fallback=read_fallback(declared, reading, report),
            public=public,
            join=join,
        )

    def _keys(self, declared: Joined[Any, ..., Any, Any], reading: Reading) -> Mapping[str, Any]:
        """Return what the method takes that tells a join's keys, with which the join begins."""
        attribute = declared.keys_attribute
        if attribute is None or getattr(self.page, attribute, None) is None:
            self._report(declared.attribute)(f"has no keys: add a method decorated with @{declared.attribute}.keys")
            return {}
        if attribute in self.reserved:
            self._report(attribute)(f"would shadow the view's own {attribute!r}: rename it")
        iterable: Any = Iterable
        wanted = iterable[reading.key]
        signature = self._signature(attribute, describe(wanted))
        if signature is None:
            return {}
        given, _ = without_none(signature.gives)
        if not accepts(wanted, given):
            self._report(attribute)(f"gives {describe(given)}, but {declared.attribute} takes {describe(wanted)}")
        return signature.takes

    def _join(self, declared: Joined[Any, ..., Any, Any], reading: Reading, key_params: tuple[str, ...]) -> Join:
        report = self._report(declared.attribute)
        if declared.size < 1 or declared.concurrency < 1:
            report("size and concurrency must be 1 or more")
        return Join(
            keys=declared.keys_attribute or "",
            key_params=key_params,
            row_key=read_row_key(declared, reading, report),
            rows=_same if declared.rows is None else operator.attrgetter("rows"),
            size=declared.size,
            concurrency=declared.concurrency,
        )

    def _after(self, declared: Declared[Any, ..., Any]) -> list[str]:
        """Name the calls that a declaration comes after by its own word."""
        for name in declared.policy.after:
            if name not in self.declared:
                known = ", ".join(self.declared)
                self._report(declared.attribute)(f"after names {name!r}, but this page's calls are {known}")
        return [name for name in declared.policy.after if name in self.readings]

    def _needs(self, *methods: tuple[str, Mapping[str, Any]]) -> dict[str, bool]:
        """Sort what methods take into calls and inputs; of each call, tell whether it may lack and must not."""
        needs: dict[str, bool] = {}
        for attribute, takes in methods:
            for name, type_ in takes.items():
                if name in self.readings:
                    needs[name] = self._is_strict(attribute, name, type_) or needs.get(name, False)
                elif name not in self.declared:
                    self._input(attribute, name, type_)
        return needs

    def _is_strict(self, attribute: str, name: str, wanted: Any) -> bool:
        """Check a parameter against a call's value; True when it cannot do without one that may be missing."""
        given = self.readings[name]
        if accepts(wanted, given.type):
            return given.may_be_none and not admits(wanted)
        gives = describe(with_none(given.type) if given.may_be_none else given.type)
        self._report(attribute)(f"parameter {name!r} is {describe(wanted)}, but the call {name!r} gives {gives}")
        return False

    def _input(self, attribute: str, name: str, type_: Any) -> None:
        """Take note of what the client is to give."""
        report = self._report(attribute)
        known = self.inputs if name in _INPUTS else self.kwargs
        type_ = plain(type_) if name in _INPUTS else type_
        if name in _NOT_HERE:
            report(_NOT_HERE[name])
        elif name == "request":
            return
        elif name not in known:
            known[name] = type_
            if name in _INPUTS and (fault := _struct_fault(type_)):
                report(f"parameter {name!r}: {fault}")
        elif known[name] != type_:
            report(f"parameter {name!r} is {describe(type_)} here, but {describe(known[name])} elsewhere")

    def _refuse_cycles(self, nodes: Mapping[str, Node]) -> None:
        told: set[str] = set()
        for name, node in nodes.items():
            cycle = () if name in told else _cycle_through(name, nodes)
            if cycle:
                told.update(cycle)
                self._report(node.attribute)(f"waits for itself ({' -> '.join(cycle)}): one must do without the next")

    def _merge(self) -> tuple[tuple[str, ...] | None, Any]:
        signature = self._signature("merge", "T")
        if signature is None:
            return None, None
        for name, is_strict in self._needs(("merge", signature.takes)).items():
            if is_strict:
                wanted = describe(with_none(self.readings[name].type))
                self._report("merge")(f"parameter {name!r} may have no value: annotate it {wanted}")
        return tuple(signature.takes), signature.gives


def _is_answer(type_: Any) -> bool:
    class_ = get_origin(type_) or type_
    return isinstance(class_, type) and issubclass(class_, Answer)


def _policy_faults(policy: Policy) -> Iterator[str]:
    """Say what is wrong with the statuses of a declaration."""
    yield from status_faults("passthrough", policy.passthrough)
    for status in policy.absent:
        if status not in _STATUSES:
            yield f"absent holds {status!r}, which is no status of an answer (200 to 599)"


def _struct_fault(type_: Any) -> str | None:
    """Say why a client's input cannot be read as a type, or None if it can."""
    if not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
        return f"what the client gives is read into a msgspec.Struct, not into {describe(type_)}"
    return decoding_fault(type_)


def _same(value: Any) -> Any:
    return value


def _in_order(nodes: Mapping[str, Node]) -> list[Node]:
    """Sort nodes so that each comes after what it needs."""
    done: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.name not in done:
            for need in node.needs:
                visit(nodes[need])
            done[node.name] = node

    for node in nodes.values():
        visit(node)
    return list(done.values())


def _cycle_through(name: str, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """Return the way from a node back to itself, or nothing."""
    paths: list[tuple[str, ...]] = [(name,)]
    seen: set[str] = set()
    while paths:
        path = paths.pop(0)
        for need in nodes[path[-1]].needs:
            if need == name:
                return (*path, name)
            if need not in seen:
                seen.add(need)
                paths.append((*path, need))
    return ()


def _dependents(name: str, nodes: Mapping[str, Node]) -> frozenset[str]:
    """Name every node that waits for this one, directly or not."""
    found: set[str] = set()
    pending = [name]
    while pending:
        current = pending.pop()
        for node in nodes.values():
            if current in node.needs and node.name not in found:
                found.add(node.name)
                pending.append(node.name)
    return frozenset(found)
