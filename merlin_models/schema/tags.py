"""Tags: what a column means to a recommender."""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Tags(str, enum.Enum):
    """The tags that the library itself understands. A tag equals its string; any other string is a valid tag too.

    Example:
        >>> import merlin_models.tf as ml
        >>> ml.Tags.ITEM_ID == "item_id"
        True
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=["item_id", "mine"])
        >>> movie.has_tag(ml.Tags.ITEM), movie.has_tag("mine")
        (True, True)
    """

    CATEGORICAL = "categorical"
    CONTINUOUS = "continuous"
    LIST = "list"
    SEQUENCE = "sequence"
    TEXT = "text"
    TOKENIZED = "tokenized"
    TIME = "time"
    EMBEDDING = "embedding"
    ID = "id"
    USER = "user"
    ITEM = "item"
    SESSION = "session"
    CONTEXT = "context"
    TARGET = "target"
    TARGETS = "target"  # the older name
    REGRESSION = "regression"
    CLASSIFICATION = "classification"
    BINARY = "binary"
    MULTI_CLASS = "multi_class"
    USER_ID = "user_id"
    ITEM_ID = "item_id"
    SESSION_ID = "session_id"
    TEXT_TOKENIZED = "text_tokenized"
    BINARY_CLASSIFICATION = "binary_classification"
    MULTI_CLASS_CLASSIFICATION = "multi_class_classification"

    def __str__(self) -> str:
        return self.value


Tag = Tags

# A compound tag and its parts mean the same.
COMPOUNDS: dict[str, frozenset[str]] = {
    "user_id": frozenset({"user", "id"}),
    "item_id": frozenset({"item", "id"}),
    "session_id": frozenset({"session", "id"}),
    "text_tokenized": frozenset({"text", "tokenized"}),
    "binary_classification": frozenset({"binary", "classification"}),
    "multi_class_classification": frozenset({"multi_class", "classification"}),
}
_ALIASES = {"targets": "target"}
_CONFLICTS = [("categorical", "continuous"), ("categorical", "embedding"), ("id", "continuous"), ("id", "embedding")]


def normalize(tag: str) -> str:
    """The lower-case string of a tag, with older names replaced."""
    if not isinstance(tag, str):
        raise TypeError(f"A tag must be a string or a member of Tags. Received: {tag!r}")
    text = str(tag.value if isinstance(tag, enum.Enum) else tag).lower()
    return _ALIASES.get(text, text)


def normalize_all(tags: str | Iterable[str] | None) -> tuple[str, ...]:
    """Normalized tags without repeats, in their order.

    Raises:
        ValueError: if tags contradict each other, e.g. categorical and continuous.
    """
    tags = () if tags is None else (tags,) if isinstance(tags, str) else tags
    found = tuple(dict.fromkeys(normalize(tag) for tag in tags))
    meaning = expand(found)
    for one, other in _CONFLICTS:
        if one in meaning and other in meaning:
            raise ValueError(f"Tags must not contain both '{one}' and '{other}'. Received: {list(found)}")
    return found


def expand(tags: Iterable[str]) -> frozenset[str]:
    """All tags that the given ones imply: the parts of compounds, and the compounds of parts."""
    found = set(tags)
    for compound, parts in COMPOUNDS.items():
        if compound in found:
            found |= parts
    for compound, parts in COMPOUNDS.items():
        if parts <= found:
            found.add(compound)
    return frozenset(found)
