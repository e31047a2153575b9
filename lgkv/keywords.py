"""The keyword index: the words of items, and which items they say best.

Words are those of Unicode's default word boundaries (UAX #29), in compatible composed form
(NFKC) and case-folded. An item's words are one document, whatever fields they come from.
The score is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009)
over the items that are searched: what lies outside a prefix has no part in the scores.
"""

from __future__ import annotations

import functools
import math
import struct
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import regex

from lgkv.errors import CorruptionError, InvalidInputError
from lgkv.keys import decode_text, encode_text, pack_bytes, pack_uint
from lgkv.layout import Kind, Table, decode_plain, encode_fields
from lgkv.snapshot import Snapshot
from lgkv.writer import Batch

__all__ = ["K1", "B", "KeywordChanges", "Words", "best_by_words", "count_words", "fuse", "words_of"]

K1: Final = 1.2
"""How soon more of the same word counts for less."""
B: Final = 0.75
"""How much a long text's words count for less, from 0 to 1."""
FUSION_RANK: Final = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009)."""
MANY_NODES: Final = 64
"""With more namespaces than this a word's postings are read in one go, whoever's they are."""

Words = Mapping[str, int]
"""How often an item says each of its words."""

_WORD: Final = regex.compile(r"\b\w.*?\b", regex.WORD | regex.DOTALL)
_POSTING: Final = struct.Struct("<II")
_COUNTS: Final = struct.Struct("<QQ")


# --- words ---------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """Return the words of a text, as they stand in the index."""
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return found


def count_words(texts: str | Sequence[str]) -> Words:
    """Return how often an item with these texts says each word.

    Raises:
        InvalidInputError: It is neither a str nor a list of them.
    """
    several = [texts] if isinstance(texts, str) else texts
    if not isinstance(several, (list, tuple)) or not all(isinstance(one, str) for one in several):
        raise InvalidInputError(f"a text to search is a str or a list of them, not {texts!r}")
    return Counter(word for text in several for word in words_of(text))


# --- writing -------------------------------------------------------------------------------


class KeywordChanges:
    """What one change does to the words of items; `save` writes the counts of namespaces."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._counts: dict[int, list[int]] = {}
        self._read_as: dict[int, tuple[int, ...]] = {}

    def put(self, node: int, suffix: bytes, words: Words) -> None:
        """Index the item at `suffix` by `words`, none or more, in place of those that it had."""
        counts = self._counts_of(node)
        if not words and not counts[0]:
            return
        old = self._read(suffix)
        length = sum(words.values())
        for word in old.keys() - words.keys():
            self._batch.delete(Table.INDEX, _posting_key(word, suffix))
        said = sorted(words.items())
        keys = [_posting_key(word, suffix) for word, _ in said]
        self._batch.set_all(Table.INDEX, keys, [_POSTING.pack(count, length) for _, count in said])
        if words:
            body = encode_fields({encode_text(word): count for word, count in words.items()})
            self._batch.put(Table.MEMORY, _words_key(suffix), body)
        elif old:
            self._batch.delete(Table.MEMORY, _words_key(suffix))
        counts[0] += bool(words) - bool(old)
        counts[1] += length - sum(old.values())

    def _read(self, suffix: bytes) -> Words:
        key = _words_key(suffix)
        body = self._batch.get(Table.MEMORY, key)
        if body is None:
            return {}
        try:
            fields = decode_plain(body)
            return {decode_text(word): int(count) for word, count in fields.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise CorruptionError(Table.MEMORY.label, key, f"damaged words: {error!r}") from None

    def _counts_of(self, node: int) -> list[int]:
        counts = self._counts.get(node)
        if counts is None:
            counts = self._counts[node] = list(read_counts(self._batch, node))
            self._read_as[node] = tuple(counts)
        return counts

    def save(self) -> None:
        """Write the counts."""
        for node, (items, length) in self._counts.items():
            if (items, length) == self._read_as[node]:
                continue
            if items < 0 or length < 0:
                raise CorruptionError(
                    Table.MEMORY.label, _counts_key(node), "the counts are too small"
                )
            if items:
                self._batch.set(Table.MEMORY, _counts_key(node), _COUNTS.pack(items, length))
            else:
                self._batch.delete(Table.MEMORY, _counts_key(node))


# --- reading -------------------------------------------------------------------------------


def read_counts(snapshot: Snapshot, node: int) -> tuple[int, int]:
    """Return how many items of a node have words, and how many words those are."""
    key = _counts_key(node)
    body = snapshot.get(Table.MEMORY, key)
    if body is None:
        return 0, 0
    if len(body) != _COUNTS.size:
        raise CorruptionError(Table.MEMORY.label, key, "the counts do not have their size")
    items, length = _COUNTS.unpack(body)
    if items >> 63 or length >> 63:
        raise CorruptionError(Table.MEMORY.label, key, "the counts cannot be so large")
    return items, length


def best_by_words(snapshot: Snapshot, nodes: Collection[int], query: str) -> dict[bytes, float]:
    """Return the BM25 score of every item of `nodes` that says a word of `query`, by suffix."""
    counts = [read_counts(snapshot, node) for node in nodes]
    items, length = (sum(each) for each in zip((0, 0), *counts, strict=True))
    if not items or not length:
        return {}
    mean = length / items
    scores: dict[bytes, float] = {}
    for word in dict.fromkeys(words_of(query)):
        postings = _postings(snapshot, nodes, word)
        weight = math.log(1 + (items - len(postings) + 0.5) / (len(postings) + 0.5))
        for suffix, count, words in postings:
            share = count * (K1 + 1) / (count + K1 * (1 - B + B * words / mean))
            scores[suffix] = scores.get(suffix, 0.0) + weight * share
    return scores


def _postings(
    snapshot: Snapshot, nodes: Collection[int], word: str
) -> list[tuple[bytes, int, int]]:
    """Return the items that say `word`: suffix, how often, of how many words in all."""
    beginning = _posting_key(word, b"")
    wanted = [pack_uint(node) for node in nodes]
    found: list[tuple[bytes, int, int]] = []
    if len(wanted) <= MANY_NODES:
        prefixes = [beginning + node for node in wanted]
        among = None
    else:
        prefixes, among = [beginning], frozenset(wanted)
    for prefix in prefixes:
        for key, body in snapshot.scan(Table.INDEX, prefix):
            suffix = key[len(beginning) :]
            if among is not None and (not suffix or suffix[: 1 + suffix[0]] not in among):
                continue
            if len(body) != _POSTING.size:
                raise CorruptionError(Table.INDEX.label, key, "the posting does not have its size")
            found.append((suffix, *_POSTING.unpack(body)))
    return found


def fuse(ranks: Sequence[Sequence[bytes]]) -> dict[bytes, float]:
    """Return the score of everything in several rankings, by reciprocal rank fusion.

    What a ranking has at place n, from 1 on, gets 1 / (60 + n) from it.
    """
    scores: dict[bytes, float] = {}
    for ranking in ranks:
        for place, each in enumerate(ranking, 1):
            scores[each] = scores.get(each, 0.0) + 1 / (FUSION_RANK + place)
    return scores


# --- keys ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _word_part(word: str) -> bytes:
    return bytes((Kind.POSTING,)) + pack_bytes(encode_text(word))


def _posting_key(word: str, suffix: bytes) -> bytes:
    return _word_part(word) + suffix


def _words_key(suffix: bytes) -> bytes:
    return bytes((Kind.TERMS,)) + suffix


def _counts_key(node: int) -> bytes:
    return bytes((Kind.TERM_COUNTS,)) + pack_uint(node)
