"""The rules of references to entities: the forms that are read, and the messages for all other texts."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from datadog_caselinks import (
    CaseKey,
    Entity,
    EntityType,
    IncidentNumber,
    InvalidLinkError,
    LinkReference,
    NewCaseLink,
    Reference,
    Relationship,
    Site,
    agent_conversation,
    page,
    parse_link,
    parse_reference,
)
from datadog_caselinks.values.models import identity, named
from datadog_caselinks.values.references import FORMS, relationship_in_words
from datadog_caselinks.values.sites import SITES
from tests.support.ids import case, incident
from tests.support.strategies import entity_types, ids, new_links, relationships

A = "4417921d-0866-4a38-822c-6f2a0f65f77d"
B = "bf0cbac6-4c16-4cfb-b6bf-ca5e0ec37a4f"

PREFIXES = {"case": case, "incident": incident, "page": page, "conversation": agent_conversation}

# The host of each site in the browser, and a subdomain of an organisation.
HOSTS = [
    *((f"app.{domain}", site) for domain, site in SITES.items()),
    *((domain, site) for domain, site in SITES.items()),
    *((f"acme.{domain}", site) for domain, site in SITES.items()),
]

case_keys = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,9}-[0-9]{1,6}", fullmatch=True)
known_entities = st.builds(Entity, ids, entity_types)
incident_numbers = st.builds(IncidentNumber, st.from_regex(r"(IR-)?[0-9]{1,6}", fullmatch=True))
references: st.SearchStrategy[Reference] = known_entities | st.builds(CaseKey, case_keys) | incident_numbers


def refusal(text: str, **options: Any) -> str:
    """Return the reason why ``text`` does not name an entity."""
    with pytest.raises(InvalidLinkError) as caught:
        parse_reference(text, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


class TestForms:
    @given(references)
    def test_what_is_named_is_read_again(self, reference: Reference) -> None:
        """``parse_reference`` reads every text that ``named`` returns."""
        assert parse_reference(named(reference)) == reference

    @given(case_keys)
    def test_a_key_is_a_case_in_either_letter_case(self, key: str) -> None:
        """A key is read in either letter case and stored in upper case."""
        assert parse_reference(key) == parse_reference(key.lower()) == CaseKey(key.upper())
        assert named(parse_reference(key.lower())) == key.upper()

    @given(ids, entity_types)
    def test_a_uuid_is_of_the_type_that_is_given(self, id: str, entity_type: EntityType) -> None:
        """A UUID has the given type, by default a case; upper case is the same UUID."""
        assert parse_reference(id.upper(), type=entity_type) == Entity(id, entity_type)
        assert parse_reference(id, type=str(entity_type)) == Entity(id, entity_type)
        assert parse_reference(id) == case(id)

    @pytest.mark.parametrize("prefix", PREFIXES)
    @pytest.mark.parametrize("written", ["{}:{}", "{}: {}", " {}:\t{}\n"])
    def test_a_prefix_names_the_type(self, prefix: str, written: str) -> None:
        """A prefix names the type, in either letter case, with or without white space."""
        for name in (prefix, prefix.upper(), prefix.capitalize()):
            assert parse_reference(written.format(name, A)) == PREFIXES[prefix](A)

    def test_there_is_a_prefix_for_every_type(self) -> None:
        """Each entity type has a prefix, and the message lists the prefixes that are needed."""
        assert {make(A).type for make in PREFIXES.values()} == set(EntityType)
        assert [named(make(A)) for make in PREFIXES.values()] == [
            A,
            f"incident:{A}",
            f"page:{A}",
            f"conversation:{A}",
        ]
        assert all(f"{prefix}:" in FORMS for prefix in PREFIXES if prefix != "case")

    @pytest.mark.parametrize("text", [" SHOP-1 ", "\tshop-1\n", "case:SHOP-1", "CASE: shop-1"])
    def test_a_key_with_space_around_it_or_its_prefix(self, text: str) -> None:
        """A key may have white space around it or the prefix ``case:``."""
        assert parse_reference(text) == CaseKey("SHOP-1")

    @pytest.mark.parametrize("prefix", PREFIXES)
    @pytest.mark.parametrize("entity_type", EntityType)
    def test_a_prefix_that_contradicts_the_type(self, prefix: str, entity_type: EntityType) -> None:
        """A prefix that contradicts a type other than the default is refused."""
        text = f"{prefix}:{A}"
        if entity_type in (EntityType.CASE, PREFIXES[prefix](A).type):
            assert parse_reference(text, type=entity_type) == PREFIXES[prefix](A)
        else:
            assert refusal(text, type=entity_type) == f"{text!r} does not have the type {entity_type}"

    @pytest.mark.parametrize("entity_type", [EntityType.PAGE, EntityType.AGENT_CONVERSATION])
    def test_a_key_is_of_no_other_type(self, entity_type: EntityType) -> None:
        """A key is refused for pages and conversations, because only cases and incidents have keys."""
        assert refusal("SHOP-1", type=entity_type) == (
            f"'SHOP-1' is a case key, but the type is {entity_type}: use its UUID"
        )

    @pytest.mark.parametrize("entity_type", sorted(set(EntityType) - {EntityType.CASE}))
    @pytest.mark.parametrize("name", ["SHOP-1", A])
    def test_the_url_of_a_case_is_of_no_other_type(self, name: str, entity_type: EntityType) -> None:
        """The URL of a case is refused for other types, which would get the id of the case."""
        text = f"https://app.datadoghq.com/cases/{name}"
        assert refusal(text, type=entity_type) == (
            f"{text!r} is the URL of a case, but the type is {entity_type}"
        )

    @pytest.mark.parametrize("text", ["101", "#101", " #101 "])
    def test_a_number_alone_may_mean_an_incident_or_a_case(self, text: str) -> None:
        """The message for a number alone says how to write the incident and the case that it may mean."""
        hint = "for an incident, write incident:101, and for a case its key, such as SHOP-101"
        assert refusal(text) == f"{text!r} does not name an entity; {hint}"
        assert "write page:UUID" in refusal(text, type=EntityType.PAGE)
        assert FORMS in refusal(f"case:{text.strip()}")

    @pytest.mark.parametrize("prefix", ["ca\u017fe", "\u0130ncident", "\u0131ncident", "conver\u017fation"])
    def test_a_letter_that_only_folds_to_ascii_is_no_prefix(self, prefix: str) -> None:
        """A letter that only case folding turns into ASCII is not part of a prefix."""
        assert "does not name an entity" in refusal(f"{prefix}:{A}")

    def test_a_key_has_ascii_digits(self) -> None:
        """A key contains ASCII digits only."""
        assert "does not name an entity" in refusal("SHOP-\u0664")

    @pytest.mark.parametrize("text", [f"incident:{A}", "SHOP-1", A])
    def test_an_unknown_type_is_shown_fit_for_a_terminal(self, text: str) -> None:
        """An unknown type is quoted in printable form, with the list of known types."""
        message = refusal(text, type="\x1b[31m" * 1000)
        assert message.startswith("unknown entity type ")
        assert message.isprintable()
        assert len(message) < 300

    @pytest.mark.parametrize(
        "text", ["incident:42", "incident: #42", "INCIDENT:IR-42", "incident:ir-42", "incident:#IR-42"]
    )
    def test_an_incident_is_named_by_its_number(self, text: str) -> None:
        """The number of an incident is read with or without its prefix, in either letter case."""
        number = "IR-42" if "r-" in text.lower() else "42"
        assert parse_reference(text) == IncidentNumber(number)
        assert named(parse_reference(text)) == f"incident:{number}"
        bare = text.partition(":")[2]
        assert parse_reference(bare, type="INCIDENT") == IncidentNumber(number)

    @pytest.mark.parametrize("number", ["", "IR-", "IR 42", "4 2", "\u0664", 42, None])
    def test_what_is_not_a_number_is_refused(self, number: Any) -> None:
        """An incident number of another form is refused."""
        with pytest.raises(InvalidLinkError, match="the number of an incident must be a string") as caught:
            IncidentNumber(number)
        assert str(caught.value).endswith(f" such as 123 or IR-123, not {number!r}")

    @pytest.mark.parametrize(
        ("text", "origin"),
        [
            ("page:42", "in the response to POST /api/v2/on-call/pages, which created it"),
            ("conversation:42", "in the lists of its links"),
        ],
    )
    def test_where_the_uuids_of_pages_and_conversations_come_from(self, text: str, origin: str) -> None:
        """The message for a page or conversation without a UUID says where to find the UUID."""
        assert origin in refusal(text)

    @pytest.mark.parametrize("prefix", sorted(PREFIXES.keys() - {"case", "incident"}))
    def test_a_key_has_no_other_prefix(self, prefix: str) -> None:
        """A key with the prefix of a page or conversation is refused."""
        assert refusal(f"{prefix}:SHOP-1") == (
            f"'SHOP-1' is a case key, but the type is {PREFIXES[prefix](A).type}: use its UUID"
        )

    @pytest.mark.parametrize("entity_type", ["WIDGET", "case", ""])
    def test_an_unknown_type_is_refused_with_the_known_ones(self, entity_type: str) -> None:
        """An unknown type is refused with the list of known types."""
        message = refusal(A, type=entity_type)
        assert message.startswith(f"unknown entity type {entity_type!r}; use one of CASE, INCIDENT, ")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "x",
            "SHOP",
            "SHOP-",
            "-1",
            "1SHOP-1",
            "SHOP-1a",
            "SHOP 1",
            "SHOP--1",
            "#SHOP-1",
            "SHOP-1, SHOP-2",
            A[:-1],
            A.replace("-", ""),
            f"{{{A}}}",
            "incident:",
            "incident:SHOP",
            f"widget:{A}",
            f"incident:page:{A}",
            f"incident :{A}",
            "https:",
        ],
    )
    def test_what_names_no_entity_is_refused_with_every_form(self, text: str) -> None:
        """The message for a text that does not name an entity quotes it and lists every form."""
        assert refusal(text) == f"{text!r} does not name an entity; write {FORMS}"


ADDRESSES = ["/cases/SHOP-1", "/cases/SHOP-1/", "/cases/SHOP-1/activity", "//cases//SHOP-1"]


class TestAddresses:
    @pytest.mark.parametrize("written", ["https://{}{}", "{}{}", "HTTPS://{}{}", "http://{}:443{}"])
    def test_of_each_site(self, written: str) -> None:
        """A URL may be of any site and subdomain, with or without a scheme."""
        for (host, site), path in itertools.product(HOSTS, ADDRESSES):
            text = written.format(host, path)
            assert parse_reference(text) == parse_reference(text, site=site) == CaseKey("SHOP-1")

    @pytest.mark.parametrize("tail", ["", "?query=status%3Aopen", "#comments", "/?a=b/c#d", "/timeline?x"])
    @pytest.mark.parametrize("before", ["", "/a", "/case-management"])
    @pytest.mark.parametrize(("name", "reference"), [("shop-1", CaseKey("SHOP-1")), (A.upper(), case(A))])
    def test_the_case_follows_cases(self, name: str, reference: Reference, before: str, tail: str) -> None:
        """The key or UUID of a case follows ``/cases/``, with anything before and after."""
        assert parse_reference(f"https://app.datadoghq.com{before}/cases/{name}{tail}") == reference

    def test_the_first_of_several_is_the_case(self) -> None:
        """The first key after ``/cases/`` names the case; the rest of the path is a view of it."""
        assert parse_reference("https://app.datadoghq.com/cases/inbox/SHOP-1/SHOP-2") == CaseKey("SHOP-1")
        assert parse_reference("https://app.datadoghq.com/SHOP-2/cases/SHOP-1") == CaseKey("SHOP-1")

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/work/SHOP-1", CaseKey("SHOP-1")),
            (f"/work/{A}", case(A)),
            ("/work/items/shop-1/activity", CaseKey("SHOP-1")),
            (f"/work/projects/{B}/SHOP-1", CaseKey("SHOP-1")),
            ("/a/work/cases/SHOP-1", CaseKey("SHOP-1")),
            ("/cases/SHOP-1/incidents/42", CaseKey("SHOP-1")),
            ("/work/SHOP-1?key=SHOP-2", CaseKey("SHOP-1")),
            (f"/work/{A}?key=SHOP-2", case(A)),
            ("/work?key=SHOP-1", CaseKey("SHOP-1")),
            ("/cases?caseKey=shop-1&tab=activity", CaseKey("SHOP-1")),
            ("/cases/?query=OPS-7&selected=SHOP%2D1#activity", CaseKey("SHOP-1")),
            ("/work/board?item=SHOP-1&focus=shop-1", CaseKey("SHOP-1")),
            (f"/work?project={B}&item=SHOP-1", CaseKey("SHOP-1")),
        ],
    )
    def test_of_either_page_and_in_the_query(self, path: str, expected: Reference) -> None:
        """A URL below ``/work`` or ``/cases`` names the case in its path, or else by a key in its query."""
        for host in ("https://app.datadoghq.com", "acme.datadoghq.eu"):
            assert parse_reference(f"{host}{path}") == expected

    def test_of_several_cases(self) -> None:
        """A query with two different keys is refused as ambiguous."""
        text = "https://app.datadoghq.com/work?from=SHOP-1&to=SHOP-2"
        assert refusal(text) == f"{text!r} names several cases: write one of 'SHOP-1, SHOP-2'"

    @pytest.mark.parametrize("asked", SITES.values())
    def test_of_another_site(self, asked: Site) -> None:
        """A URL of another site than the client's is refused, with both sites and the solution."""
        domains = {site: domain for domain, site in SITES.items()}
        for host, site in HOSTS:
            text = f"https://{host}/cases/SHOP-1"
            if asked == site:
                assert parse_reference(text, site=asked) == CaseKey("SHOP-1")
            else:
                assert refusal(text, site=asked) == (
                    f"{text!r} is on {site.name} ({domains[site]}), but this client uses {asked.name} "
                    f"({domains[asked]}): set DD_SITE to the site of the case"
                )

    def test_of_a_server_of_ones_own(self) -> None:
        """A URL of the sandbox is compared by host and port, and both are named if they differ."""
        text = "http://127.0.0.1:8321/cases/SHOP-1"
        for site in (None, Site.parse(text), Site("sandbox", "http://127.0.0.1:8321")):
            assert parse_reference(text, site=site) == CaseKey("SHOP-1")
        assert refusal(text, site=Site("sandbox", "http://127.0.0.1:8322")) == (
            f"{text!r} is on 127.0.0.1:8321, but this client uses 127.0.0.1:8322: "
            "set DD_SITE to the site of the case"
        )

    @pytest.mark.parametrize(
        "path",
        [
            *("/incidents/42", "/incidents/42?tab=timeline", "/incidents/42/cases", "/incidents//42/#top"),
            *("/work/incidents/42", "/incidents/inbox/42", "/incidents/42/work?key=SHOP-1"),
        ],
    )
    def test_of_an_incident(self, path: str) -> None:
        """The URL of an incident contains its number, which is looked up later."""
        text = f"https://app.datadoghq.com{path}"
        assert parse_reference(text) == parse_reference(text, type="INCIDENT") == IncidentNumber("42")
        assert refusal(text, type="PAGE") == f"{text!r} is the URL of an incident, but the type is PAGE"
        assert "but this client uses EU1" in refusal(text, site=Site.EU1)

    def test_of_an_incident_by_its_key_or_uuid(self) -> None:
        """The URL of an incident may contain its key or UUID instead of its number."""
        assert parse_reference("https://app.datadoghq.com/incidents/ir-42") == IncidentNumber("IR-42")
        assert parse_reference(f"https://app.datadoghq.com/incidents/{A}") == incident(A)

    @pytest.mark.parametrize(
        "path",
        [
            *("/cases", "/cases/", "/cases?query=SHOP-1", "/cases#SHOP-1", "/", "/SHOP-1", "/xcases/SHOP-1"),
            *("/work", "/work?filter=SHOP-1", f"/work?view={A}", "/workflow/SHOP-1", "/monitors?key=SHOP-1"),
            *("/incidents", "/work/incidents?case=SHOP-1"),
        ],
    )
    def test_of_anything_else(self, path: str) -> None:
        """A URL of anything else, such as the list of all cases, is refused."""
        text = f"https://app.datadoghq.com{path}"
        assert refusal(text) == f"{text!r} is not the URL of a case or incident; write {FORMS}"

    @pytest.mark.parametrize(
        "host",
        [
            "app.datadoghq.com.example.com",
            "datadoghq.co",
            "app-datadoghq.com",
            "app.datad0ghq.datadog.example",
            "ddog-gov.com.example",
            "us9.datadoghq.com",
        ],
    )
    @pytest.mark.parametrize("scheme", ["https://", ""])
    def test_a_host_that_only_resembles_datadogs(self, host: str, scheme: str) -> None:
        """A host that resembles Datadog's is refused, with or without the site of a client."""
        text = f"{scheme}{host}/cases/SHOP-1"
        for site in (None, Site.US1):
            assert refusal(text, site=site) == f"{text!r} is not a Datadog URL; write {FORMS}"

    @pytest.mark.parametrize("host", ["app.datadoghq.com@example.com", "user:hunter2@app.datadoghq.com"])
    def test_what_may_be_a_password_is_not_shown(self, host: str) -> None:
        """A URL with an @ is not quoted, because the text before the @ may be a password."""
        for scheme in ("https://", ""):
            assert refusal(f"{scheme}{host}/cases/SHOP-1") == (
                f"[redacted] is not a Datadog URL; write {FORMS}"
            )

    def test_a_url_may_have_a_query_on_any_server(self) -> None:
        """A URL of a case may have a query and a fragment, on any server."""
        for host in ("https://app.datadoghq.com", "http://127.0.0.1:8321"):
            assert parse_reference(f"{host}/cases/SHOP-1?tab=x#y") == CaseKey("SHOP-1")

    @pytest.mark.parametrize("text", ["/", "//", "/cases/SHOP-1", "https://", "https://[/cases/A-1"])
    def test_what_is_no_address(self, text: str) -> None:
        """A text with a slash and without a host is refused as a URL."""
        assert refusal(text) == f"{text!r} is not a Datadog URL; write {FORMS}"


