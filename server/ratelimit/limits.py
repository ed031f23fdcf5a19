"""The rate limits in force: the policies that a request of a route group is charged under, and the subjects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, get_args
from uuid import UUID

from ..bounded_dict import BoundedDict
from .overrides import Override
from .policies import BlockedCharges, Charge, Policy, PreparedCharges
from .subjects import NAMED_KINDS, Address, Networks, SubjectKind, kind_of, subject_of_request

# Which requests of a group stay charged. Each is charged before it is let through; what its answer does not confirm is
# given back afterwards, so that requests at the same time can't exceed the limit together.
Charging = Literal["all", "failures", "successes"]
CHARGINGS: Final[tuple[Charging, ...]] = get_args(Charging)

_CLIENT_GONE: Final = 499

# As many clients, in each group of routes, are charged without working out their keys again.
_MOST_PREPARED: Final = 8192

# The group of a policy whose budget is one over all groups; no route group may have this name.
SHARED_GROUP: Final = "*"


@dataclass(frozen=True, slots=True)
class Preset:
    """A policy and the kind of subject that it counts.

    Args:
        policy: limit, window and the rest.
        subject: the kind of subject that a request is charged to.
        share: one budget over all groups; otherwise each group has its own.
    """

    policy: Policy
    subject: SubjectKind = "client"
    share: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The names of the policies of a route group.

    Args:
        policies: for every request.
        signed_in: for signed-in requests, in addition.
        anonymous: for requests that are not signed in, in addition.
        charge: which requests stay charged (`stays_charged`).
        cost: the units of a request.
    """

    policies: tuple[str, ...] = ()
    signed_in: tuple[str, ...] = ()
    anonymous: tuple[str, ...] = ()
    charge: Charging = "all"
    cost: int = 1


@dataclass(frozen=True, slots=True)
class RouteCost:
    """What holds for a route's requests apart from its group's rules; they are counted with the group's others.

    Args:
        group: the name of the route's group.
        policies: for requests to the route, in addition to the group's.
        cost: the units of a request; None: the group's.
        charge: which requests stay charged; None: as in the group.
    """

    group: str
    policies: tuple[str, ...] = ()
    cost: int | None = None
    charge: Charging | None = None


@dataclass(frozen=True, slots=True)
class _Rule:
    policy: Policy
    group: str
    subject: SubjectKind  # "client" has become "user" or "address" here.
    cost: int


def stays_charged(charge: Charging, status: int) -> bool:
    """Whether a request stays charged, by the status of its answer.

    A failure is an answer that blames the client (4xx), a success one below 400. What was not judged is neither: an
    error of the service (5xx), or a client that had gone (499) before anything was done for it.
    """
    if charge == "all":
        return True
    if charge == "successes":
        return status < HTTPStatus.BAD_REQUEST
    return HTTPStatus.BAD_REQUEST <= status < _CLIENT_GONE


