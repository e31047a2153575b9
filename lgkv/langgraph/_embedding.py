"""Texts of items as vectors: what a store's `index` configuration asks for.

Each text of a batch is embedded once, documents by `embed_documents` and queries by
`embed_query`, before any transaction; what comes back is checked before it is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp, ensure_embeddings, get_text_at_path, tokenize_path

from lgkv.errors import DimensionMismatchError, InvalidInputError
from lgkv.vectors import IndexConfig, check_rows, check_vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Embedded", "TextIndex", "vector_config"]

WHOLE_VALUE = "$"
MODES: Final = ("vector", "keyword", "hybrid")


@dataclass(slots=True)
class Embedded:
    """The vectors of one batch's texts: `rows` has those of documents, by their numbers."""

    documents: dict[str, int] = field(default_factory=dict)
    rows: NDArray[np.float32] | None = None
    queries: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class TextIndex:
    """Which fields of an item are indexed, by which words or embedded by what.

    `mode` is "vector", "keyword" or "hybrid"; by keyword nothing is embedded.

    Raises:
        InvalidInputError: The configuration is not one that this store can serve.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config: dict[str, Any] = dict(config)
        self.mode: str = config.get("mode") or MODES[0]
        if self.mode not in MODES:
            raise InvalidInputError(
                f"index['mode'] is {self.mode!r}: use 'vector', 'keyword' or 'hybrid'"
            )
        self.dims = _dims(config.get("dims"))
        self.embeddings: Embeddings | None = None
        if self.embeds:
            if config.get("embed") is None:
                raise InvalidInputError(
                    "index['embed'] is missing: give a function, or LangChain Embeddings, "
                    "or search by words alone with index['mode'] = 'keyword'"
                )
            self.embeddings = ensure_embeddings(config["embed"])
        self.vectors = vector_config(config, self.embeddings)
        """How vectors are compared and stored, and of which model they are."""
        fields = config.get("fields") or [WHOLE_VALUE]
        self._fields = _tokenized(
            [fields] if isinstance(fields, str) else fields, "index['fields']"
        )
        names = tuple(path for path, tokens in self._fields if _is_name(path, tokens))
        self._names = names if len(set(names)) == len(self._fields) else None
        """The fields, if each is but a name."""
        self.config["__tokenized_fields"] = self._fields

    @property
    def embeds(self) -> bool:
        """Whether texts are embedded."""
        return self.mode != "keyword"

    @property
    def has_words(self) -> bool:
        """Whether items are found by their words."""
        return self.mode != "vector"

    def texts(self, op: PutOp) -> dict[str, str]:
        """Return the texts to embed for a put, by the path of their field.

        A path that gives several texts gets their numbers behind it.
        """
        if op.value is None or op.index is False:
            return {}
        fields = self._fields if op.index is None else _tokenized(op.index, "index")
        found: dict[str, str] = {}
        for path, tokens in fields:
            texts = _texts(op, path, tokens)
            if len(texts) == 1:
                found[path] = texts[0]
            else:
                found.update((f"{path}.{number}", text) for number, text in enumerate(texts))
        return found

    def add_texts(self, op: PutOp, found: list[str]) -> tuple[str, ...]:
        """Add the texts to embed for a put to `found`; return the path of each."""
        names, value = self._names, op.value
        if names is not None and op.index is None and type(value) is dict:
            texts = [text for text in map(value.get, names) if type(text) is str]
            if len(texts) == len(names):  # the same, without looking for more
                found += texts
                return names
        several = self.texts(op)
        found += several.values()
        return tuple(several)

    def texts_at(self, value: Mapping[str, Any], paths: Iterable[str]) -> dict[str, str]:
        """Return the texts of an item at the paths that `texts` gave, as far as they are there."""
        found: dict[str, str] = {}
        own = {path for path, _ in self._fields}
        for path in paths:
            base, _, number = path.rpartition(".")
            is_numbered = bool(base) and number.isdecimal() and path not in own
            several = _texts_of(value, base) if is_numbered else []
            if len(several) > 1:
                found.update((path, text) for text in several[int(number) : int(number) + 1])
            else:
                found.update((path, text) for text in _texts_of(value, path)[:1])
        return found

    # --- embedding ---

    def embed(self, documents: Sequence[str], queries: Sequence[str]) -> Embedded:
        """Return the vectors of texts, each of which is given once."""
        if self.embeddings is None:
            return Embedded()
        rows = self.embeddings.embed_documents(list(documents)) if documents else []
        asked = [self.embeddings.embed_query(query) for query in queries]
        return self._checked(documents, rows, queries, asked)

    async def aembed(self, documents: Sequence[str], queries: Sequence[str]) -> Embedded:
        """Return what `embed` does, all embedded at once."""
        if self.embeddings is None:
            return Embedded()
        asked = [self.embeddings.aembed_query(query) for query in queries]
        if documents:
            rows, *answers = await asyncio.gather(
                self.embeddings.aembed_documents(list(documents)), *asked
            )
        else:
            rows, answers = [], list(await asyncio.gather(*asked))
        return self._checked(documents, rows, queries, answers)

    def _checked(
        self, documents: Sequence[str], rows: Any, queries: Sequence[str], asked: Any
    ) -> Embedded:
        checked = self._rows(documents, rows, "documents")
        answers = self._rows(queries, asked, "queries")
        return Embedded(
            dict(zip(documents, count(), strict=False)),
            checked,
            {} if answers is None else dict(zip(queries, answers, strict=True)),
        )

    def _rows(self, texts: Sequence[str], rows: Any, what: str) -> NDArray[np.float32] | None:
        if not hasattr(rows, "__len__"):
            raise InvalidInputError(
                f"index['embed'] gave {rows!r:.100} for {what}: it must give a list of vectors"
            )
        if len(rows) != len(texts):
            raise InvalidInputError(
                f"index['embed'] gave {len(rows)} vectors for {len(texts)} {what}: "
                "it must give one each"
            )
        if not texts:
            return None
        checked = (
            check_vector(rows[0], f"the embedding of {what}")[None]
            if len(rows) == 1
            else check_rows(list(rows), f"the embedding of {what}")
        )
        if self.dims is not None and checked.shape[1] != self.dims:
            raise DimensionMismatchError(
                checked.shape[1], self.dims, "set index['dims'] to what index['embed'] gives"
            )
        return checked


def vector_config(config: Mapping[str, Any], embeddings: Embeddings | None) -> IndexConfig:
    """Return what the configuration says about vectors.

    Without a name for the model the embedding's own is taken, as LangChain's classes have it.
    """
    model = config.get("model")
    for name in ("model", "model_name", "model_id"):
        own = getattr(embeddings, name, None)
        if model is None and isinstance(own, str) and own:
            model = own
    return IndexConfig(config.get("distance_type"), config.get("storage"), model)


def _dims(dims: Any) -> int | None:
    if dims is None or (isinstance(dims, int) and not isinstance(dims, bool) and dims > 0):
        return dims
    raise InvalidInputError(
        f"index['dims'] is {dims!r}: give the length of the embedding's vectors"
    )


def _tokenized(paths: Any, what: str) -> list[tuple[str, str | list[str]]]:
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, str) for path in paths):
        raise InvalidInputError(
            f"{what} is {paths!r}: give a list of paths such as ['text', 'parts[*].text']"
        )
    return [(path, path if path == WHOLE_VALUE else tokenize_path(path)) for path in paths]


def _is_name(path: str, tokens: str | list[str]) -> bool:
    """Whether a path is the name of a field, and nothing is to be looked for behind it."""
    return tokens == [path] and path != "*" and path[0] not in "[{"


def _texts_of(value: Any, path: str) -> list[str]:
    return get_text_at_path(value, path if path == WHOLE_VALUE else tokenize_path(path))


def _texts(op: PutOp, path: str, tokens: str | list[str]) -> list[str]:
    try:
        return get_text_at_path(op.value, tokens)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"the field {path!r} of item {op.key!r} cannot be made into a text to embed: {error}; "
            "name the fields that hold text in index['fields'], or pass index=False"
        ) from error