pieces = st.sampled_from(
    [
        *("https://", "http://", "//", "/", ":", "?", "#", "@", "[", "]", "..", "%2f"),
        *("app.datadoghq.com", "datadoghq.eu", "localhost", "127.0.0.1:8321", "example.com", ":99999"),
        *("cases", "work", "incidents", "key=", "&", "SHOP-1", "SHOP-2", "42", "IR-42", "shop-", "-1", A),
        A.upper(),
        *("case:", "incident:", "Page: ", "conversation:"),
        *(" ", "\n", "\0", "\x1b[31m", "\ud800"),
    ]
)
near_misses = st.lists(pieces | st.text(max_size=3), max_size=8).map("".join)
any_type = entity_types | st.sampled_from(["WIDGET", "case", ""]) | st.text(max_size=5)


class TestAnyText:
    @given(st.text() | near_misses, st.sampled_from([None, *SITES.values()]), any_type)
    @example("https://app.datadoghq.com:99999/cases/SHOP-1", None, EntityType.CASE)
    @example("https://[::1/cases/SHOP-1", Site.US1, EntityType.CASE)
    def test_is_read_or_refused(self, text: str, site: Site | None, entity_type: EntityType | str) -> None:
        """Any text is read or raises ``InvalidLinkError`` with a short, printable message."""
        try:
            reference = parse_reference(text, site=site, type=entity_type)
        except InvalidLinkError as error:
            assert str(error).isprintable()  # noqa: PT017 - some texts are good
            assert len(str(error)) < 1000  # noqa: PT017
        else:
            assert parse_reference(named(reference)) == reference

    @given(near_misses, st.text(max_size=12) | relationships, near_misses)
    def test_is_an_end_of_a_link_or_refused(self, parent: str, relationship: str, child: str) -> None:
        """Any texts for a link are read or raise ``InvalidLinkError`` with a printable message."""
        try:
            wanted = parse_link(parent, relationship, child)
        except InvalidLinkError as error:
            assert str(error).isprintable()  # noqa: PT017 - some links are good
        else:
            assert type(wanted.relationship) is Relationship

    @pytest.mark.parametrize("start", ["", "https://app.datadoghq.com/", "incident:", "SHOP/"])
    def test_a_long_text_is_cut_in_the_message(self, start: str) -> None:
        """The message shortens a long text, and ends with the list of forms."""
        message = refusal(start + "x" * 10_000)
        assert len(message) < 300
        assert message.endswith(FORMS)


