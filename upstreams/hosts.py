"""The hosts of one upstream: which of them an attempt goes to, and which is left out for a while."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from yarl import URL

from upstreams.policy import Ejection
from upstreams.request import Request

Origin = tuple[str, str, int]

#: Told of a host that is left out: its address, why, and for how many seconds.
Ejected = Callable[[str, str, float], None]


class Host:
    """One base URL. Live: prints how it fares."""

    __slots__ = (
        "_path",
        "address",
        "authority",
        "base",
        "ejections",
        "failures",
        "origin",
        "out_until",
        "pending",
        "tried_at",
    )

    def __init__(self, base: str) -> None:
        self.base = base
        self.origin = _own_origin(base)
        _, name, port = self.origin
        self.address = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        url = URL(base, encoded=True)
        self.authority = url.host_port_subcomponent or ""  # as a Host header has it (RFC 9110 section 7.2)
        self._path = url.raw_path.rstrip("/")
        self.pending = 0
        self.failures = 0
        self.ejections = 0
        self.out_until = 0.0
        self.tried_at = 0.0

    def target(self, request: Request[Any]) -> str:
        """Return what to ask for: the request's target below the base's path, or that of the link that it follows."""
        if request.link is None:
            return self._path + request.target
        return URL(urljoin(self.base + "/", request.link), encoded=True).raw_path_qs

    def __repr__(self) -> str:
        """Show the address, the attempts under way, and the failures in a row."""
        return f"<Host {self.address} pending={self.pending} failures={self.failures} ejections={self.ejections}>"


class Hosts:
    """Chooses the less busy of two hosts drawn by chance, among those that are not left out. Live: prints them.

    A host that fails too often in a row is out for a while, and after it on trial: one failure more and it is out for
    longer. `clock` is monotonic.
    """

    def __init__(
        self,
        bases: Sequence[str],
        policy: Ejection | None,
        clock: Callable[[], float],
        ejected: Ejected,
        chance: random.Random | None = None,
    ) -> None:
        self.all = tuple(map(Host, bases))
        self._policy = policy
        self._clock = clock
        self._ejected = ejected
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, and guards nothing
        self._most_out = 0
        if policy is not None and len(self.all) > 1:
            self._most_out = max(1, int(len(self.all) * policy.share))

    def __repr__(self) -> str:
        """Show every host."""
        return f"<Hosts {' '.join(map(repr, self.all))}>"

    def pick(self, avoid: Host | None = None, link: str | None = None) -> Host:
        """Return the host for the next attempt: the one that a link names, or another than the one to avoid."""
        if len(self.all) == 1:
            return self.all[0]
        if link is not None and urlsplit(link).netloc:
            return next(host for host in self.all if host.origin == self._origin_of(link))
        now = self._clock()
        usable = [host for host in self.all if host.out_until <= now]
        others = [host for host in usable if host is not avoid] or usable
        if len(others) == 1:
            return others[0]
        one, other = self._chance.sample(others, 2)
        return one if one.pending <= other.pending else other

    def lead_to(self, link: str) -> bool:
        """Tell whether a link, absolute or relative to a base URL, leads to one of these hosts."""
        try:
            origin = self._origin_of(link)
        except ValueError:
            return False
        return any(host.origin == origin for host in self.all)

    def _origin_of(self, link: str) -> Origin | None:
        return _origin(urljoin(self.all[0].base + "/", link))

    def record(self, host: Host, *, failed: bool | None) -> None:
        """Count what came of an attempt; None for neither success nor failure.

        What ends while its host is out began before, and says nothing about the trial to come.
        """
        if not self._most_out or failed is None or host.out_until > (now := self._clock()):
            return
        if not failed:
            host.failures = 0
            if host.ejections and now - host.tried_at >= self._time(host.ejections):
                host.ejections = 0
            return
        host.failures += 1
        if self._policy is not None and host.failures >= self._policy.failures:
            self._eject(host, now)

    def _eject(self, host: Host, now: float) -> None:
        if sum(other.out_until > now for other in self.all) >= self._most_out:
            return
        host.ejections += 1
        time = self._time(host.ejections)
        reason = f"{host.failures} attempts in a row failed"
        host.out_until = host.tried_at = now + time
        self._ejected(host.address, reason, time)

    def _time(self, ejections: int) -> float:
        policy = self._policy
        return min(policy.first_time * ejections, policy.longest_time) if policy is not None else 0.0


def _own_origin(base: str) -> Origin:
    origin = _origin(base)
    assert origin is not None  # noqa: S101 - a base URL without one is refused with the table
    return origin


def _origin(url: str) -> Origin | None:
    """Return a URL's scheme, host and port; None when it holds a user name or password. Raises ValueError."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return None
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), default if parts.port is None else parts.port
