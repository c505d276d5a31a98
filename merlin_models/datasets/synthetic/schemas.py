"""The schemas that data can be generated for by name, with the columns and sizes of the data sets that they stand for."""

from __future__ import annotations

import functools
from collections.abc import Callable

from merlin_models.datasets.synthetic.columns import parse_columns
from merlin_models.schema import Schema

# Columns of the click logs from Alibaba: name, largest id in a small data set and in the real one, tags.
_ALICCP = """
user_id               1000  294736  user_id user
item_id               1000 3078306  item_id item
item_category          100    8581  item
item_shop              500  604498  item
item_brand             250  208179  item
item_intention          25   96258  item
user_shops             500  116741  user
user_profile            20      98  user
user_group              14      14  user
user_gender              3       3  user
user_age                 8       8  user
user_consumption_1       4       4  user
user_consumption_2       4       4  user
user_is_occupied         3       3  user
user_geography           5       5  user
user_intentions         50   33786  user
user_brands            250   58015  user
user_categories        300    6086  user
user_item_categories   300    7735  user_item
user_item_shops        500  384343  user_item
user_item_brands       250  142632  user_item
user_item_intentions    25   74317  user_item
position                 4       4  context
"""

_BOTH_TARGETS = """
click       binary
conversion  binary
"""

_TARGET_ENCODED = """
TE_user_id_click  float  0..1  user
TE_item_id_click  float  0..1  item
"""

_MUSIC_STREAMING = """
session_id       key         0..10000     session_id session
item_id          ids         0..10000     item_id item
item_category    ids         0..100       item
item_recency     float       0..1         item
item_genres      ids:genres  0..100   x4  item
user_id          ids         0..10000     user_id user
country          ids         0..100       user
user_age         integer     18..50       user
user_genres      ids:genres  0..100   x4  user
position         integer     1..100       bias
click            binary
play_percentage  regression  0..1
like             binary
"""

_SOCIAL = """
user_categories     ids          0..6086     user
user_intentions     ids          0..33786    user
user_profile        ids          0..98       user
user_group          ids          0..14       user
user_gender         ids          0..3        user
user_age            ids          0..8        user
user_consumption_1  ids          0..4        user
user_is_occupied    ids          0..3        user
user_geography      ids          0..5        user
user_id             ids          0..294736   user_id user
item_category       ids          0..8581     item
item_user_id        ids:user_id  0..294736   item
item_id             ids          0..3078306  item_id item
position            ids          0..4        context
click               binary
like                binary
comment             binary
share               binary
hide                binary
"""

_TESTING = """
user_id             ids    1..90          user_id user
event_timestamp     int                   time
item_age_days_norm  float  -2.875..-1.25  item
event_hour_sin      float  0..1           item
event_hour_cos      float  0..1           item
event_weekday_sin   float  0..1           item
event_weekday_cos   float  0..1           item
item_id             ids    1..100         item_id item
categories          ids    1..70    x1..4 item
user_country        ids    1..62          user
user_age            float  0..0.5         user
"""

_SEQUENCE_TESTING = """
test_user_id        ids    1..90                 user_id user
event_timestamp     int                          time
item_age_days_norm  float  -2.875..-1.25  x4..20  item sequence
event_hour_sin      float  0..1          x4..20  item sequence
event_hour_cos      float  0..1          x4..20  item sequence
event_weekday_sin   float  0..1          x4..20  item sequence
event_weekday_cos   float  0..1          x4..20  item sequence
item_id_seq         ids    1..100        x4..20  item_id item sequence
categories          ids    1..331        x4..20  item sequence
user_country        ids    1..62                 user
user_age            float  0..0.5                user
"""

_MOVIELENS_25M = """
movieId            ids32       0..56680          item_id item
userId             ids32       0..162541         user_id user
genres             ids32       0..20      x1..10 item
TE_movieId_rating  float       -2..2             item
userId_count       float       -2..5             user
rating             regression  0.5..5
rating_binary      binary
title              text
"""