class TestParseLink:
    @given(new_links())
    def test_two_entities_are_ready_to_be_linked(self, new: NewCaseLink) -> None:
        """A link between two entities, given as objects or texts, needs no lookup."""
        assert parse_link(new.parent, new.relationship, new.child) == new
        assert parse_link(named(new.parent), str(new.relationship), named(new.child)) == new

    @given(case_keys.map(CaseKey), relationships, references, st.booleans())
    def test_a_key_is_left_to_be_looked_up(
        self, key: CaseKey, relationship: Relationship, other: Reference, is_parent: bool
    ) -> None:
        """A link with a key at either end is a reference that is looked up later."""
        assume(key != other)
        parent, child = (key, other) if is_parent else (other, key)
        reference = LinkReference(parent, relationship, child)
        assert parse_link(parent, relationship, child) == reference
        assert parse_link(named(parent), relationship, named(child)) == reference
        assert str(reference) == f"{named(parent)} {relationship} {named(child)}"

    @pytest.mark.parametrize(
        ("parent", "child", "wrong"),
        [
            (A, f"case:{A.upper()}", f"CASE {A} cannot be linked to itself"),
            (f"page:{A}", f"incident:{B}", "is a case: at least one must be"),
            ("incident:1", "incident:2", "neither end of incident:1 BLOCKS incident:2 is a case"),
            ("incident:1", f"page:{A}", "is a case: at least one must be"),
            ("incident:1", "incident:1", "incident:1 cannot be linked to itself"),
        ],
    )
    def test_the_rules_of_links_hold(self, parent: str, child: str, wrong: str) -> None:
        """A link that ``NewCaseLink`` refuses is refused in any notation."""
        with pytest.raises(InvalidLinkError, match=wrong):
            parse_link(parent, "BLOCKS", child)

    @pytest.mark.parametrize(
        ("written", "relationship"),
        [
            ("blocks", Relationship.BLOCKS),
            ("Blocks ", Relationship.BLOCKS),
            ("is blocking", Relationship.BLOCKS),
            ("Relates-To", Relationship.RELATES_TO),
            ("relates_to", Relationship.RELATES_TO),
            ("relates  to", Relationship.RELATES_TO),
            ("Is related to", Relationship.RELATES_TO),
            ("PARENT-OF", Relationship.PARENT_OF),
            ("is the parent of", Relationship.PARENT_OF),
            ("cause of", Relationship.CAUSES),
            ("is a duplicate of", Relationship.DUPLICATES),
            ("duplicate of", Relationship.DUPLICATES),
            ("Successor of", Relationship.SUCCESSOR_OF),
            ("was escalated to", Relationship.ESCALATES_TO),
            ("→ BLOCKS", Relationship.BLOCKS),
            ("↔ RELATES_TO", Relationship.RELATES_TO),
            *((each, each) for each in Relationship),
            *((each.replace("_", " ").title(), each) for each in Relationship),
        ],
    )
    def test_a_relationship_is_written_in_words(self, written: str, relationship: Relationship) -> None:
        """Letter case, blanks, hyphens and a leading "is" do not change a relationship."""
        assert parse_link("SHOP-1", written, "SHOP-2") == parse_link("SHOP-1", relationship, "SHOP-2")
        assert parse_link(A, written, B) == NewCaseLink(case(A), relationship, case(B))
        assert parse_link(A, written, B).relationship is relationship

    @pytest.mark.parametrize(
        ("written", "relationship"),
        [
            ("blocked by", Relationship.BLOCKS),
            ("Is Blocked By", Relationship.BLOCKS),
            ("blocked-by", Relationship.BLOCKS),
            ("CAUSED_BY", Relationship.CAUSES),
            ("was caused by", Relationship.CAUSES),
            ("child of", Relationship.PARENT_OF),
            ("part of", Relationship.PARENT_OF),
            ("is a part of", Relationship.PARENT_OF),
            ("is a child of", Relationship.PARENT_OF),
            ("has parent", Relationship.PARENT_OF),
            ("is duplicated by", Relationship.DUPLICATES),
            ("predecessor of", Relationship.SUCCESSOR_OF),
            ("succeeded by", Relationship.SUCCESSOR_OF),
            ("escalated from", Relationship.ESCALATES_TO),
            ("← BLOCKS", Relationship.BLOCKS),
        ],
    )
    def test_words_for_the_other_direction_swap_the_ends(
        self, written: str, relationship: Relationship
    ) -> None:
        """Words for the other direction, such as "blocked by", exchange the ends."""
        assert parse_link("SHOP-1", written, "SHOP-2") == parse_link("SHOP-2", relationship, "SHOP-1")
        assert parse_link(A, written, B) == NewCaseLink(case(B), relationship, case(A))

    def test_two_reversals_cancel_out(self) -> None:
        """An arrow to the left before words for the other direction leaves the ends unchanged."""
        assert parse_link("SHOP-1", "← blocked by", "SHOP-2") == parse_link("SHOP-1", "BLOCKS", "SHOP-2")

    def test_duplicate_of_reads_as_the_method_does(self) -> None:
        """The words "duplicate of" leave the ends unchanged: the parent of DUPLICATES is the duplicate."""
        assert parse_link(A, "duplicate of", B) == case(A).duplicates(case(B))

    @pytest.mark.parametrize("relationship", Relationship)
    def test_words_that_are_shown_are_read_again(self, relationship: Relationship) -> None:
        """The words for a link, as seen from either end, name this link."""
        link = NewCaseLink(case(A), relationship, case(B))
        assert parse_link(A, relationship_in_words(relationship), B) == link
        seen_from_child = parse_link(B, relationship_in_words(relationship, from_child=True), A)
        assert identity(seen_from_child) == identity(link)  # type: ignore[arg-type]

    def test_an_unknown_relationship_is_shown_with_its_direction(self) -> None:
        """A relationship that a later version of the API adds is still readable."""
        assert relationship_in_words("MADE_OF") == "made of"
        assert relationship_in_words("MADE_OF", from_child=True) == "← made of"

    @pytest.mark.parametrize("child", ["SHOP-2", B])
    @pytest.mark.parametrize("written", ["LIKES", "", "depends on", "is", "x" * 50])
    def test_an_unknown_relationship_is_refused_with_the_known_ones(self, written: str, child: str) -> None:
        """An unknown relationship is refused with the known ones, with or without a key in the link."""
        with pytest.raises(
            InvalidLinkError,
            match=rf"^unknown relationship '{written}'; use one of relates to, causes, blocks",
        ):
            parse_link("SHOP-1", written, child)

    @pytest.mark.parametrize(
        ("written", "near"),
        [
            ("blcoks", "blocks"),
            ("blocked", "blocked by or blocks"),
            ("parent", "parent of or has parent"),
            ("Child", "child of or has child"),
            ("cause", "causes or caused by"),
            ("is caused", "causes or caused by"),
            ("duplicate", "duplicates or duplicated by"),
            ("escalate", "escalates to or escalated from"),
        ],
    )
    def test_a_near_miss_is_suggested(self, written: str, near: str) -> None:
        """A word for either direction is refused, and the message suggests words for both."""
        with pytest.raises(InvalidLinkError) as caught:
            parse_link("SHOP-1", written, "SHOP-2")
        assert str(caught.value).startswith(
            f"unknown relationship {written!r}; did you mean {near}? Use one of relates to, "
        )

    @pytest.mark.parametrize(
        ("parent", "child"),
        [
            ("SHOP-1", "shop-1"),
            ("https://app.datadoghq.com/cases/SHOP-1", "SHOP-1"),
            (CaseKey("shop-1"), "SHOP-1"),
        ],
    )
    def test_a_case_is_not_linked_to_itself(self, parent: Reference | str, child: str) -> None:
        """A link of a case to itself is refused, in any notation of its key."""
        with pytest.raises(InvalidLinkError, match=r"^SHOP-1 cannot be linked to itself$"):
            parse_link(parent, "BLOCKS", child)

    @pytest.mark.parametrize("is_parent", [True, False])
    def test_a_url_must_be_of_the_site(self, is_parent: bool) -> None:
        """A URL of another site is refused at either end of a link."""
        address = "https://app.datadoghq.eu/cases/SHOP-1"
        ends = (address, "SHOP-2") if is_parent else ("SHOP-2", address)
        with pytest.raises(InvalidLinkError, match=r"is on EU1 \(datadoghq\.eu\), but this client uses US1"):
            parse_link(ends[0], "BLOCKS", ends[1], site=Site.US1)
        assert isinstance(parse_link(ends[0], "BLOCKS", ends[1], site=Site.EU1), LinkReference)

    def test_an_entity_that_the_api_does_not_know(self) -> None:
        """An entity whose type the API does not know is refused before a lookup."""
        with pytest.raises(InvalidLinkError, match="unknown entity type 'WIDGET'"):
            parse_link(Entity(A, "WIDGET"), "BLOCKS", B)


class TestValues:
    @given(references, relationships, references)
    def test_a_value_survives_pickle_and_copy(
        self, parent: Reference, relationship: Relationship, child: Reference
    ) -> None:
        """A link to create can be pickled and copied before its keys are looked up."""
        for value in (parent, LinkReference(parent, relationship, child)):
            for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
                assert again == value
                assert hash(again) == hash(value)

    def test_a_key_reads_as_itself(self) -> None:
        """The ``str`` of a key is the key in upper case."""
        assert str(CaseKey("shop-1")) == "SHOP-1"
