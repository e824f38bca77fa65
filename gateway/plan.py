"""A page's declarations as a checked graph: which calls there are, what each needs, and what the answer is made of.

Everything that can be wrong with a declaration by itself is found here, when the class is made, and all of it is told
at once. What needs the URLconf or the table of upstreams is left to the system checks.
"""

from __future__ import annotations

import copy
import inspect
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, get_args, get_origin

import msgspec

from gateway.annotations import accepts, admits, describe, hints_of, without_none
from gateway.answer import Answer
from gateway.declare import Declared, Joined, Policy, declared_in
from upstreams import Decoder, Reply, Request
from upstreams.values import convert, undecodable

INPUTS: Final = frozenset({"query", "body", "request"})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RESERVED: Final = INPUTS | {"self", "fan", "claims", "merge"}


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
    may_be_none: bool
    decoder: Decoder | None
    fallback: Callable[[], Any]
    public: bool
    join: Join | None = None

    @property
    def required(self) -> bool:
        """Whether the page fails when this has no value."""
        return self.policy.required


class Plan(msgspec.Struct, frozen=True, kw_only=True):
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

    @property
    def streamable(self) -> bool:
        """Whether frames can be sent before the status is known: not when `merge` decides on status and headers."""
        return get_origin(self.merged) is not Answer and self.merged is not Answer

    def public(self) -> tuple[str, ...]:
        """Name the calls that stand in the answer."""
        return tuple(node.name for node in self.nodes.values() if node.public)

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
        self.faults: list[str] = []
        self.kwargs: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}
        self.declared = self._declared(reserved)

    def plan(self) -> Plan:
        values = self._values()
        nodes = {name: self._node(declared, values) for name, declared in self.declared.items() if name in values}
        self._refuse_cycles(nodes)
        merge, merged = self._merge(values)
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

    def _fault(self, where: str, text: str) -> None:
        self.faults.append(f"{self.page.__qualname__}.{where}: {text}")

    def _declared(self, reserved: frozenset[str]) -> dict[str, Declared[Any, ..., Any]]:
        found: dict[str, Declared[Any, ..., Any]] = {}
        for attribute, declared in declared_in(self.page).items():
            if attribute in reserved:
                self._fault(attribute, f"would shadow Django's own; rename it and give name={attribute!r}")
            if not _NAME.fullmatch(declared.name):
                self._fault(attribute, f"{declared.name!r} is no name: letters, digits, '_' and '-', please")
            if declared.name in RESERVED:
                self._fault(attribute, f"{declared.name!r} names an input; give the call another name")
            if declared.name in found:
                self._fault(attribute, f"the name {declared.name!r} is taken by {found[declared.name].attribute}")
            found[declared.name] = declared
        return found

    def _values(self) -> dict[str, _Value]:
        """Find the type of every call's value; calls whose annotations are unusable are reported and left out."""
        values = {}
        for name, declared in self.declared.items():
            value = self._value(declared)
            if value is not None:
                values[name] = value
        return values

    def _value(self, declared: Declared[Any, ..., Any]) -> _Value | None:
        hints = self._hints(declared.attribute, declared.function)
        if hints is None:
            return None
        if "return" not in hints:
            self._fault(declared.attribute, "must say what it returns: annotate it -> Request[T]")
            return None
        if declared.kind == "part":
            return self._part_value(declared, hints)
        return self._request_value(declared, hints)

    def _request_value(self, declared: Declared[Any, ..., Any], hints: dict[str, Any]) -> _Value | None:
        answer, declines = without_none(hints["return"])
        if get_origin(answer) is not Request:
            self._fault(declared.attribute, f"must return Request[T], not {describe(hints['return'])}")
            return None
        (type_,) = get_args(answer)
        if declared.policy.decode is None and (unknown := undecodable(_body_type(type_))):
            self._fault(declared.attribute, f"{unknown} is nothing msgspec decodes; use a type it knows, or decode=")
            return None
        if isinstance(declared, Joined):
            return self._join_value(declared, hints, type_)
        policy = declared.policy
        may_be_none = policy.optional or bool(policy.absent) or declines
        return _Value(hints, type_, type_, may_be_none=may_be_none)

    def _part_value(self, declared: Declared[Any, ..., Any], hints: dict[str, Any]) -> _Value | None:
        if not inspect.iscoroutinefunction(declared.function):
            self._fault(declared.attribute, "a part is a coroutine: write it with async def")
            return None
        return _Value(hints, hints["return"], hints["return"], may_be_none=declared.policy.optional)

    def _join_value(self, declared: Joined[Any, ..., Any], hints: dict[str, Any], type_: Any) -> _Value | None:
        first = next((name for name in _params(declared.function)), None)
        if first is None or first not in hints:
            self._fault(declared.attribute, "its first parameter takes the keys; add it, annotated")
            return None
        key_type = hints[first]
        row_type = type_
        if declared.kind == "batch":
            if get_origin(type_) is not list or get_origin(key_type) is not list:
                self._fault(declared.attribute, "must take list[K] and return Request[list[T]]")
                return None
            (key_type,) = get_args(key_type)
            (row_type,) = get_args(type_)
        mapping: Any = Mapping
        return _Value(hints, mapping[key_type, row_type], type_, may_be_none=False, key=key_type, row=row_type)

    def _hints(self, where: str, function: Callable[..., Any]) -> dict[str, Any] | None:
        try:
            return hints_of(function, self.page)
        except NameError as error:
            self._fault(
                where,
                f"the annotation {error.name!r} cannot be resolved when the page is made; import it at the top of the "
                "module, not under TYPE_CHECKING and not inside a function",
            )
            return None

    def _node(self, declared: Declared[Any, ..., Any], values: dict[str, _Value]) -> Node:
        value = values[declared.name]
        params = _params(declared.function)
        skip = 1 if declared.kind in {"batch", "each", "part"} else 0
        if declared.kind == "part" and params[:1] != ("fan",):
            self._fault(declared.attribute, "its first parameter is the fan: async def f(self, fan: Fan, ...)")
        join = self._join(declared, value) if isinstance(declared, Joined) else None
        own = params[skip:]
        needs, strict = self._needs(declared, own, value.hints, values)
        if join is not None:
            key_hints = self._hints(join.keys, getattr(self.page, join.keys)) or {}
            more, stricter = self._needs(declared, join.key_params, key_hints, values)
            needs, strict = (*needs, *more), (*strict, *stricter)
        if strict and declared.policy.required:
            self._fault(
                declared.attribute,
                f"needs {strict[0]!r}, which may have no value: annotate the parameter with | None, or make this call "
                "optional",
            )
        self._check_after(declared)
        return Node(
            name=declared.name,
            kind=declared.kind,
            attribute=declared.attribute,
            upstream=declared.upstream,
            params=own,
            needs=tuple(dict.fromkeys((*needs, *(name for name in declared.policy.after if name in values)))),
            strict=strict,
            policy=declared.policy,
            type=value.type,
            may_be_none=value.may_be_none,
            decoder=self._decoder(declared, value),
            fallback=self._fallback(declared, value),
            public=not self._internal(declared.policy),
            join=join,
        )

    def _internal(self, policy: Policy) -> bool:
        """On a page with merge, calls are internal unless they say otherwise."""
        return hasattr(self.page, "merge") if policy.internal is None else policy.internal

    def _check_after(self, declared: Declared[Any, ..., Any]) -> None:
        for name in declared.policy.after:
            if name not in self.declared:
                self._fault(declared.attribute, f"after names {name!r}, which is no call of this page")

    def _needs(
        self,
        declared: Declared[Any, ..., Any],
        params: tuple[str, ...],
        hints: dict[str, Any],
        values: dict[str, _Value],
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sort parameters into calls and inputs; return the calls needed, and those whose value is indispensable."""
        needs, strict = [], []
        for param in params:
            if param in self.declared:
                if param in values:
                    needs.append(param)
                    if self._fits(declared.attribute, param, hints.get(param, Any), values[param]):
                        strict.append(param)
            else:
                self._input(declared.attribute, param, hints.get(param))
        return tuple(needs), tuple(strict)

    def _fits(self, where: str, param: str, wanted: Any, value: _Value) -> bool:
        """Check a parameter against a call's value; True when it cannot do without one that may be missing."""
        inner, takes_none = without_none(wanted)
        given, _ = without_none(value.type)
        if not accepts(inner, given) or (admits(value.type) and not takes_none and not admits(wanted)):
            self._fault(
                where, f"parameter {param!r} is {describe(wanted)}, call {param!r} gives {describe(value.type)}"
            )
        return value.may_be_none and not takes_none and not admits(wanted)

    def _input(self, where: str, param: str, type_: Any) -> None:
        if param in {"request", "self"}:
            return
        if type_ is None:
            self._fault(where, f"parameter {param!r} needs an annotation")
            return
        known = self.inputs if param in INPUTS else self.kwargs
        if known.setdefault(param, type_) != type_:
            self._fault(where, f"parameter {param!r} is {describe(type_)} here and {describe(known[param])} elsewhere")
        if param in INPUTS and not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
            self._fault(where, f"parameter {param!r} must be a msgspec.Struct, not {describe(type_)}")
        if param == "claims":
            self._fault(where, "there are no claims: this gateway verifies no tokens")

    def _join(self, declared: Joined[Any, ..., Any], value: _Value) -> Join | None:
        keys = getattr(self.page, declared.keys_attribute or "", None)
        if declared.keys_attribute is None or keys is None:
            self._fault(declared.attribute, f"has no keys; add a method decorated with @{declared.attribute}.keys")
            return None
        hints = self._hints(declared.keys_attribute, keys) or {}
        given, _ = without_none(hints.get("return", Any))
        if (args := get_args(given)) and not accepts(value.key, args[0]):
            self._fault(
                declared.keys_attribute, f"gives {describe(args[0])}, {declared.attribute} takes {describe(value.key)}"
            )
        if declared.size < 1 or declared.concurrency < 1:
            self._fault(declared.attribute, "size and concurrency must be 1 or more")
        return Join(
            keys=declared.keys_attribute,
            key_params=_params(keys),
            row_key=self._row_key(declared, value.row),
            rows=operator.attrgetter("rows") if declared.rows else _same,
            size=declared.size,
            concurrency=declared.concurrency,
        )

    def _row_key(self, declared: Joined[Any, ..., Any], row: Any) -> Callable[[Any], Any] | None:
        key = declared.key
        if key is None or not isinstance(key, str):
            return key
        if get_origin(row) is dict or row is dict:
            return operator.itemgetter(key)
        if isinstance(row, type) and key not in typing.get_type_hints(row):
            self._fault(declared.attribute, f"key={key!r} is no attribute of {describe(row)}")
        return operator.attrgetter(key)

    def _decoder(self, declared: Declared[Any, ..., Any], value: _Value) -> Decoder | None:
        if declared.kind == "part":
            return None
        type_ = value.answer
        if isinstance(declared, Joined) and declared.rows:
            type_ = msgspec.defstruct("Rows", [("rows", type_, msgspec.field(name=declared.rows))])
        return Decoder(type_, declared.policy.decode)

    def _fallback(self, declared: Declared[Any, ..., Any], value: _Value) -> Callable[[], Any]:
        """Return what makes a fresh value where a call has none."""
        policy = declared.policy
        if not policy.has_fallback:
            return dict if isinstance(declared, Joined) else _none
        if policy.optional:
            self._fault(declared.attribute, "is optional and has a fallback: give one of the two")
        wanted = _body_type(value.type)
        try:
            given = convert(policy.fallback, wanted)
        except (msgspec.ValidationError, TypeError) as error:
            self._fault(declared.attribute, f"the fallback is no {describe(wanted)}: {error}")
            return _none
        return lambda: copy.deepcopy(given)

    def _refuse_cycles(self, nodes: Mapping[str, Node]) -> None:
        for name in nodes:
            cycle = _cycle_through(name, nodes)
            if cycle:
                self._fault(nodes[name].attribute, f"waits for itself: {' -> '.join(cycle)}")
                return

    def _merge(self, values: dict[str, _Value]) -> tuple[tuple[str, ...] | None, Any]:
        merge = getattr(self.page, "merge", None)
        if merge is None:
            return None, None
        if inspect.iscoroutinefunction(merge):
            self._fault("merge", "is a pure function: write it with def; what awaits belongs into a part")
        hints = self._hints("merge", merge)
        if hints is None:
            return None, None
        params = _params(merge)
        for param in params:
            if param in values:
                if self._fits("merge", param, hints.get(param, Any), values[param]):
                    wanted = describe(values[param].type)
                    self._fault("merge", f"parameter {param!r} may have no value: annotate it {wanted} | None")
            elif param not in self.declared:
                self._input("merge", param, hints.get(param))
        return params, hints.get("return")


class _Value(typing.NamedTuple):
    """What a declaration's annotations say: its value's `type` to others, and the `answer` its upstream gives."""

    hints: dict[str, Any]
    type: Any
    answer: Any
    may_be_none: bool
    key: Any = None
    row: Any = None


def _body_type(type_: Any) -> Any:
    """Return the type inside Reply[T], else the type itself."""
    return get_args(type_)[0] if get_origin(type_) is Reply else type_


def _params(function: Callable[..., Any]) -> tuple[str, ...]:
    function = function if isinstance(function, types.FunctionType) else getattr(function, "__func__", function)
    return tuple(inspect.signature(function).parameters)[1:]


def _none() -> None:
    return None


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


def _cycle_through(name: str, nodes: Mapping[str, Node]) -> tuple[str, ...] | None:
    """Return the way from a node back to itself, or None."""
    paths: list[tuple[str, ...]] = [(name,)]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        for need in nodes[path[-1]].needs if path[-1] in nodes else ():
            if need == name:
                return (*path, name)
            if need not in seen:
                seen.add(need)
                paths.append((*path, need))
    return None


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