_MOVIELENS_1M = """
userId              ids32       0..6040        user_id user
movieId             ids32       0..3684        item_id item
title               ids32       0..3684        item
genres              ids32       0..18    x1..6 item
gender              ids32       0..2           user
age                 ids32       0..7           user
occupation          ids32       0..21          user
zipcode             ids32       0..3439        user
TE_age_rating       float       1..5           user
TE_gender_rating    float       1..5           user
TE_occupation_rating  float     1..5           user
TE_zipcode_rating   float       1..5           user
TE_movieId_rating   float       1..5           item
TE_userId_rating    float       1..5           user
rating_binary       binary
rating              regression  1..5
"""

_MOVIELENS_1M_RAW_RATINGS = """
userId     ids  0..6041   user_id user
movieId    ids  0..3707   item_id item
rating     ids  0..6
timestamp  int            time
"""

_MOVIELENS_100K = """
movieId            ids32       1..1680  item_id item
userId             ids32       0..943   user_id user
genres             ids32       0..19  x1..6 item
TE_movieId_rating  float       1..5     item
userId_count       float       0..737   user
gender             ids32       0..2     user
zip_code           ids32       0..795   user
rating             regression  1..5
rating_binary      binary
age                ids32       0..8     user
title              text
"""

_TENREC_VIDEO = """
user_id         ids32       0..100000  user_id user
item_id         ids32       0..179280  item_id item
video_category  ids32       0..5       item
gender          ids32       0..5       user
age             ids32       0..10      user
click           binary
follow          binary
like            binary
share           binary
watching_times  regression  0..5
"""

# Largest ids of C1 to C26, of which none is above 10,000,000.
_CRITEO = (
    *(9_999_999, 29_427, 15_127, 7_295, 19_901, 3, 6_465, 1_310, 61, 9_999_999, 622_921, 219_556, 10, 2_209, 9_779),
    *(71, 4, 963, 14, 9_999_999, 4_384_510, 9_999_999, 290_588, 10_829, 95, 34),
)

# Clothes: the features of an item are numbered.
DRESSIPI_FEATURES = {
    **{3: 7, 5: 13, 7: 37, 17: 6, 24: 4, 45: 10, 47: 18, 50: 25, 55: 51, 56: 68, 58: 7, 61: 7, 63: 25, 65: 13},
    **{68: 50, 69: 31, 72: 27, 73: 4},
}
_DRESSIPI = """
session_id   ids  0..920831  session_id session
purchase_id  ids:item_id  0..23145  session
item_id      ids          0..23145  item_id item
timestamp    int             time
date         text
day          ids  0..485
"""

_BOOKING_RAW = """
booker_country  ids  0..5       user
utrip_id        ids  0..217686  session_id session
device_class    ids  0..3       session
affiliate_id    ids  0..3254    session
hotel_country   ids  0..195     item
city_id         ids  0..39901   item_id item
user_id         ids  0..200153  user_id user
"""

_BOOKING = """
utrip_id          text
user_id           ids           0..200154         user_id user
session_id        ids:utrip_id  0..217687         session_id session
device_class      ids           0..4              session
booker_country    ids           0..6       x4..48 sequence
hotel_country     ids           0..196     x4..48 sequence item
month             ids           0..13      x4..48 sequence
is_weekend        ids           0..3       x4..48 sequence
weekday_checkin   ids           0..8       x4..48 sequence
weekday_checkout  ids           0..8       x4..48 sequence
city_id           ids           0..39902   x4..48 sequence item_id item
"""

_TRANSACTIONS = """
sales_channel_id  ids    0..2
price             float  0..1
customer_id       ids    0..1362281  user_id user
article_id        ids    0..104547   item_id item
"""

