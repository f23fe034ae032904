"""A library that is searched for the answer to a question of several hops.

What is asked for, what tells it and what was read are known exactly, as citation-aware rewards
need it (CaRR: rubrics of single hops, each with the document that supports it).
"""

from __future__ import annotations

import json
import re
import sqlite3

from embodied.errors import UserError, check_range
from embodied.text_world import Turn

from .facts import Inquiry, make_inquiry

MOST_WORDS = 32
"""Of a query; what comes after them is not searched for."""
MOST_CITED = 32
DO = re.compile(r"^[ \t]*(search|open|answer)[ \t]*:[ \t]*(\S.*)$", re.IGNORECASE | re.MULTILINE)
CITES = re.compile(r"\[\s*cites?\s*:([^\[\]]*)\]", re.IGNORECASE)
WORD = re.compile(r"[a-z0-9]+")
OPENING = """Answer a question from the documents of a library.
Say one of these at a time, on a line of its own:
search: WORDS (lists the {results} documents that fit best)
open: TITLE (shows a document that a search has listed)
answer: ANSWER [cites: TITLE; TITLE] (a name or a year, and the documents that it rests on)
The first answer counts.
Question: {question}"""


class Library:
    """Some 56 documents; a question of `least_hops` to `most_hops` hops (2 to 4).

    "search: words" lists the `results` best documents, with how they begin; "open: title" shows
    one that was listed; "answer: text [cites: title; title]" ends the episode, and succeeds if it
    is the answer or an alias of it, however found. Subgoals: each document of the chain was read,
    and the answer is right; each gold action is needed for one of them. Told as JSON: "evidence"
    (titles of the chain), "cited" (titles as the answer has them), "read", "answer", and "rubrics"
    (the hops, each with its document).
    """

    max_turns = 20
    tells = ("evidence", "cited", "read", "answer", "rubrics")

    def __init__(self, least_hops: int = 2, most_hops: int = 4, results: int = 5) -> None:
        check_range("env", 2, 4, least_hops=least_hops, most_hops=most_hops)
        check_range("env", 1, 20, results=results)
        if least_hops > most_hops:
            raise UserError(f"env.least_hops={least_hops}: more than env.most_hops={most_hops}")
        self.hops, self.results = (int(least_hops), int(most_hops)), int(results)
        self._db: sqlite3.Connection | None = None
        self._inquiry = Inquiry({}, "", (), ())
        self._listed: dict[str, str] = {}  # titles as they are compared, and as they are
        self._read: list[str] = []
        self._cited: list[str] = []
        open_index({}).close()  # raises where there is no full-text search

    def reset(self, seed: int) -> Turn:
        self.close()
        self._inquiry = make_inquiry(seed, *self.hops)
        self._db = open_index(self._inquiry.documents)
        self._listed, self._read, self._cited = {}, [], []
        question = self._inquiry.question
        return self._turn(OPENING.format(results=self.results, question=question), True)

    def step(self, action: str) -> Turn:
        assert self._db is not None, "reset it first"
        found = DO.search(action)
        if not found:
            return self._turn("Say search: WORDS, open: TITLE or answer: ANSWER.", False)
        do, what = found[1].lower(), found[2].strip()
        if do == "search":
            return self._search(self._db, what)
        return self._open(what) if do == "open" else self._answer(what)

    def gold(self) -> list[str]:
        """Search and open along the chain, then the answer with its citations."""
        assert self._db is not None, "reset it first"
        said: list[str] = []
        listed: set[str] = set()
        for hop in self._inquiry.chain:
            if hop.document not in listed:
                for query in (hop.entity, hop.document):
                    titles = find(self._db, query, self.results)
                    if hop.document in titles:
                        break
                listed.update(titles)
                said.append(f"search: {query}")
            said.append(f"open: {hop.document}")
        cites = "; ".join(hop.document for hop in self._inquiry.chain)
        return [*said, f"answer: {self._inquiry.answers[0]} [cites: {cites}]"]

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _search(self, db: sqlite3.Connection, query: str) -> Turn:
        titles = find(db, query, self.results)
        if not titles:
            return self._turn("No document has any of these words.", False)
        self._listed |= {_plain(title): title for title in titles}
        documents = self._inquiry.documents
        begins = [f"{k + 1}. {t}: {documents[t].split('. ')[0]}." for k, t in enumerate(titles)]
        return self._turn("\n".join(begins), True)

    def _open(self, title: str) -> Turn:
        known = self._listed.get(_plain(title))
        if known is None:
            return self._turn("No document of that title has been listed.", False)
        if known not in self._read:
            self._read.append(known)
        return self._turn(f"{known}\n{self._inquiry.documents[known]}", True)

    def _answer(self, said: str) -> Turn:
        answer, cited = read_answer(said)
        if not answer:
            return self._turn("That answer has no letters or digits.", False)
        known = {_plain(title): title for title in self._inquiry.documents}
        self._cited = list(dict.fromkeys(known.get(_plain(title), title) for title in cited))
        right = answer in {read_answer(alias)[0] for alias in self._inquiry.answers}
        return self._turn("The answer is noted.", True, True, right)

    def _turn(self, text: str, valid: bool, over: bool = False, success: bool = False) -> Turn:
        chain = self._inquiry.chain
        told = {
            "evidence": [hop.document for hop in chain],
            "cited": self._cited,
            "read": self._read,
            "answer": self._inquiry.answers[0],
            "rubrics": [vars(hop) for hop in chain],
        }
        reached = sum(hop.document in self._read for hop in chain) + success
        said = {name: json.dumps(value) for name, value in told.items()}
        return Turn(text, over, success, valid, float(success), reached, len(chain) + 1, said)


def open_index(documents: dict[str, str]) -> sqlite3.Connection:
    """The documents, indexed in memory. Raises `UserError` where SQLite has no fts5."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        db.execute("CREATE VIRTUAL TABLE library USING fts5(title, body)")
    except sqlite3.DatabaseError as error:
        db.close()
        raise UserError(f"env=library needs an SQLite with full-text search: {error}") from None
    db.execute("BEGIN")
    db.executemany("INSERT INTO library VALUES (?, ?)", documents.items())
    db.execute("COMMIT")
    return db


def find(db: sqlite3.Connection, query: str, most: int) -> list[str]:
    """The titles that fit a query best: any of its words, rare ones more, in titles twice."""
    words = WORD.findall(query.lower())[:MOST_WORDS]
    if not words:
        return []
    found = db.execute(
        "SELECT title FROM library WHERE library MATCH ? ORDER BY bm25(library, 2, 1), rowid"
        " LIMIT ?",
        (" OR ".join(f'"{word}"' for word in dict.fromkeys(words)), most),
    )
    return [title for (title,) in found]


def read_answer(said: str) -> tuple[str, list[str]]:
    """An answer as it is compared ("" where it has nothing), and the titles that it cites."""
    cited = [title.strip() for part in CITES.findall(said) for title in part.split(";")]
    answer = " ".join(WORD.findall(CITES.sub(" ", said).lower()))
    return answer.removeprefix("the "), [title for title in cited if title][:MOST_CITED]


def _plain(title: str) -> str:
    return " ".join(WORD.findall(title.lower()))
