"""Graphs with several roots, and the incidents in a graph."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from datadog_caselinks import (
    Case,
    CaseLink,
    CaseLinksClient,
    Entity,
    Incident,
    InvalidLinkError,
    LinkGraph,
    NotFoundError,
    ParameterError,
    Relationship,
    Site,
    case,
    parse_link,
)
from datadog_caselinks.graph.rendering import dot, heading, mermaid, svg, tree
from datadog_caselinks.sandbox import Sandbox
from tests.support.graphs import entity, graph, links
from tests.support.ids import incident

pytestmark = pytest.mark.sandbox(seed="demo")


@pytest.fixture
async def demo(sandbox: Sandbox) -> AsyncIterator[CaseLinksClient]:
    """A client of the demo."""
    async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
        yield client


class TestReading:
    async def test_the_graph_is_that_around_each_root(self, demo: CaseLinksClient) -> None:
        """A graph of two roots has what the graphs of each have, and no other entity."""
        both = await demo.read_graph("SHOP-24", "SHOP-1", depth=1)
        one, other = [await demo.read_graph(key, depth=1) for key in ("SHOP-24", "SHOP-1")]
        assert both.roots == (one.root, other.root)
        assert set(both.entities) == {*one.entities, *other.entities}
        assert {link.id for link in both.links} == {link.id for link in (*one.links, *other.links)}
        assert [each for each in both.entities if both.distances[each] == 0] == list(both.roots)

    async def test_the_distance_is_that_to_the_nearest_root(self, demo: CaseLinksClient) -> None:
        """An entity between two roots is as far away as the nearer one."""
        both = await demo.read_graph("SHOP-6", "SHOP-2", depth=3)
        keys = {known.key: both.distances[entity] for entity, known in both.cases.items()}
        assert (keys["SHOP-6"], keys["SHOP-5"], keys["SHOP-2"], keys["SHOP-7"]) == (0, 1, 0, 1)

    async def test_a_root_that_is_named_twice_is_one(self, sandbox: Sandbox, demo: CaseLinksClient) -> None:
        """Names of one entity are one root, and cost one request."""
        root = (await demo.get_case("SHOP-24")).entity
        made = await demo.read_graph("SHOP-24", "shop-24", root, depth=0)
        assert (made.roots, len(made.entities)) == ((root,), 1)

    async def test_more_roots_than_nodes(self, demo: CaseLinksClient) -> None:
        """Roots that do not fit are counted, as other entities are."""
        made = await demo.read_graph("SHOP-1", "SHOP-2", "SHOP-3", max_nodes=2)
        assert (len(made.roots), made.left_out, made.depth, made.links) == (2, 1, 0, ())
        assert not made.is_complete

    async def test_one_root_that_does_not_exist(self, demo: CaseLinksClient) -> None:
        """A root that does not exist is an error, whatever the others are."""
        with pytest.raises(NotFoundError, match="SHOP-999"):
            await demo.read_graph("SHOP-1", "SHOP-999")
        with pytest.raises(NotFoundError, match="incident 999"):
            await demo.read_graph("SHOP-1", "incident:999")
        with pytest.raises(InvalidLinkError):
            await demo.read_graph("SHOP-1", "x")

    async def test_a_graph_needs_a_root(self, demo: CaseLinksClient) -> None:
        """Without a root there is nothing to read."""
        with pytest.raises(ParameterError, match=r"^read_graph needs at least one root"):
            await demo.read_graph()


class TestIncidents:
    async def test_an_incident_has_its_number_and_title(self, demo: CaseLinksClient) -> None:
        """Every picture shows an incident by its number and its title."""
        made = await demo.read_graph("incident:101", depth=1)
        (found,) = made.incidents.values()
        assert (found.key, found.title, found.status) == (
            "IR-101",
            "Checkout fails for most shoppers",
            "resolved",
        )
        assert heading(made) == "Links around IR-101"
        for draw in (tree, dot, svg, mermaid):
            text = draw(made)
            assert "IR-101" in text
            assert "Checkout fails" in text
            assert found.id not in text

    async def test_an_incident_that_may_not_be_read(self, sandbox: Sandbox) -> None:
        """An incident without number and title is in the graph, with its links."""
        keys = sandbox.credentials_without_incidents
        async with CaseLinksClient(sandbox.site, keys) as client:
            made = await client.read_graph("SHOP-2", depth=1)
        assert made.incidents == {}
        assert made.is_complete
        assert any(each.type == "INCIDENT" for each in made.entities)

    async def test_blockers_of_an_incident(self) -> None:
        """An incident of the graph is named by its number."""
        a, b = entity("i:a"), entity("b")
        known = Incident(a.id, "7", "IR-7", "", "")
        made = LinkGraph(b, (CaseLink("l", b, Relationship.BLOCKS, a),), incidents={a: known})
        assert made.blockers_of("incident:7") == made.blockers_of("incident:ir-7") == (b,)
        with pytest.raises(ParameterError, match=r"'incident:8' is not$"):
            made.blockers_of("incident:8")

    def test_the_address(self) -> None:
        """On a site of Datadog, an incident with a number has an address."""
        a, b = incident(entity("a").id), incident(entity("b").id)
        known: dict[Entity, Incident] = {
            a: Incident(a.id, "7", "IR-7", "", ""),
            b: Incident(b.id, "", "IR-8", "", ""),
        }
        made = LinkGraph(a, (), incidents=known, site=Site.US1)
        assert made.address(a) == "https://app.datadoghq.com/incidents/7"
        assert made.address(b) is None
        assert LinkGraph(a, (), incidents=known).address(a) is None

    def test_networkx_gets_what_is_known(self) -> None:
        """The node of an incident has its key, title and status."""
        a = entity("i:a")
        made = LinkGraph(a, (), incidents={a: Incident(a.id, "7", "IR-7", "A title", "active")})
        assert made.to_networkx().nodes[a] == {
            "type": "INCIDENT",
            "distance": 0,
            "key": "IR-7",
            "title": "A title",
            "status": "active",
        }

    def test_an_incident_without_a_key_is_named_by_its_number(self) -> None:
        """The number is enough to name it."""
        a = entity("i:a")
        made = LinkGraph(a, (), incidents={a: Incident(a.id, "7", "", "A title", "")})
        assert tree(made).splitlines()[0] == "▲ incident:7  A title"
        bare = LinkGraph(a, (), incidents={a: Incident(a.id, "", "", "", "")})
        assert tree(bare).splitlines()[0] == f"▲ incident:{a.id}"


def test_trees_of_several_roots_refer_to_each_other() -> None:
    """What is drawn below one root is not drawn again below another: an arrow points to its place."""
    made = LinkGraph(
        entity("a"),
        links("a BLOCKS x", "c BLOCKS x", "c BLOCKS y", "x CAUSES y", "x CAUSES c"),
        {entity(name): Case(entity(name).id, name.upper(), "", "", "") for name in "acxy"},
        other_roots=(entity("c"),),
    )
    assert tree(made).splitlines()[:7] == [
        "■ A",
        "└── blocks → ■ X",
        "   └── causes → ■ Y  ↓ see below",
        "■ C",
        "├── blocks → ■ X  ↑ see above",
        "├── blocks → ■ Y",
        "└─← causes ── ■ X  ↑ see above",
    ]


class TestHeading:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ("b", "A and B"),
            ("b c", "A, B and C"),
            ("b c d", "A, B, C and 1 more"),
            ("b c d e", "A, B, C and 2 more"),
        ],
    )
    def test_names_a_few_roots(self, names: str, expected: str) -> None:
        """A heading names up to three roots."""
        others = tuple(map(entity, names.split()))
        cases = {
            entity(name): Case(entity(name).id, name.upper(), "A title", "", "")
            for name in ("a", *names.split())
        }
        made = LinkGraph(entity("a"), (), cases, other_roots=others)
        assert heading(made) == f"Links around {expected}"

    def test_each_root_is_marked(self) -> None:
        """Every picture marks all roots, and no other entity."""
        made = LinkGraph(entity("a"), links("a BLOCKS b", "c BLOCKS b"), other_roots=(entity("c"),))
        assert mermaid(made).count("stroke-width:3px") == 2
        assert dot(made).count("penwidth=3") == 2
        assert svg(made).count('class="entity CASE root"') == 2
        assert mermaid(graph("a BLOCKS b")).count("stroke-width:3px") == 1


async def test_plans_know_incidents(sandbox: Sandbox, demo: CaseLinksClient) -> None:
    """A plan looks up the number of an incident once, and describes the incident by its key."""
    wanted = [parse_link("incident:102", "causes", key) for key in ("SHOP-31", "SHOP-32")]
    planned = await demo.plan_links(wanted)
    assert str(planned).splitlines() == [
        "+ incident:IR-102 CAUSES SHOP-31",
        "+ incident:IR-102 CAUSES SHOP-32",
    ]
    assert [each.key for each in planned.incidents.values()] == ["IR-102"]
    assert sum("/incidents/" in request.path for request in sandbox.requests) == 1
    with pytest.raises(NotFoundError, match=r"also not found: incident:999$"):
        await demo.plan_links(
            [parse_link("SHOP-999", "causes", "SHOP-1"), parse_link("incident:999", "causes", "SHOP-1")]
        )


async def test_an_entity_of_a_case_is_a_root(demo: CaseLinksClient) -> None:
    """What a search yields can be drawn."""
    roots = [found.entity async for found in demo.search_cases("pool status:open")]
    made = await demo.read_graph(*roots, depth=0)
    assert {known.key for known in made.cases.values()} == {"SHOP-31", "SHOP-27", "SHOP-25"}
    assert case(roots[0].id) in made.roots