_SIGIR_BROWSING = """
session_id_hash            ids    0..999  session_id session
event_type                 ids    0..2
product_action             ids    0..4
product_sku_hash           ids    0..999  item_id item
hashed_url                 ids    0..999
server_timestamp_epoch_ms  float  0..1    time
"""

_SIGIR_SKU = """
product_sku_hash    ids    0..999              item_id item
description_vector  float  -0.5..0.625  x50    item
category_hash       ids    0..174              item
price_bucket        float  0..10               item
"""


def _aliccp(size: int, kind: str, targets: str) -> str:
    """Columns of Alibaba's logs: `size` 0 for the small ones, 1 for the real ones."""
    lines = []
    for line in _ALICCP.strip().splitlines():
        name, *sizes, tags = line.split(maxsplit=3)
        lines.append(f"{name} {kind} 0..{sizes[size]} {tags}")
    return "\n".join(lines) + targets


def _criteo() -> str:
    numbers = [f"I{number} float 0..1" for number in range(1, 14)]
    ids = [f"C{number} ids 0..{largest}" for number, largest in enumerate(_CRITEO, 1)]
    return "\n".join(["label binary", *numbers, *ids])


def _dressipi() -> str:
    features = [f"f_{number} ids 0..{largest} item" for number, largest in DRESSIPI_FEATURES.items()]
    return "\n".join([_DRESSIPI, *features])


_BY_NAME: dict[str, str | Callable[[], str]] = {
    "aliccp": lambda: _aliccp(1, "ids32", _BOTH_TARGETS + _TARGET_ENCODED),
    "aliccp-raw": lambda: _aliccp(1, "ids32", "\nclick int 0..1\nconversion int 0..1"),
    "booking.com": _BOOKING,
    "booking.com-raw": _BOOKING_RAW,
    "criteo": _criteo,
    "dressipi2022-preprocessed": _dressipi,
    "e-commerce": lambda: _aliccp(0, "ids", _BOTH_TARGETS),
    "e-commerce-large": lambda: _aliccp(1, "ids", _BOTH_TARGETS),
    "movielens-100k": _MOVIELENS_100K,
    "movielens-1m": _MOVIELENS_1M,
    "movielens-1m-raw-ratings": _MOVIELENS_1M_RAW_RATINGS,
    "movielens-25m": _MOVIELENS_25M,
    "music-streaming": _MUSIC_STREAMING,
    "sequence-testing": _SEQUENCE_TESTING,
    "sigir-browsing": _SIGIR_BROWSING,
    "sigir-sku": _SIGIR_SKU,
    "social": _SOCIAL,
    "tenrec-video": _TENREC_VIDEO,
    "testing": _TESTING,
    "transactions": _TRANSACTIONS,
}
_ALIASES = {"ecommerce": "e-commerce", "ecommerce-large": "e-commerce-large", "booking": "booking.com"}

SCHEMA_NAMES = tuple(_BY_NAME)


def known_name(name: str) -> str | None:
    """The name of a schema that is meant, with underscores and older spellings replaced, or None."""
    name = name.replace("_", "-").lower()
    name = _ALIASES.get(name, name)
    return name if name in _BY_NAME else None


@functools.cache
def named_schema(name: str) -> Schema:
    """The schema of a name in :data:`SCHEMA_NAMES`, or of an older spelling such as ``music_streaming``.

    Args:
        name: as in ``generate_data``.

    Returns:
        A :class:`Schema`.

    Raises:
        ValueError: if there is none of that name.

    Example:
        >>> from merlin_models.datasets.synthetic import named_schema
        >>> named_schema("testing").column_names[:3]
        ['user_id', 'event_timestamp', 'item_age_days_norm']
    """
    known = known_name(name)
    if known is None:
        raise ValueError(f"name must be one of {', '.join(SCHEMA_NAMES)}. Received: {name!r}.")
    text = _BY_NAME[known]
    return parse_columns(text() if callable(text) else text)
