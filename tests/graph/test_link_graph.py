"""LinkGraph, and reading one from a server."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_caselinks import (
    ApiKeys,
    AuthenticationError,
    Case,
    CaseLink,
    CaseLinksClient,
    ConfigurationError,
    CycleError,
    Entity,
    InvalidLinkError,
    LinkGraph,
    NotFoundError,
    ParameterError,
    PermissionDeniedError,
    Relationship,
    RetryPolicy,
    ServerError,
    Site,
)
from datadog_caselinks.calls.concurrency import Progress
from datadog_caselinks.graph import reading
from datadog_caselinks.graph.reading import read_graph
from datadog_caselinks.sandbox import Sandbox
from tests.support.graphs import entity, graph, links
from tests.support.ids import case, incident
from tests.support.server import Server
from tests.support.steps import answers, is_silent

pytestmark = pytest.mark.sandbox(seed="demo")


def keys(graph: LinkGraph, entities: Iterable[Entity]) -> list[str]:
    return [graph.cases[each].key for each in entities if each in graph.cases]


class TestGraphOfTheDemo:
    async def test_depth_0_is_the_entity_alone(self, client: CaseLinksClient) -> None:
        """A graph of depth 0 is the root with its title and no links."""
        graph = await client.read_graph("SHOP-2", depth=0)

        assert (graph.entities, graph.links) == ((graph.root,), ())
        assert graph.cases[graph.root].title == "orders-db connection pool exhausted"
        assert graph.is_complete

    async def test_depth_1_is_its_own_links(self, client: CaseLinksClient) -> None:
        """A graph of depth 1 has the links of ``list_links`` and the titles of the linked cases."""
        graph = await client.read_graph("SHOP-23", depth=1)

        assert set(graph.links) == set(await client.list_links(graph.root))
        assert keys(graph, graph.entities) == ["SHOP-23", *(f"SHOP-{n}" for n in range(24, 30)), "SHOP-19"]
        assert set(graph.distances.values()) == {0, 1}

    async def test_each_link_and_entity_once(self, client: CaseLinksClient) -> None:
        """Each link and entity is included once, and reading ends when nothing new is found."""
        graph = await client.read_graph("SHOP-2", depth=99)

        assert len({link.id for link in graph.links}) == len(graph.links)
        assert len(set(graph.entities)) == len(graph.entities)
        assert graph.depth < 10
        assert [graph.distances[each] for each in graph.entities] == sorted(graph.distances.values())

    async def test_asks_once_for_each(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """Each list, each case and each incident is requested once."""
        graph = await client.read_graph("SHOP-2", depth=3)

        asked = Counter(request.path for request in sandbox.requests)
        inner = [each for each in graph.entities if graph.distances[each] < 3]
        assert set(asked.values()) == {1}
        assert len(asked) == len(inner) + len(graph.cases) + len(graph.incidents)

    async def test_is_the_same_each_time(self, client: CaseLinksClient) -> None:
        """The graph does not depend on the order of the responses."""
        assert repr(await client.read_graph("SHOP-2", depth=4)) == repr(
            await client.read_graph("SHOP-2", depth=4)
        )

    async def test_an_entity_instead_of_a_key(self, client: CaseLinksClient) -> None:
        """An incident can be the root."""
        shop = await client.read_graph("SHOP-1", depth=1)
        root = next(each for each in shop.entities if each.type == "INCIDENT")

        assert (await client.read_graph(root, depth=1)).root == root
        assert (await client.read_graph(f"incident:{root.id}", depth=1)).root == root

    async def test_progress(self, client: CaseLinksClient, sandbox: Sandbox) -> None:
        """Progress is reported after each response, with the total so far."""
        reported: list[tuple[int, int]] = []
        await client.read_graph(
            "SHOP-2", depth=3, progress=lambda done, total: reported.append((done, total))
        )

        assert [done for done, _ in reported] == list(range(1, len(reported) + 1))
        totals = [total for _, total in reported]
        assert totals == sorted(totals)
        assert len(set(totals)) == 4
        assert reported[-1] == (len(sandbox.requests), len(sandbox.requests))

    async def test_max_nodes(self, client: CaseLinksClient) -> None:
        """Reading ends at ``max_nodes`` entities and counts those left out."""
        graph = await client.read_graph("SHOP-2", depth=9, max_nodes=15)

        whole = await client.read_graph("SHOP-2", depth=graph.depth)
        assert len(graph.entities) == 15
        assert graph.left_out == len(whole.entities) - 15
        assert not graph.is_complete
        assert set(graph.links) < set(whole.links)
        nearer = await client.read_graph("SHOP-2", depth=graph.depth - 1)
        assert set(nearer.entities) < set(graph.entities)

    async def test_exactly_max_nodes_is_complete(self, client: CaseLinksClient) -> None:
        """A graph of exactly ``max_nodes`` entities is complete."""
        whole = await client.read_graph("SHOP-2", depth=2)
        assert await client.read_graph("SHOP-2", depth=2, max_nodes=len(whole.entities)) == whole

    async def test_the_cycle_that_nobody_has_noticed(self, client: CaseLinksClient) -> None:
        """A cycle of three cases is found, and each of its links starts where the previous one ends."""
        graph = await client.read_graph("SHOP-23", depth=2)

        (cycle,) = graph.cycles
        assert {link.relationship for link in cycle} == {"BLOCKS"}
        assert sorted(keys(graph, (link.parent for link in cycle))) == ["SHOP-24", "SHOP-25", "SHOP-26"]
        assert [link.child for link in cycle] == [link.parent for link in (*cycle[1:], cycle[0])]

    async def test_refuses_what_makes_no_sense(self, client: CaseLinksClient) -> None:
        """The error for an invalid argument names the parameter and the value."""
        with pytest.raises(ParameterError, match="depth must be at least 0, not -1"):
            await client.read_graph("SHOP-2", depth=-1)
        with pytest.raises(ParameterError, match="max_nodes must be at least 1, not 0"):
            await client.read_graph("SHOP-2", max_nodes=0)

    async def test_a_root_that_is_not_there(self, client: CaseLinksClient) -> None:
        """An unknown root raises NotFoundError."""
        with pytest.raises(NotFoundError):
            await client.read_graph("SHOP-999")

    async def test_a_case_that_has_no_title(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """A case that does not exist, or cannot be accessed, is in the graph without a title."""
        root, other = (entity(name) for name in "ab")
        await client.create_link(root.blocks(other))

        graph = await client.read_graph(root, depth=2)
        assert (graph.entities, graph.cases) == ((root, other), {})
        assert graph.is_complete

    async def test_wrong_keys_raise(self, sandbox: Sandbox, client: CaseLinksClient) -> None:
        """Invalid credentials raise an error instead of yielding an incomplete graph."""
        root = (await client.get_case("SHOP-2")).entity
        async with CaseLinksClient(sandbox.url, ApiKeys(api_key="wrong", app_key="wrong")) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.read_graph(root)


async def test_an_error_cancels_what_is_in_flight(keys: ApiKeys) -> None:
    """An error while reading is raised unchanged, without an exception group, and leaves no task."""
    async with (
        Server(answers(500), is_silent) as server,
        CaseLinksClient(server.url, keys, retry=RetryPolicy(max_attempts=1)) as client,
    ):
        with pytest.raises(ServerError):
            await client.read_graph(entity("a"))
        assert asyncio.all_tasks() - server._tasks == {asyncio.current_task()}


class World:
    """A source of links and cases without a server; ``refuses`` has entities whose links are refused."""

    def __init__(self, *texts: str, refuses: Iterable[Entity] = ()) -> None:
        self.links = links(*texts)
        self.refuses = set(refuses)
        self.busy = self.most_busy = 0

    async def list_links(self, of: Entity) -> list[CaseLink]:
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        await asyncio.sleep(0)
        self.busy -= 1
        of.require_known()
        if of in self.refuses:
            raise PermissionDeniedError("not for you", status=403)
        return [link for link in self.links if of in (link.parent, link.child)]

    async def get_case(self, of: Entity) -> Case:
        return Case(of.id, "", "", "", "")

    async def graph(self, *, concurrency: int = 100, depth: int = 9, max_nodes: int = 999) -> LinkGraph:
        return await read_graph(
            [entity("a")],
            self.list_links,
            self.get_case,
            depth=depth,
            max_nodes=max_nodes,
            concurrency=concurrency,
            progress=Progress(None),
        )


class TestWalk:
    async def test_what_may_not_be_seen(self) -> None:
        """An entity whose links are refused is in the graph as unread, and the graph is incomplete."""
        graph = await World("a CAUSES b", "b CAUSES c", "a CAUSES d", refuses=[entity("b")]).graph()

        assert graph.unread == (entity("b"),)
        assert graph.entities == (entity("a"), entity("b"), entity("d"))
        assert not graph.is_complete

    async def test_a_type_of_tomorrow(self) -> None:
        """An entity of an unknown type is in the graph as unread, and reading continues."""
        world = World("a CAUSES b")
        strange = Entity("x", "ROCKET")
        world.links += (CaseLink("new", entity("a"), "ORBITS", strange),)
        graph = await world.graph()

        assert (graph.unread, graph.entities) == ((strange,), (entity("a"), entity("b"), strange))

    async def test_a_root_that_may_not_be_seen(self) -> None:
        """A root whose links are refused raises an error, because the graph would seem to have no links."""
        with pytest.raises(PermissionDeniedError):
            await World("a CAUSES b", refuses=[entity("a")]).graph()

    async def test_links_between_entities_equally_far(self) -> None:
        """Links between entities at equal distance belong to the graph that is one step deeper."""
        world = World("a CAUSES b", "a CAUSES c", "b BLOCKS c")

        assert len((await world.graph(depth=1)).links) == 2
        assert len((await world.graph(depth=2)).links) == 3

    @pytest.mark.parametrize("max_waiting", [0, 3, 400_000])
    @pytest.mark.parametrize("max_nodes", [4, 999])
    async def test_does_not_depend_on_the_order_of_responses(
        self, max_waiting: int, max_nodes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The graph does not depend on the order of responses, even if lists are requested again."""
        texts = (
            "a CAUSES b",
            "a CAUSES c",
            "a CAUSES d",
            "d BLOCKS e",
            "c BLOCKS f",
            "b BLOCKS g",
            "b BLOCKS e",
        )
        expected = await World(*texts).graph(max_nodes=max_nodes)
        assert len(expected.entities) == min(max_nodes, 7)
        monkeypatch.setattr(reading, "_MAX_WAITING", max_waiting)
        world = World(*texts)
        in_order, listed = world.list_links, list[Entity]()

        async def last_first(of: Entity) -> list[CaseLink]:
            listed.append(of)
            for _ in range(1000 - 10 * len(listed)):
                await asyncio.sleep(0)
            return await in_order(of)

        world.list_links = last_first  # type: ignore[method-assign]
        graph = await world.graph(max_nodes=max_nodes)
        assert graph == expected
        assert (graph.entities, graph.left_out) == (expected.entities, expected.left_out)
        assert (len(listed) > len(set(listed))) == (max_waiting < 400_000)

    async def test_each_entity_is_kept_once(self) -> None:
        """The links of a graph share one object per entity."""
        world = World("a CAUSES b", "b CAUSES c", "c CAUSES a")
        links = (await world.graph()).links
        ends = [end for link in links for end in (link.parent, link.child)]
        assert len({id(end) for end in ends}) == len(set(ends)) == 3

    async def test_more_than_a_graph_may_take(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A graph that reaches the memory limit leaves further entities unread and is incomplete."""
        monkeypatch.setattr(reading, "_MEMORY", 2000)
        graph = await World("a CAUSES b", "a CAUSES c", "a CAUSES d", "b CAUSES e", "c CAUSES f").graph()
        assert len(graph.links) == 4
        assert graph.unread == (entity("c"), entity("d"), entity("e"))
        assert not graph.is_complete

    async def test_long_texts_count_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The memory limit counts the length of ids too."""
        monkeypatch.setattr(reading, "_MEMORY", 100_000)
        world = World("a CAUSES b", "b CAUSES c")
        world.links = (CaseLink("x" * 100_000, entity("a"), "CAUSES", entity("b")), world.links[1])
        graph = await world.graph()
        assert (len(graph.links), graph.unread) == (1, (entity("b"),))

    async def test_asks_no_more_at_a_time_than_it_may(self) -> None:
        """At most ``concurrency`` requests are in flight."""
        world = World(*(f"a CAUSES b{number}" for number in range(100)))
        await world.graph(concurrency=3)

        assert world.most_busy == 3


class TestCycles:
    @pytest.mark.parametrize("relationship", ["BLOCKS", "CAUSES", "PARENT_OF", "SUCCESSOR_OF", "DUPLICATES"])
    def test_are_of_one_relationship(self, relationship: str) -> None:
        """A cycle has links of one relationship only."""
        mixed = graph(f"a {relationship} b", "b ESCALATES_TO a", "b RELATES_TO a")
        round_ = graph(f"a {relationship} b", f"b {relationship} a")

        assert mixed.cycles == ()
        assert round_.cycles == (round_.links,)

    @pytest.mark.parametrize("relationship", ["RELATES_TO", "ESCALATES_TO"])
    def test_are_of_what_has_an_order(self, relationship: str) -> None:
        """Links of RELATES_TO and ESCALATES_TO form no reported cycle."""
        assert graph(f"a {relationship} b", f"b {relationship} a").cycles == ()

    def test_the_shortest_of_those_that_meet(self) -> None:
        """The shortest cycle of each connected group is reported."""
        knot = graph("a BLOCKS b", "b BLOCKS c", "c BLOCKS a", "b BLOCKS a", "x BLOCKS y", "y BLOCKS x")

        assert knot.cycles == ((knot.links[0], knot.links[3]), (knot.links[4], knot.links[5]))

    def test_to_itself(self) -> None:
        """A link from an entity to itself, which a server may return, is a cycle."""
        own = graph("a BLOCKS a")
        assert own.cycles == (own.links,)

    def test_a_long_chain(self) -> None:
        """A chain of thousands of links can be searched, because the search does not recurse."""
        count = 3000
        chain = [f"{'a' if number == 0 else number} BLOCKS {number + 1}" for number in range(count)]

        assert graph(*chain).cycles == ()
        assert len(graph(*chain, f"{count} BLOCKS a").topological_order(Relationship.CAUSES)) == 0

    @given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
    def test_as_networkx_finds_them(self, pairs: list[tuple[int, int]]) -> None:
        """Each strongly connected component has one reported cycle, which is as short as possible."""
        made = graph(*(f"{parent} BLOCKS {child}" for parent, child in pairs))
        whole = networkx.DiGraph([(link.parent, link.child) for link in made.links])
        expected = {}
        for component in networkx.strongly_connected_components(whole):
            found = [len(cycle) for cycle in networkx.simple_cycles(whole.subgraph(component))]
            if found:
                expected[frozenset(component)] = min(found)
        assert sorted(expected.values()) == sorted(len(cycle) for cycle in made.cycles)
        for cycle in made.cycles:
            assert [link.child for link in cycle] == [link.parent for link in (*cycle[1:], cycle[0])]
            assert any(link.parent in component for link in cycle for component in expected)


class TestBlockersOf:
    def test_the_nearest_first(self) -> None:
        """Direct and indirect blockers are returned, nearest first, and other relationships are ignored."""
        made = graph("c BLOCKS b", "b BLOCKS a", "d BLOCKS a", "e CAUSES a", "a BLOCKS f")
        assert made.blockers_of(entity("a")) == tuple(entity(name) for name in "bdc")

    def test_of_a_case(self) -> None:
        """A ``Case`` object can be passed instead of its entity."""
        made = graph("b BLOCKS a", a="The case")
        assert made.blockers_of(made.cases[entity("a")]) == (entity("b"),)

    def test_by_its_name(self) -> None:
        """A case can be passed by key or by id, and an unknown one is an error."""
        known = Case(entity("a").id, "SHOP-1", "The case", "OPEN", "P3")
        made = LinkGraph(entity("a"), links("b BLOCKS a"), {known.entity: known})
        assert made.blockers_of("shop-1") == made.blockers_of(known.id) == (entity("b"),)
        with pytest.raises(ParameterError, match=r"^case must be in this graph, .* but 'SHOP-2' is not$"):
            made.blockers_of("SHOP-2")
        with pytest.raises(InvalidLinkError, match="'checkout' does not name an entity"):
            made.blockers_of("checkout")

    def test_in_a_cycle(self) -> None:
        """Each blocker in a cycle is returned once, without the case itself."""
        made = graph("a BLOCKS b", "b BLOCKS c", "c BLOCKS a")
        assert made.blockers_of(entity("a")) == (entity("c"), entity("b"))

    def test_of_what_is_not_there(self) -> None:
        """An entity outside the graph is an error, as an empty result would mean that nothing blocks it."""
        with pytest.raises(
            ParameterError, match=f"^case must be in this graph, .* but INCIDENT {entity('z').id} is not$"
        ):
            graph("a BLOCKS b").blockers_of(entity("i:z"))


class TestTopologicalOrder:
    def test_of_a_relationship_that_is_none(self) -> None:
        """An unknown relationship is an error, because an empty order would mean that nothing is linked."""
        with pytest.raises(InvalidLinkError, match="unknown relationship 'blocks'"):
            graph("a BLOCKS b").topological_order("blocks")  # type: ignore[arg-type]

    def test_parents_come_first(self) -> None:
        """The order has only entities with links of the relationship, parents first."""
        made = graph("a BLOCKS b", "c BLOCKS a", "c BLOCKS b", "b CAUSES c", "b CAUSES d")
        assert made.topological_order() == tuple(entity(name) for name in "cab")

    @given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
    def test_of_any_graph(self, pairs: set[tuple[int, int]]) -> None:
        """Any graph has an order with parents first, or raises an error with one of its cycles."""
        made = graph(*(f"{parent} CAUSES {child}" for parent, child in sorted(pairs)))
        if made.cycles:
            with pytest.raises(CycleError) as raised:
                made.topological_order(Relationship.CAUSES)
            assert raised.value.links in made.cycles
        else:
            order = made.topological_order(Relationship.CAUSES)
            assert sorted(order, key=str) == sorted(
                {x for link in made.links for x in (link.parent, link.child)}, key=str
            )
            assert all(order.index(link.parent) < order.index(link.child) for link in made.links)

    def test_the_error_names_the_cycle(self) -> None:
        """The error about a cycle names its cases by key if it is known, and otherwise by id."""
        made = graph("a BLOCKS b", "b BLOCKS a", a="One")
        with pytest.raises(CycleError) as raised:
            made.topological_order()
        assert (
            str(raised.value) == f"cannot order by BLOCKS: the links form a cycle: A -> {entity('b').id} -> A"
        )
        assert raised.value.links == made.links

    def test_what_has_no_direction(self) -> None:
        """An order by RELATES_TO is refused, because it has no direction."""
        with pytest.raises(ParameterError, match="RELATES_TO: it has no direction"):
            graph("a RELATES_TO b").topological_order(Relationship.RELATES_TO)


class TestToNetworkx:
    def test_has_everything(self) -> None:
        """The networkx graph has all known details of the nodes, and one edge for each link."""
        made = graph("a BLOCKS b", "a BLOCKS b", "x CAUSES i:y", a="One")
        whole = made.to_networkx()

        known = {"key": "A", "title": "One", "status": "OPEN", "priority": "P3"}
        known |= {"status_name": "", "status_group": ""}
        assert whole.nodes[entity("a")] == {"type": "CASE", "distance": 0, **known}
        assert whole.nodes[entity("b")] == {"type": "CASE", "distance": 1}
        assert whole.nodes[entity("i:y")] == {"type": "INCIDENT"}
        assert [(edge, its["relationship"]) for *_, edge, its in whole.edges(keys=True, data=True)] == [
            ("l0", "BLOCKS"),
            ("l1", "BLOCKS"),
            ("l2", "CAUSES"),
        ]

    def test_without_networkx(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without networkx, the error says what to install."""
        monkeypatch.setitem(sys.modules, "networkx", None)
        with pytest.raises(ConfigurationError, match="pip install networkx"):
            graph("a BLOCKS b").to_networkx()


def test_ends_that_nothing_links_to_the_root() -> None:
    """Entities without a path to the root come last and have no distance."""
    made = graph("x BLOCKS y", "a BLOCKS b")

    assert made.entities == tuple(entity(name) for name in "abxy")
    assert entity("x") not in made.distances


def test_incident_and_case_of_one_id_are_two() -> None:
    """An incident and a case with the same id are different entities."""
    one = "4417921d-0866-4a38-822c-6f2a0f65f77d"
    made = LinkGraph(case(one), (CaseLink("l", case(one), "CAUSES", incident(one)),))

    assert len(made.entities) == 2
    with pytest.raises(InvalidLinkError):
        Entity("", "CASE")


class TestAddress:
    def test_of_a_case_on_a_site_of_datadog(self) -> None:
        """On a Datadog site, a case has a URL, and its key is escaped as one path segment."""
        known = Case(entity("a").id, "SHOP-1", "One", "OPEN", "P3")
        odd = Case(entity("b").id, "../x?y", "Two", "OPEN", "P3")
        cases = {entity("a"): known, entity("b"): odd}
        made = LinkGraph(entity("a"), links("a BLOCKS b", "a BLOCKS c"), cases, site=Site.EU1)
        assert made.url_of(entity("a")) == "https://app.datadoghq.eu/cases/SHOP-1"
        assert made.url_of(entity("b")) == "https://app.datadoghq.eu/cases/..%2Fx%3Fy"
        assert made.url_of(entity("c")) is None

    async def test_elsewhere_there_is_none(self, client: CaseLinksClient) -> None:
        """On any other server, cases have no URL."""
        made = await client.read_graph("SHOP-2", depth=0)
        assert made.site == client.site
        assert made.url_of(made.root) is None
