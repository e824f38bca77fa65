"""Attempts go to the less busy hosts; one that fails again and again is left out for a while, and never all are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.upstreams.clock import Clock
from upstreams import FOLLOW, GET, Ejection
from upstreams.hosts import Host, Hosts


class Watched:
    """Several hosts on a clock of their own, and which of them were said to be left out."""

    def __init__(self, count: int, policy: Ejection | None = None, seed: int = 0) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, str, float]] = []
        self.hosts = Hosts(
            [f"http://host-{n}:80" for n in range(count)],
            policy,
            self.clock,
            lambda *ejected: self.told.append(ejected),
            random.Random(seed),
        )

    def __getitem__(self, nth: int) -> Host:
        return self.hosts.all[nth]

    @property
    def out(self) -> list[Host]:
        return [host for host in self.hosts.all if host.out_until > self.clock.now]

    def fail(self, host: Host, times: int) -> None:
        for _ in range(times):
            self.hosts.record(host, failed=True)

    def picked(self, times: int = 200, avoid: Host | None = None) -> Counter[str]:
        """Pick again and again, with none of the attempts begun; return how often each was."""
        return Counter(self.hosts.pick(avoid).address for _ in range(times))


class TestPick:
    def test_one_host_is_picked_always_even_if_it_is_to_be_avoided_and_failed(self) -> None:
        watched = Watched(1, Ejection(failures=1))
        watched.fail(watched[0], 9)

        assert watched.hosts.pick(watched[0]) is watched[0]
        assert watched.told == []

    def test_equally_busy_hosts_are_picked_equally_often(self) -> None:
        times = Watched(4).picked(4000)

        assert len(times) == 4
        assert all(800 < count < 1200 for count in times.values())

    def test_of_two_the_less_busy_is_picked(self) -> None:
        watched = Watched(2)
        for nth, other in ((0, 1), (1, 0)):
            watched[nth].pending, watched[other].pending = 3, 2

            assert watched.picked(50) == {watched[other].address: 50}

    @given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.integers(0, 1000))
    def test_the_busiest_is_never_picked(self, pending: list[int], seed: int) -> None:
        watched = Watched(len(pending), seed=seed)
        for host, count in zip(watched.hosts.all, pending, strict=True):
            host.pending = count
        busiest = [host for host in watched.hosts.all if host.pending == max(pending)]

        assert len(busiest) > 1 or watched.hosts.pick() is not busiest[0]

    def test_two_are_drawn_so_that_the_least_busy_does_not_get_everything(self) -> None:
        watched = Watched(3)
        watched[1].pending, watched[2].pending = 1, 2

        assert set(watched.picked()) == {watched[0].address, watched[1].address}

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_another_is_picked_than_the_one_to_avoid(self, count: int) -> None:
        watched = Watched(count)
        for host in watched.hosts.all[1:]:
            host.pending = 9
        times = watched.picked(avoid=watched[0])

        assert set(times) == {host.address for host in watched.hosts.all[1:]}

    def test_the_one_to_avoid_is_picked_when_it_is_the_only_one_in(self) -> None:
        watched = Watched(2, Ejection(failures=1))
        watched.fail(watched[1], 1)

        assert watched.hosts.pick(watched[0]) is watched[0]


class TestEjection:
    def test_five_failures_in_a_row_put_a_host_out_for_thirty_seconds(self) -> None:
        watched = Watched(2, Ejection())
        watched.fail(watched[0], 4)
        assert watched.told == []
        watched.fail(watched[0], 1)

        assert watched.told == [("host-0:80", "5 attempts in a row failed", 30.0)]
        assert set(watched.picked()) == {watched[1].address}
        watched.clock.advance(29.9)
        assert set(watched.picked()) == {watched[1].address}
        watched.clock.advance(0.1)
        assert len(watched.picked()) == 2

    @pytest.mark.parametrize("failed", [False, None])
    def test_a_success_between_breaks_the_row_and_a_cancelled_attempt_does_not(
        self,
        failed: bool | None,  # noqa: FBT001 - a table's column
    ) -> None:
        watched = Watched(2, Ejection())
        watched.fail(watched[0], 4)
        watched.hosts.record(watched[0], failed=failed)
        watched.fail(watched[0], 1)

        assert len(watched.told) == (failed is None)

    def test_it_is_on_trial_afterwards_and_each_failure_puts_it_out_for_longer(self) -> None:
        watched = Watched(2, Ejection())
        watched.fail(watched[0], 5)
        for _ in range(11):
            watched.clock.advance(watched.told[-1][2])
            watched.fail(watched[0], 1)

        assert [time for _, _, time in watched.told] == [30.0 * n for n in range(1, 11)] + [300.0, 300.0]

    def test_what_began_before_it_was_out_ends_no_trial(self) -> None:
        watched = Watched(2, Ejection())
        watched.fail(watched[0], 5)
        watched.hosts.record(watched[0], failed=False)
        watched.fail(watched[0], 3)
        watched.clock.advance(30.0)
        watched.fail(watched[0], 1)

        assert watched.told[1:] == [("host-0:80", "6 attempts in a row failed", 60.0)]

    @pytest.mark.parametrize(("fine_after", "time"), [(0.0, 60.0), (29.0, 60.0), (30.0, 30.0), (900.0, 30.0)])
    def test_it_is_forgiven_once_it_was_fine_for_as_long_as_it_was_out(self, fine_after: float, time: float) -> None:
        watched = Watched(2, Ejection())
        watched.fail(watched[0], 5)
        watched.clock.advance(30.0 + fine_after)
        watched.hosts.record(watched[0], failed=False)
        watched.fail(watched[0], 5)

        assert watched.told[-1][2] == time

    @pytest.mark.parametrize(
        ("count", "share", "most"),
        [(2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (5, 0.5, 2), (10, 0.3, 3), (2, 0.999, 1), (5, 0.999, 4), (3, 0.01, 1)],
    )
    def test_no_more_than_the_share_are_out_at_once_but_one_may_be(self, count: int, share: float, most: int) -> None:
        watched = Watched(count, Ejection(share=share))
        for host in watched.hosts.all:
            watched.fail(host, 9)

        assert watched.out == list(watched.hosts.all[:most])
        assert len(watched.told) == most

    def test_one_that_was_kept_in_goes_out_with_its_next_failure_when_another_is_back(self) -> None:
        watched = Watched(2, Ejection())
        watched.fail(watched[0], 5)
        watched.fail(watched[1], 7)
        watched.clock.advance(30.0)
        watched.fail(watched[1], 1)

        assert watched.told[1:] == [("host-1:80", "8 attempts in a row failed", 30.0)]

    def test_without_a_policy_none_is_left_out(self) -> None:
        watched = Watched(2, None)
        watched.fail(watched[0], 100)

        assert len(watched.picked()) == 2
        assert watched.told == []


class TestLinks:
    HOSTS = ("http://users-1", "https://users-2:8443/base", "http://[::1]:8000")

    def hosts(self, *bases: str) -> Hosts:
        return Hosts(bases or self.HOSTS, None, Clock(), lambda *_: None)

    @pytest.mark.parametrize(
        ("link", "leads"),
        [
            ("/next", True),
            ("next?page=2", True),
            ("?page=2", True),
            ("", True),
            ("http://users-1/next", True),
            ("http://users-1:80/next", True),
            ("HTTP://USERS-1/next", True),
            ("//users-1/next", True),
            ("https://users-2:8443/elsewhere", True),
            ("http://[::1]:8000/next", True),
            ("https://users-1/next", False),
            ("http://users-1:8080/next", False),
            ("http://users-2:8443/next", False),
            ("https://users-2/next", False),
            ("http://users-1.evil/next", False),
            ("http://users-1@evil/next", False),
            ("http://me@users-1/next", False),
            ("http://@users-1/next", False),
            ("//evil/next", False),
            ("ftp://users-1/next", False),
            ("file:///etc/passwd", False),
            ("http://users-1:port/next", False),
            ("http://users-1:99999/next", False),
            ("http://[::1/next", False),
            ("http://[::1]/next", False),
        ],
    )
    def test_only_links_to_one_of_them_are_theirs(self, link: str, leads: bool) -> None:  # noqa: FBT001 - a table
        assert self.hosts().lead_to(link) is leads

    @pytest.mark.parametrize("path", ["", "/base"])
    def test_a_request_is_for_what_is_below_the_base_and_a_link_for_what_it_says(self, path: str) -> None:
        host = self.hosts(f"http://users{path}").all[0]

        assert host.target(GET("/a", page=2)) == f"{path}/a?page=2"
        assert host.target(FOLLOW("/b?c")) == "/b?c"
        assert host.target(FOLLOW("b")) == f"{path}/b"

    @pytest.mark.parametrize(
        ("base", "authority"),
        [
            ("http://users", "users"),
            ("http://users:80/base", "users"),
            ("https://users:8443", "users:8443"),
            ("http://[::1]:8080", "[::1]:8080"),
        ],
    )
    def test_a_host_header_has_no_default_port(self, base: str, authority: str) -> None:
        assert self.hosts(base).all[0].authority == authority

    def test_a_host_prints_how_it_fares(self) -> None:
        assert repr(self.hosts("http://a", "https://b/x")) == (
            "<Hosts <Host a:80 pending=0 failures=0 ejections=0> <Host b:443 pending=0 failures=0 ejections=0>>"
        )


class Naive:
    """What is known of one host: its endings in a row, and when it was out."""

    def __init__(self) -> None:
        self.pending = 0
        self.row = 0
        self.times: list[float] = []
        self.back_at = 0.0


class Comparison(RuleBasedStateMachine):
    """Hosts, and what a naive account says of each, to which the same happens."""

    attempts = Bundle[int]("attempts")

    @initialize(
        count=st.integers(2, 5),
        policy=st.builds(
            Ejection,
            failures=st.integers(1, 3),
            first_time=st.sampled_from([2.0, 5.0]),
            longest_time=st.sampled_from([5.0, 12.0]),
            share=st.sampled_from([0.1, 0.5, 0.7, 0.99]),
        ),
        seed=st.integers(0, 1000),
    )
    def begin(self, count: int, policy: Ejection, seed: int) -> None:
        self.watched = Watched(count, policy, seed)
        self.policy = policy
        self.naive = [Naive() for _ in range(count)]
        self.most_out = max(1, int(count * policy.share))
        self.told: list[tuple[str, float]] = []

    @property
    def now(self) -> float:
        return self.watched.clock.now

    def index(self, host: Host) -> int:
        return self.watched.hosts.all.index(host)

    @rule(target=attempts, avoid=st.none() | st.integers(0, 4))
    def pick(self, avoid: int | None) -> int:
        hosts: Sequence[Host] = self.watched.hosts.all
        avoided = hosts[avoid % len(hosts)] if avoid is not None else None
        picked = self.index(self.watched.hosts.pick(avoided))

        inside = [nth for nth, host in enumerate(self.naive) if host.back_at <= self.now]
        others = [nth for nth in inside if hosts[nth] is not avoided] or inside
        assert picked in others
        busier = [nth for nth in others if self.naive[nth].pending >= self.naive[picked].pending]
        assert len(others) == 1 or len(busier) >= 2, "the busiest was picked"
        hosts[picked].pending += 1
        self.naive[picked].pending += 1
        return picked

    @rule(nth=consumes(attempts), failed=st.sampled_from([True, True, False, None]))
    def end(self, nth: int, failed: bool | None) -> None:  # noqa: FBT001 - a rule's values
        self.watched[nth].pending -= 1
        self.naive[nth].pending -= 1
        self.watched.hosts.record(self.watched[nth], failed=failed)
        host = self.naive[nth]
        if failed is None or host.back_at > self.now:
            return
        if failed:
            host.row += 1
            self.eject_if_it_is_time(nth)
            return
        host.row = 0
        if host.times and self.now - host.back_at >= host.times[-1]:
            host.times = []

    def eject_if_it_is_time(self, nth: int) -> None:
        host = self.naive[nth]
        out = sum(other.back_at > self.now for other in self.naive)
        if host.row >= self.policy.failures and out < self.most_out:
            host.times.append(min(self.policy.first_time * (len(host.times) + 1), self.policy.longest_time))
            host.back_at = self.now + host.times[-1]
            self.told.append((f"host-{nth}:80", host.times[-1]))

    @rule(halves=st.integers(0, 30))
    def advance(self, halves: int) -> None:
        self.watched.clock.advance(halves / 2)

    @invariant()
    def they_do_not_differ(self) -> None:
        assert [(address, time) for address, _, time in self.watched.told] == self.told
        assert [self.index(host) for host in self.watched.out] == [
            nth for nth, host in enumerate(self.naive) if host.back_at > self.now
        ]

    @invariant()
    def some_are_in(self) -> None:
        assert len(self.watched.out) <= max(1, self.policy.share * len(self.naive))
        assert len(self.watched.out) < len(self.naive)


def test_whatever_happens_they_behave_as_a_naive_account_says() -> None:
    run_state_machine_as_test(Comparison, settings=settings(max_examples=60, stateful_step_count=40))
