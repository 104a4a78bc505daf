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
    """Yield a client of the demo."""
    async with CaseLinksClient(sandbox.site, sandbox.credentials) as client:
        yield client


class TestReading:
    async def test_the_graph_is_that_around_each_root(self, demo: CaseLinksClient) -> None:
        """A graph of two roots has the entities and links of both single graphs, and nothing else."""
        both = await demo.read_graph("SHOP-24", "SHOP-1", depth=1)
        one, other = [await demo.read_graph(key, depth=1) for key in ("SHOP-24", "SHOP-1")]
        assert both.roots == (one.root, other.root)
        assert set(both.entities) == {*one.entities, *other.entities}
        assert {link.id for link in both.links} == {link.id for link in (*one.links, *other.links)}
        assert [each for each in both.entities if both.distances[each] == 0] == list(both.roots)

    async def test_the_distance_is_that_to_the_nearest_root(self, demo: CaseLinksClient) -> None:
        """The distance of an entity is the distance to the nearest root."""
        both = await demo.read_graph("SHOP-6", "SHOP-2", depth=3)
        keys = {known.key: both.distances[entity] for entity, known in both.cases.items()}
        assert (keys["SHOP-6"], keys["SHOP-5"], keys["SHOP-2"], keys["SHOP-7"]) == (0, 1, 0, 1)

    async def test_a_root_that_is_named_twice_is_one(self, sandbox: Sandbox, demo: CaseLinksClient) -> None:
        """Several names of one entity count as one root."""
        root = (await demo.get_case("SHOP-24")).entity
        made = await demo.read_graph("SHOP-24", "shop-24", root, depth=0)
        assert (made.roots, len(made.entities)) == ((root,), 1)

    async def test_more_roots_than_nodes(self, demo: CaseLinksClient) -> None:
        """Roots above ``max_nodes`` are counted as left out."""
        made = await demo.read_graph("SHOP-1", "SHOP-2", "SHOP-3", max_nodes=2)
        assert (len(made.roots), made.left_out, made.depth, made.links) == (2, 1, 0, ())
        assert not made.is_complete

    async def test_one_root_that_does_not_exist(self, demo: CaseLinksClient) -> None:
        """A root that does not exist is an error, even among other roots."""
        with pytest.raises(NotFoundError, match="SHOP-999"):
            await demo.read_graph("SHOP-1", "SHOP-999")
        with pytest.raises(NotFoundError, match="incident 999"):
            await demo.read_graph("SHOP-1", "incident:999")
        with pytest.raises(InvalidLinkError):
            await demo.read_graph("SHOP-1", "x")

    async def test_a_graph_needs_a_root(self, demo: CaseLinksClient) -> None:
        """Reading a graph without a root is an error."""
        with pytest.raises(ParameterError, match=r"^read_graph needs at least one root"):
            await demo.read_graph()


class TestIncidents:
    async def test_an_incident_has_its_number_and_title(self, demo: CaseLinksClient) -> None:
        """Every picture shows an incident by its number and its title."""
        made = await demo.read_graph("incident:101", depth=1)
        (found,) = made.incidents.values()
        assert (found.key, found.title, found.status) == (
            "IR-101",
            "Checkout fails for most customers",
            "resolved",
        )
        assert heading(made) == "Links around IR-101"
        for draw in (tree, dot, svg, mermaid):
            text = draw(made)
            assert "IR-101" in text
            assert "Checkout fails" in text
            assert found.id not in text

    async def test_an_incident_that_may_not_be_read(self, sandbox: Sandbox) -> None:
        """An incident whose details cannot be read is in the graph without number and title."""
        keys = sandbox.credentials_without_incidents
        async with CaseLinksClient(sandbox.site, keys) as client:
            made = await client.read_graph("SHOP-2", depth=1)
        assert made.incidents == {}
        assert made.is_complete
        assert any(each.type == "INCIDENT" for each in made.entities)

    async def test_blockers_of_an_incident(self) -> None:
        """``blockers_of`` accepts an incident by its number."""
        a, b = entity("i:a"), entity("b")
        known = Incident(a.id, "7", "IR-7", "", "")
        made = LinkGraph(b, (CaseLink("l", b, Relationship.BLOCKS, a),), incidents={a: known})
        assert made.blockers_of("incident:7") == made.blockers_of("incident:ir-7") == (b,)
        with pytest.raises(ParameterError, match=r"'incident:8' is not$"):
            made.blockers_of("incident:8")

    def test_the_url(self) -> None:
        """On a Datadog site, an incident with a number has a URL."""
        a, b = incident(entity("a").id), incident(entity("b").id)
        known: dict[Entity, Incident] = {
            a: Incident(a.id, "7", "IR-7", "", ""),
            b: Incident(b.id, "", "IR-8", "", ""),
        }
        made = LinkGraph(a, (), incidents=known, site=Site.US1)
        assert made.url_of(a) == "https://app.datadoghq.com/incidents/7"
        assert made.url_of(b) is None
        assert LinkGraph(a, (), incidents=known).url_of(a) is None

    def test_networkx_gets_what_is_known(self) -> None:
        """The networkx node of an incident has its key, title and status."""
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
        """An incident without a key is shown by its number."""
        a = entity("i:a")
        made = LinkGraph(a, (), incidents={a: Incident(a.id, "7", "", "A title", "")})
        assert tree(made).splitlines()[0] == "▲ incident:7  A title"
        bare = LinkGraph(a, (), incidents={a: Incident(a.id, "", "", "", "")})
        assert tree(bare).splitlines()[0] == f"▲ incident:{a.id}"


def test_trees_of_several_roots_refer_to_each_other() -> None:
    """An entity below several roots is drawn once, and the other trees refer to it."""
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
    """A plan looks up each incident number once and names the incident by its key."""
    wanted = [parse_link("incident:102", "causes", key) for key in ("SHOP-31", "SHOP-32")]
    planned = await demo.plan_links(wanted)
    assert str(planned).splitlines() == [
        "+ incident:IR-102 causes SHOP-31",
        "+ incident:IR-102 causes SHOP-32",
    ]
    assert [each.key for each in planned.incidents.values()] == ["IR-102"]
    assert sum("/incidents/" in request.path for request in sandbox.requests) == 1
    with pytest.raises(NotFoundError, match=r"also not found: incident:999$"):
        await demo.plan_links(
            [parse_link("SHOP-999", "causes", "SHOP-1"), parse_link("incident:999", "causes", "SHOP-1")]
        )


async def test_an_entity_of_a_case_is_a_root(demo: CaseLinksClient) -> None:
    """The entities of a search result can be roots."""
    roots = [found.entity async for found in demo.search_cases("pool status:open")]
    made = await demo.read_graph(*roots, depth=0)
    assert {known.key for known in made.cases.values()} == {"SHOP-31", "SHOP-27", "SHOP-25"}
    assert case(roots[0].id) in made.roots
