"""Facts made of a number, told in short documents, and a question that chains some of them.

Names are alike on purpose: people share names with each other and with companies, and documents
name things that are not asked for. Every relation has one value, so a chain has one answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FORENAMES = (
    "Ada Alda Anton Bela Berta Carl Clara Dario Delia Edda Egon Fritz Hanna Ivo Jana".split()
)
SURNAMES = "Arden Ardell Brant Brandt Corvin Corwin Dahl Dahlen Farro Farrow Halden Holden".split()
PLACES = "Torvik Torvald Elmar Elmond Sorrin Sorrel Vasten Vestan Kirnov Karnow Oldek Aldek".split()
RIVERS = "Orle Irle Sava Suva Tamsel Temsel Wend Wand".split()
REGIONS = "Northmark Nordmark Lowfell Lowfield Highmoor Hightor".split()
FIRMS = ("Works", "Mills", "Brothers", "Foundry", "Instruments")
MAKES = "Ardent Arden Boreal Comet Halcyon Meteor Orion Polar".split()
THINGS = "lamp lantern kettle loom pump clock compass stove press plough".split()
BOOKS = "Silent Salt Winter Glass Iron Paper Hollow Amber".split()
NOUNS = "Harbour River Orchard Tower Garden Bridge Winter Mirror".split()

TITLES = {
    "city": ("{}", "A walk through {}", "{}, town and people"),
    "person": ("{}", "The life of {}", "{}, a portrait"),
    "company": ("{}", "A history of {}", "{} and its workshops"),
    "invention": ("The {}", "How the {} came about", "Old machines: the {}"),
    "book": ("{} (novel)", "On reading {}", "{}, a book review"),
}
INTROS = {
    "city": ("{} is a town with an old market square.", "Travellers know {} for its steep roofs."),
    "person": ("{} is remembered to this day.", "Few papers of {} are left, but some are."),
    "company": ("{} employed half a street in its best days.", "{} is a name on many old tools."),
    "invention": ("The {} was found in many homes.", "Collectors pay well for the {}."),
    "book": ("{} is a novel in three parts.", "Many readers own a worn copy of {}."),
}
PADDING = (
    "The archive has a photograph of that time.",
    "An exhibition told of this in many towns.",
    "Older accounts differ in small things.",
    "A street has had that name since.",
    "More is told by the guides of the museum.",
)
SENTENCES = {
    "region": ("{s} lies in the region of {v}.", "The region around {s} is called {v}."),
    "river": ("The river {v} runs through {s}.", "{s} was built on both banks of the {v}."),
    "birthplace": ("{s} was born in {v}.", "The family of {s} lived in {v} when the child came."),
    "born": ("The year of birth of {s} is {v}.", "A register has the birth of {s} under {v}."),
    "teacher": ("{s} was taught by {v}.", "The teacher of {s} was {v}."),
    "founder": ("{s} was founded by {v}.", "It was {v} who founded {s}."),
    "seat": ("{s} had its seat in {v}.", "The main office of {s} stood in {v}."),
    "founded": ("The founding of {s} was in {v}.", "{s} opened its doors in {v}."),
    "maker": ("The {s} was made by {v}.", "The company that made the {s} was {v}."),
    "inventor": ("The {s} was invented by {v}.", "The inventor of the {s} is {v}."),
    "launched": ("The first {s} was sold in {v}.", "In {v} the {s} came to the shops."),
    "author": ("{s} was written by {v}.", "The author of {s} is {v}."),
    "setting": ("{s} is set in the town of {v}.", "The story of {s} takes place in {v}."),
    "published": ("{s} was printed first in {v}.", "In {v} {s} was published."),
}
INNER = {
    "birthplace": "the town where {} was born",
    "teacher": "the person who taught {}",
    "founder": "the founder of {}",
    "seat": "the town where {} had its seat",
    "maker": "the company that made {}",
    "inventor": "the inventor of {}",
    "author": "the author of {}",
    "setting": "the town in which {} is set",
}
OUTER = {  # of the relations that can come last in a chain of two hops or more
    "region": "In which region does {} lie?",
    "river": "Which river runs through {}?",
    "birthplace": "In which town was {} born?",
    "born": "In which year was {} born?",
    "teacher": "Who taught {}?",
    "founder": "Who founded {}?",
    "seat": "In which town did {} have its seat?",
    "founded": "In which year was {} founded?",
}


@dataclass
class Entity:
    name: str
    kind: str
    facts: dict[str, str] = field(default_factory=dict)
    title: str = ""

    def called(self) -> str:
        """How a question names it."""
        return f"the {self.name}" if self.kind == "invention" else self.name


@dataclass(frozen=True)
class Hop:
    """A fact, and the title of the document that tells it."""

    entity: str
    relation: str
    value: str
    document: str


@dataclass(frozen=True)
class Inquiry:
    """A question, the hops to its answer, the answer and its aliases; documents by title."""

    documents: dict[str, str]
    question: str
    chain: tuple[Hop, ...]
    answers: tuple[str, ...]


def make_inquiry(seed: int, least_hops: int, most_hops: int) -> Inquiry:
    """The documents and the question of a task, of so many hops (2 to 4)."""
    drawn = random.Random(seed)
    entities = _make_entities(drawn)
    documents = {entity.title: _document(drawn, entity, entities) for entity in entities.values()}
    order = list(documents)
    drawn.shuffle(order)
    hops = drawn.randint(least_hops, most_hops)
    start = drawn.choice([e for e in entities.values() if e.kind in ("invention", "book")])
    chains = _chains(entities, start, hops)
    # the last relation first: else most answers would be those that most entities have
    last = drawn.choice(sorted({chain[-1].relation for chain in chains}))
    chain = drawn.choice([chain for chain in chains if chain[-1].relation == last])
    answers = _aliases(entities, chain[-1])
    return Inquiry({t: documents[t] for t in order}, _question(start, chain), chain, answers)


def _make_entities(drawn: random.Random) -> dict[str, Entity]:
    """By name; no two of a name, whatever they are."""
    found: dict[str, Entity] = {}

    def add(kind: str, name: str) -> Entity:
        found[name] = Entity(name, kind)
        return found[name]

    cities = [add("city", name) for name in drawn.sample(PLACES, 10)]
    for city in cities:
        city.facts = {"region": drawn.choice(REGIONS), "river": drawn.choice(RIVERS)}
    people: list[Entity] = []
    for name in _pairs(drawn, drawn.sample(FORENAMES, 6), drawn.sample(SURNAMES, 6), 18):
        person = add("person", name)
        born = 1700 + 6 * len(people) + drawn.randint(0, 5)
        person.facts = {"birthplace": drawn.choice(cities).name, "born": str(born)}
        if people:
            person.facts["teacher"] = drawn.choice(people[-8:]).name
        people.append(person)
    companies = [add("company", name) for name in _pairs(drawn, SURNAMES[:10], FIRMS, 9)]
    makers = people[4:]  # all of them had a teacher
    for company in companies:
        company.facts = {"founder": drawn.choice(makers).name, "seat": drawn.choice(cities).name}
        company.facts["founded"] = str(drawn.randint(1820, 1850))
    for name in _pairs(drawn, drawn.sample(MAKES, 4), drawn.sample(THINGS, 4), 10):
        maker, inventor = drawn.choice(companies).name, drawn.choice(makers).name
        launched = str(drawn.randint(1851, 1880))
        facts = {"maker": maker, "inventor": inventor, "launched": launched}
        add("invention", name).facts = facts
    for name in _pairs(drawn, drawn.sample(BOOKS, 4), drawn.sample(NOUNS, 4), 9):
        author, setting = drawn.choice(makers).name, drawn.choice(cities).name
        published = str(drawn.randint(1830, 1880))
        facts = {"author": author, "setting": setting, "published": published}
        add("book", f"The {name}").facts = facts
    for entity in found.values():
        entity.title = drawn.choice(TITLES[entity.kind]).format(entity.name)
    return found


def _pairs(
    drawn: random.Random, first: list[str], second: list[str] | tuple[str, ...], count: int
) -> list[str]:
    return drawn.sample([f"{a} {b}" for a in first for b in second], count)


def _document(drawn: random.Random, entity: Entity, entities: dict[str, Entity]) -> str:
    """An introduction that tells no fact, then the facts among sentences that do not matter."""
    said = [
        _capital(drawn.choice(SENTENCES[relation]).format(s=entity.name, v=value))
        for relation, value in entity.facts.items()
    ]
    other = drawn.choice([e for e in entities.values() if e.kind == entity.kind and e != entity])
    said += drawn.sample(PADDING, 1)
    said.append(f"This is not about {other.called()}.")
    drawn.shuffle(said)
    return " ".join([drawn.choice(INTROS[entity.kind]).format(entity.name), *said])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _chains(entities: dict[str, Entity], start: Entity, hops: int) -> list[tuple[Hop, ...]]:
    """All ways of so many hops from an entity, none of which comes to a document twice."""
    found: list[tuple[Hop, ...]] = []

    def walk(entity: Entity, before: tuple[Hop, ...]) -> None:
        for relation, value in entity.facts.items():
            chain = (*before, Hop(entity.name, relation, value, entity.title))
            if len(chain) == hops:
                found.append(chain)
            elif value in entities and all(value != hop.entity for hop in chain):
                walk(entities[value], chain)

    walk(start, ())
    return found


def _question(start: Entity, chain: tuple[Hop, ...]) -> str:
    phrase = start.called()
    for hop in chain[:-1]:
        phrase = INNER[hop.relation].format(phrase)
    return OUTER[chain[-1].relation].format(phrase)


def _aliases(entities: dict[str, Entity], last: Hop) -> tuple[str, ...]:
    """The answer, then other ways to say it that mean nothing else."""
    value = last.value
    if last.relation == "river":
        return value, f"river {value}", f"{value} river"
    if last.relation == "region":
        return value, f"region of {value}", f"{value} region"
    kind = entities[value].kind if value in entities else ""
    if kind == "city":
        return value, f"town of {value}"
    if kind == "person":
        first, last_name = value.split()
        alike = [e for e in entities.values() if e.name[0] == value[0]
                 and e.name.split()[-1] == last_name]  # fmt: skip
        if len(alike) == 1:
            return value, f"{first[0]} {last_name}", f"{last_name} {first}"
        return value, f"{last_name} {first}"
    return (value,)
