"""Schema, ColumnSchema and Tags: by hand, files, round trips, selection, wrong input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merlin_models.schema import ColumnSchema, Domain, Schema, Tag, Tags

# In the form that NVTabular of 2022 wrote: metadata as a serialised Struct in octal escapes.
MOVIES = r"""
feature {
  name: "movieId"
  type: INT
  int_domain { name: "movieId" min: 0 max: 56690 is_categorical: true }
  annotation {
    tag: "item_id" tag: "item" tag: "categorical"
    extra_metadata {
      type_url: "type.googleapis.com/google.protobuf.Struct"
      value: "\n\021\n\013num_buckets\022\002\010\000\n\033\n\016freq_threshold\022\t\021\000\000\000\000\000\000\000\000\n2\n\010cat_path\022&\032$.//categories/unique.movieId.parquet\nG\n\017embedding_sizes\0224*2\n\030\n\013cardinality\022\t\021\000\000\000\000@\256\353@\n\026\n\tdimension\022\t\021\000\000\000\000\000\000\200@"
    }
  }
}
feature {
  name: "userId"
  type: INT
  int_domain { name: "userId" min: 0 max: 162542 is_categorical: true }
  annotation { tag: "id" tag: "user" tag: "categorical" }
}
feature {
  name: "genres"
  type: INT
  value_count { min: 0 max: 0 }
  int_domain { name: "genres" max: 20 is_categorical: true }
  some_field_of_the_future { x: 1 }
  annotation {
    tag: "item" tag: "categorical"
    extra_metadata {
      [type.googleapis.com/google.protobuf.Struct] {
        fields { key: "is_list" value { bool_value: true } }
        fields { key: "dtype_item_size" value { number_value: 32 } }
      }
    }
  }
}
feature { name: "rating" type: FLOAT float_domain { min: 0.5 max: 5 } annotation { tag: "regression" tag: "targets" } }
feature { name: "title" type: BYTES annotation { tag: "user_item" } }
"""


@pytest.fixture
def movies() -> Schema:
    return Schema.from_proto_text(MOVIES)


def test_reads_what_the_tutorial_reads(movies, tmp_path):
    path = tmp_path / "schema.pbtxt"
    path.write_text(MOVIES)
    assert Schema().from_proto_text(str(path)) == movies == Schema().from_proto_text(path) == Schema.load(tmp_path)
    assert movies.column_names == ["movieId", "userId", "genres", "rating", "title"]
    kept = movies.remove_by_name(["rating", "title", "TE_movieId_rating", "userId_count"])
    assert kept.column_names == ["movieId", "userId", "genres"]


def test_decodes_both_forms_of_metadata(movies):
    properties = movies["movieId"].properties
    assert properties["num_buckets"] is None
    assert properties["freq_threshold"] == 0
    assert properties["cat_path"] == ".//categories/unique.movieId.parquet"
    assert properties["embedding_sizes"] == {"cardinality": 56690, "dimension": 512}
    assert movies["genres"].properties == {"is_list": True, "dtype_item_size": 32}
    assert movies["genres"].dtype == np.int32


def test_columns(movies):
    movie, genres, rating = movies["movieId"], movies["genres"], movies["rating"]
    assert movie.int_domain == Domain(0, 56690, "movieId", True)
    assert movie.cardinality == 56691
    assert (movie.is_list, genres.is_list, genres.is_ragged) == (False, True, True)
    assert movie.dtype == np.int64
    assert rating.dtype == np.float32
    assert rating.float_domain == Domain(0.5, 5.0)
    assert movies.item_id_column_name == "movieId"
    assert movies.user_id_column_name == "userId"
    assert movies.categorical_cardinalities() == {"movieId": 56691, "userId": 162543, "genres": 21}
    assert movies.categorical_domains()["genres"] == "genres"
    assert movies.feature_dtypes["title"] == np.dtype(object)
    with pytest.raises(ValueError, match="Column 'rating' must have an int_domain"):
        _ = rating.cardinality


def test_tags_are_strings_and_compounds_are_their_parts(movies):
    assert Tags.CATEGORICAL == "categorical"
    assert Tag is Tags
    assert Tags.TARGETS is Tags.TARGET
    names = lambda *tags, **kw: movies.select_by_tag(list(tags), **kw).column_names  # noqa: E731
    assert names(Tags.USER_ID) == ["userId"]  # carries id and user
    assert names("ITEM_ID") == ["movieId"]
    assert names(Tags.USER, Tags.ITEM) == ["movieId", "userId", "genres"]
    assert names(Tags.ITEM, Tags.ID, match="all") == ["movieId"]
    assert names("user_item") == ["title"]  # free-form
    assert names(Tags.TARGET) == ["rating"]
    assert movies.remove_by_tag(Tags.TARGETS).column_names == ["movieId", "userId", "genres", "title"]
    assert movies.select_by_tag(lambda tags: "regression" in tags).column_names == ["rating"]


def test_select_remove_split(movies):
    assert movies.select_by_name(["title", "movieId", "nothing"]).column_names == ["movieId", "title"]
    assert movies.select_by_name(lambda n: n.endswith("Id")).column_names == ["movieId", "userId"]
    assert movies.remove_by_name("title").column_names == ["movieId", "userId", "genres", "rating"]
    assert movies.select_by_type(np.float32).column_names == ["rating"]
    assert movies.remove_by_type([np.int64, np.int32]).column_names == ["rating", "title"]
    for split, what in (
        (movies.split_by_name, "title"),
        (movies.split_by_tag, Tags.ITEM),
        (movies.split_by_type, np.int64),
    ):
        one, other = split(what)
        assert sorted(one.column_names + other.column_names) == sorted(movies.column_names)
        assert 0 < len(one) < 5
    assert (movies - movies.select_by_name("title")) == movies.remove_by_name("title")
    assert movies.select_by_name("title") + movies.select_by_name("rating") == Schema(
        [movies["title"], movies["rating"]]
    )
    assert movies.filter_columns_from_dict({"title": 1, "other": 2}) == {"title": 1}
    assert len(movies) == 5
    assert "title" in movies
    assert [c.name for c in movies] == movies.column_names
    assert movies.first.name == "movieId"
    assert movies.map_column_schemas(lambda c: c.with_name(c.name + "_")).column_names[0] == "movieId_"
    assert movies.copy() == movies


def test_immutable(movies):
    before = movies.to_proto_text()
    movies.add("new")
    movies["movieId"].with_tags("x").with_properties({"a": 1}).with_dtype(np.int32).with_name("y")
    assert movies.to_proto_text() == before
    with pytest.raises(AttributeError):
        movies["movieId"].name = "other"
    assert len({movies, movies.copy(), Schema(["a"])}) == 2


def test_create():
    schema = Schema.create(
        item=ColumnSchema.create_categorical("x", 100, tags=["item_id"], value_count={"min": 1, "max": 5}, kind="a"),
        age=ColumnSchema.create_continuous("age", min_value=0, max_value=99),
        plain=np.int32,
        more={"dtype": np.float32, "tags": ["user"]},
    )
    assert schema.column_names == ["item", "age", "plain", "more"]
    assert schema["item"].cardinality == 101
    assert schema["item"].value_count == (1, 5)
    assert schema["item"].properties == {"kind": "a"}
    assert schema["age"].float_domain == Domain(0, 99, "age")
    assert schema["age"].has_tag(Tags.CONTINUOUS)
    assert schema["plain"].dtype == np.int32
    assert schema["more"].tags == ("user",)


def test_tags_based_on_properties(movies):
    schema = movies.with_tags_based_on_properties()
    assert schema["genres"].has_tag(Tags.LIST)
    assert schema["rating"].has_tag(Tags.CONTINUOUS)
    assert not schema["movieId"].has_tag(Tags.LIST)


NAMES = st.text("abcdefgh_1", min_size=1, max_size=8)
PROPERTIES = st.dictionaries(
    NAMES, st.recursive(st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-1e3, 1e3) | NAMES, st.lists)
)


@st.composite
def columns(draw, name):
    kind = draw(st.sampled_from(["int", "float", "none"]))
    low, high = sorted((draw(st.integers(0, 1000)), draw(st.integers(0, 1000))))
    value_count = draw(st.none() | st.tuples(st.integers(0, 3), st.integers(3, 9)))
    shape = draw(st.none() | st.lists(st.integers(1, 5), max_size=2)) if value_count is None else None
    domain = Domain(low, high, draw(st.none() | NAMES), kind == "int" and draw(st.booleans()))
    return ColumnSchema(
        name,
        dtype=draw(st.sampled_from([np.int8, np.int32, np.int64, np.float32, np.float64, np.bool_, object, None])),
        tags=tuple(draw(st.lists(st.sampled_from(["item", "user", "id", "list", "own"]), unique=True))),
        int_domain=domain if kind == "int" else None,
        float_domain=domain if kind == "float" else None,
        value_count=value_count,
        shape=shape,
        properties=draw(PROPERTIES),
    )


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_round_trip(data):
    names = data.draw(st.lists(NAMES, unique=True, max_size=5))
    schema = Schema([data.draw(columns(name)) for name in names])
    assert Schema.from_proto_text(schema.to_proto_text() + "\n") == schema
    assert Schema.from_json(schema.to_json()) == schema


def test_decimals_come_back(tmp_path):
    """Files have 4 bytes for them."""
    schema = Schema([ColumnSchema.create_continuous("price", min_value=0.1, max_value=99.9)])
    assert Schema.load(schema.save(tmp_path)) == Schema.from_json(schema.to_json()) == schema


def test_save_and_load(movies, tmp_path):
    assert movies.save(tmp_path / "folder") == tmp_path / "folder" / "schema.pbtxt"
    assert Schema.load(tmp_path / "folder") == movies
    assert Schema.load(movies.save(tmp_path / "own.pbtxt")) == movies


WRONG = [
    (lambda: Schema(["a", "a"]), ValueError, r"Names of columns must be unique. Received twice: \['a'\]"),
    (lambda: Schema([3]), TypeError, "columns must be ColumnSchema objects or names. Received: int"),
    (lambda: Schema(["a"])["b"], KeyError, "The schema has no column 'b'"),
    (lambda: Schema().first, ValueError, "empty schema"),
    (lambda: ColumnSchema(""), ValueError, "name must be a non-empty string"),
    (lambda: ColumnSchema("a", tags=("categorical", "continuous")), ValueError, "must not contain both 'categorical'"),
    (lambda: ColumnSchema("a", tags=("user_id", "continuous")), ValueError, "must not contain both 'id' and"),
    (lambda: ColumnSchema("a", tags=(3,)), TypeError, "A tag must be a string"),
    (lambda: ColumnSchema("a", int_domain=Domain(3, 2)), ValueError, "must have min <= max. Received: 3 and 2"),
    (lambda: ColumnSchema("a", shape=(2,), value_count=(1, 2)), ValueError, "a fixed shape or a value_count, not both"),
    (lambda: ColumnSchema("a").has_tag("b", match="most"), ValueError, "match must be 'any' or 'all'"),
    (lambda: ColumnSchema.create_continuous("a", min_value=1), ValueError, "must be given together"),
    (lambda: Schema.from_proto_text("feature { name: 3 }\n"), ValueError, "must be a tensorflow-metadata Schema"),
    (lambda: Schema.from_proto_text("/no/such/file.pbtxt"), FileNotFoundError, "file.pbtxt"),
    (lambda: Schema(["a"]) + Schema([ColumnSchema("a", dtype=int)]), ValueError, "must be equal to be added"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_two_item_ids_are_an_error():
    two = Schema([ColumnSchema("a", tags=("item_id",)), ColumnSchema("b", tags=("item", "id"))])
    with pytest.raises(ValueError, match=r"At most one column must have the tag 'item_id'. Received: \['a', 'b'\]"):
        _ = two.item_id_column_name


def test_old_import_name():
    import merlin_standard_lib
    from merlin_standard_lib.schema import Schema as OldSchema

    assert merlin_standard_lib.Schema is OldSchema is Schema
    assert merlin_standard_lib.Tag is Tags


def test_import_is_light(run_python):
    code = "import sys, merlin_models.schema; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    run_python(code)


def test_json_of_the_older_library():
    """Its extra metadata do not name their type."""
    text = """{"feature": [{"name": "genres", "type": "INT",
        "intDomain": {"name": "genres", "max": "18", "isCategorical": true},
        "annotation": {"tag": ["item"], "extraMetadata": [{"is_list": true, "dtype_item_size": 32.0}]}}]}"""
    column = Schema().from_json(text)["genres"]
    assert column.is_list
    assert column.cardinality == 19
    assert column.dtype == np.int32
    with pytest.raises(ValueError, match="The schema must be a tensorflow-metadata Schema in JSON"):
        Schema().from_json('{"feature": 3')
    with pytest.raises(ValueError, match="The schema must be a tensorflow-metadata Schema in JSON"):
        Schema().from_json('{"feature": [{"name": []}]}')