class RateLimits:
    """One state of the configuration, immutable, prepared for the request path.

    Args:
        presets: by policy name.
        groups: by group name; they name only policies there are.
        plans: by plan name, the limits that differ for its users, by policy name.
        routes: by route, as in `POST /api/sessions`, the costs that differ from those of its group.
        networks: those whose requests are not limited, or refused.
        overrides: what the file has of them, for the limiter to put in force.
    """

    def __init__(
        self,
        presets: Mapping[str, Preset],
        groups: Mapping[str, Group],
        plans: Mapping[str, Mapping[str, int]] | None = None,
        routes: Mapping[str, RouteCost] | None = None,
        networks: Networks | None = None,
        overrides: Iterable[Override] = (),
    ) -> None:
        self.presets: Final = dict(presets)
        self.groups: Final = dict(groups)
        self.routes: Final = dict(routes or {})
        self.networks: Final = networks or Networks()
        self.overrides: Final = tuple(overrides)
        self.plans: Final = {plan: dict(limits) for plan, limits in (plans or {}).items()}
        self._prepared: Final[BoundedDict[tuple[str, str | None, str | None, str], PreparedCharges]] = (
            BoundedDict(_MOST_PREPARED)
        )
        self._by_name: Final = frozenset(
            name
            for name, group in self.groups.items()
            for policy in (*group.policies, *group.anonymous, *group.signed_in)
            if self.presets[policy].subject in NAMED_KINDS
        )
        # What a request's charges are made from, by group, and by route where its costs are its own.
        places: dict[str, tuple[str, int, Charging, tuple[str, ...]]] = {
            name: (name, group.cost, group.charge, ()) for name, group in self.groups.items()
        }
        for route, own in self.routes.items():
            _, cost, charge, _ = places[own.group]
            places[route] = (own.group, own.cost or cost, own.charge or charge, own.policies)
        # Empty for nearly every place: asked once for each request.
        self.charged_by_answer: Final[dict[str, Charging]] = {
            place: charge for place, (_, _, charge, _) in places.items() if charge != "all"
        }
        self._anonymous: Final = {
            place: tuple(self._rules(group, cost, None, more))
            for place, (group, cost, _, more) in places.items()
        }
        self._signed_in: Final = {
            place: {
                plan: tuple(self._rules(group, cost, limits, more))
                for plan, limits in (*self.plans.items(), (None, {}))
            }
            for place, (group, cost, _, more) in places.items()
        }

    def same_as(self, other: RateLimits) -> bool:
        """Whether both limit everything in the same way."""
        mine, others = [
            (one.presets, one.groups, one.plans, one.routes, one.networks, one.overrides)
            for one in (self, other)
        ]
        return mine == others

    def counts_by_name(self, group: str) -> bool:
        """Whether a group counts by what a request's body names (`NAMED_KINDS`), so that the body is read first."""
        return group in self._by_name

    def charging_of(self, group: str) -> Charging:
        """Return which requests of a group stay charged, also of a budget that several groups share."""
        return self.charged_by_answer.get(group, "all")

    def route_costs(self, group: str) -> dict[str, int]:
        """Return the units of a request to each route of a group that costs something else than the others."""
        return {
            route: own.cost
            for route, own in self.routes.items()
            if own.group == group and own.cost is not None
        }

    def charges_for(
        self,
        group: str,
        *,
        user_key: str | None,
        plan: str | None,
        client_ip: str,
        address: Address,
        named: str | None = None,
    ) -> PreparedCharges:
        """Return the charges of a request, and remember them for the client's next request.

        Args:
            group: the route's group, or the route if it is one of `routes`; KeyError if there is none of this name.
            user_key: the signed-in user's id; None for an anonymous request.
            plan: the user's plan.
            client_ip: the client's address as text.
            address: the same as an address.
            named: the subject that the request's body names. Such charges are not remembered: a body can name any.
        """
        if named is not None:
            return self.make_charges(group, user_id=user_key, address=address, named=named, plan=plan)
        place = (group, user_key, plan, client_ip)
        found = self._prepared.get(place)
        if found is None:
            found = self._prepared[place] = self.make_charges(
                group, user_id=user_key, address=address, plan=plan
            )
        return found

    def make_charges(
        self,
        group: str,
        *,
        user_id: UUID | str | None,
        address: Address,
        named: str | None = None,
        plan: str | None = None,
        cost: int | None = None,
    ) -> PreparedCharges:
        """Return the charges of a request.

        Args:
            group: the route's group, or the route if it is one of `routes`; KeyError if there is none of this name.
            user_id: the signed-in user; None for an anonymous request.
            address: the client's address.
            named: the subject that the request's body names, if it names one: an e-mail address, a token family.
            plan: the user's plan; one without limits of its own changes nothing.
            cost: units, 1 or more, the same under every policy; None: what the route's requests cost.

        Returns:
            none in a network that is not limited, and `BlockedCharges` in one that is refused.
        """
        if user_id is None:
            rules = self._anonymous[group]
        else:
            by_plan = self._signed_in[group]
            rules = by_plan[plan if plan in by_plan else None]
        charges = []
        for rule in rules:
            subject = subject_of_request(rule.subject, user_id=user_id, address=address, named=named)
            if subject is not None:
                units = rule.cost if rule.policy.algorithm == "concurrency" else cost or rule.cost
                charges.append(Charge(rule.policy, rule.group, subject, units))
        if self.networks and (listed := self.networks.find(address)) is not None:
            return PreparedCharges(()) if listed[0] == "allow" else BlockedCharges(charges)
        return PreparedCharges(charges)

    def policies_for_subject(self, subject: str, *, plan: str | None = None) -> tuple[Charge, ...]:
        """Return a charge for every policy and group that may count a subject: for a peek or a reset.

        Each is at the group's cost. A budget that all groups share has none: there it is 1.

        Args:
            subject: in its normal form (`kind_of`).
            plan: the plan whose limits a user's policies are shown with.
        """
        kind = kind_of(subject)
        found: dict[tuple[str, str], Charge] = {}
        for place, anonymous in self._anonymous.items():  # the groups before the routes
            signed_in = self._signed_in[place]
            for rule in (*anonymous, *signed_in.get(plan, signed_in[None])):
                if rule.subject == kind:
                    cost = 1 if rule.group == SHARED_GROUP else rule.cost
                    found.setdefault(
                        (rule.policy.name, rule.group), Charge(rule.policy, rule.group, subject, cost)
                    )
        return tuple(found.values())

    def _rules(
        self, group: str, cost: int, limits: Mapping[str, int] | None, more: tuple[str, ...]
    ) -> Iterator[_Rule]:
        """Yield the rules of a group: for signed-in users with a plan's limits, for anonymous clients with None."""
        names, is_anonymous = self.groups[group], limits is None
        own = names.anonymous if is_anonymous else names.signed_in
        for name in dict.fromkeys((*names.policies, *own, *more)):
            preset = self.presets[name]
            if is_anonymous and preset.subject == "user":
                continue
            policy, kind = preset.policy, preset.subject
            if kind == "client":
                kind = "address" if is_anonymous else "user"
            if limits is not None and name in limits:
                policy = policy.with_limit(limits[name])
            # A request is one request at once, whatever it costs.
            units = 1 if policy.algorithm == "concurrency" else cost
            yield _Rule(policy, SHARED_GROUP if preset.share else group, kind, units)
