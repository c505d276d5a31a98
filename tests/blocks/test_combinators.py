"""Connecting, branching, repeating and finding blocks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.blocks import (
    AsTabular,
    Block,
    ContinuousFeatures,
    DebugBlock,
    Filter,
    MLPBlock,
    NoOp,
    ParallelBlock,
    ResidualBlock,
    SequentialBlock,
    TabularBlock,
    right_shift_layer,
)
from merlin_models.schema import ColumnSchema, Schema, Tags

X = np.array([[1.0, -2.0]], np.float32)


@keras.saving.register_keras_serializable(package="tests")
class Affine(Block):
    """``scale * x + shift`` by a variable, so that sharing can be seen."""

    def __init__(self, scale=1.0, shift=0.0, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.shift = scale, shift

    def build(self, input_shape):
        self.offset = self.add_weight(name="offset", shape=(), initializer=keras.initializers.Constant(self.shift))

    def call(self, inputs, training=None):
        return inputs * self.scale + self.offset

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "shift": self.shift}


@keras.saving.register_keras_serializable(package="tests")
class Seen(Block):
    """Returns the number of the features that reach it, a row."""

    def call(self, inputs, training=None):
        first = next(iter(inputs.values()))
        return keras.ops.full_like(first, len(inputs))


def test_connect_runs_in_order():
    block = Affine(2).connect(Affine(1, 1), Affine(3))
    assert isinstance(block, SequentialBlock)
    np.testing.assert_array_equal(block(X), (X * 2 + 1) * 3)


def test_right_shift_connects_our_blocks_and_plain_layers():
    np.testing.assert_array_equal((Affine(2) >> Affine(1, 1))(X), X * 2 + 1)
    np.testing.assert_array_equal((keras.layers.ReLU() >> Affine(1, 1))(X), [[2.0, 1.0]])
    with pytest.raises(TypeError):
        Affine() >> 3
    with pytest.raises(TypeError):
        keras.layers.ReLU() >> keras.layers.ReLU()
    with pytest.raises(TypeError, match="must be Keras layers"):
        Affine().connect(3)


def test_names_on_the_left_are_a_filter():
    inputs = {"a": X, "b": X + 1, "c": X + 2}
    for block in (["a", "c"] >> TabularBlock(aggregation="sum"), right_shift_layer(Affine(1, 1), Filter("b"))):
        assert isinstance(block[0], Filter)
    np.testing.assert_array_equal((["a", "c"] >> TabularBlock(aggregation="sum"))(inputs), 2 * X + 2)
    both_of_keras = right_shift_layer(keras.layers.ReLU(), keras.layers.Rescaling(-1.0))
    np.testing.assert_array_equal(both_of_keras(X), [[0.0, 2.0]])
    with pytest.raises(TypeError, match="must be Keras layers"):
        right_shift_layer(Affine(), 3)


def test_sequence_is_a_sequence():
    layers = [Affine(2), Affine(1, 1), Affine(3)]
    block = SequentialBlock(layers)
    assert len(block) == 3
    assert list(block) == layers
    assert block[0] is layers[0]
    assert block[-1] is layers[2]
    assert list(block[1:]) == layers[1:]
    assert list(block[:1] + block[2:]) == [layers[0], layers[2]]
    np.testing.assert_array_equal(block[:2](X), X * 2 + 1)
    with pytest.raises(ValueError, match="layers must be one or several"):
        SequentialBlock([])
    with pytest.raises(ValueError, match="must be an input block"):
        _ = block.inputs


def test_inputs_is_the_input_block():
    features = ContinuousFeatures(["a"])
    assert features.connect(MLPBlock([2])).inputs is features


def test_dense_takes_a_dictionary_in_the_order_of_names():
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    block = SequentialBlock([dense])
    block({"b": np.ones((1, 1)), "a": np.ones((1, 2))})
    dense.set_weights([np.array([[1.0], [10.0], [100.0]], np.float32)])
    np.testing.assert_array_equal(block({"b": np.array([[3.0]]), "a": X}), [[1 - 20 + 300]])


def test_filter_and_pre_aggregation_come_first():
    block = SequentialBlock([NoOp()], filter=["a", "b"], pre_aggregation="sum")
    np.testing.assert_array_equal(block({"a": X, "b": X, "c": X}), 2 * X)
    assert len(block) == 3


def test_copy_layers():
    layer = Affine(1, 1)
    shared, copied = SequentialBlock([layer]), SequentialBlock([layer], copy_layers=True)
    np.testing.assert_array_equal(shared(X), copied(X))
    layer.offset.assign(5)
    np.testing.assert_array_equal(shared(X), X + 5)
    np.testing.assert_array_equal(copied(X), X + 1)


def test_parallel_outputs():
    block = ParallelBlock({"one": Affine(1), "two": Affine(2)})
    out = block(X)
    assert list(out) == ["one", "two"]
    np.testing.assert_array_equal(out["two"], 2 * X)
    assert list(ParallelBlock(Affine(), Affine())(X)) == list(ParallelBlock([Affine(), Affine()])(X)) == ["0", "1"]


def test_parallel_merges_dictionaries():
    block = ParallelBlock({"left": AsTabular("x"), "right": Affine(2)})
    assert sorted(block(X)) == ["right", "x"]
    with pytest.raises(ValueError, match=r"different keys. Received: 'x' from 'b'"):
        ParallelBlock({"a": AsTabular("x"), "b": AsTabular("x")})(X)


def test_branches_see_their_schema_only():
    schema = Schema([ColumnSchema.create_continuous(name) for name in "abc"])
    narrow = TabularBlock(schema=schema.select_by_name(["a"])).connect(Seen())
    out = ParallelBlock({"narrow": narrow, "wide": Seen()})(dict.fromkeys("abc", X))
    assert np.unique(out["narrow"]) == 1
    assert np.unique(out["wide"]) == 3


def test_parallel_pre_post_aggregation():
    block = ParallelBlock({"a": Affine(1), "b": Affine(2)}, pre=Affine(1, 1), post=Filter("b"), aggregation="concat")
    np.testing.assert_array_equal(block(X), 2 * (X + 1))


def test_parallel_is_a_mapping():
    one, two = Affine(), Affine()
    block = ParallelBlock({"one": one, "two": two})
    assert block["one"] is one
    assert "two" in block
    assert "three" not in block
    assert len(block) == 2
    assert list(block) == ["one", "two"]
    assert block.select_by_name("two") is two
    assert block.select_by_name("three") is None
    assert list(block.select_by_names(["two"])) == ["two"]
    with pytest.raises(KeyError, match=r"no branch 'three'; it has \['one', 'two'\]"):
        block["three"]
    with pytest.raises(ValueError, match="branches must be one or several"):
        ParallelBlock()


def test_select_by_tag():
    user = Schema([ColumnSchema.create_categorical("userId", 5, tags=[Tags.USER_ID])])
    item = Schema([ColumnSchema.create_categorical("movieId", 5, tags=[Tags.ITEM_ID])])
    block = ParallelBlock({"query": TabularBlock(schema=user), "item": TabularBlock(schema=item), "rest": NoOp()})
    assert list(block.select_by_tag(Tags.USER)) == ["query"]
    assert block.select_by_tag(Tags.SESSION) is None
    assert block.schema is None
    assert block.select_by_names(["query", "item"]).schema.column_names == ["userId", "movieId"]


def test_connect_branch():
    block = Affine(2).connect_branch(Affine(1), Affine(1, 1), aggregation="concat")
    np.testing.assert_array_equal(block(X), [[2, -4, 3, -3]])
    named = Affine(2).connect_branch({"deep": Affine(1)})
    assert list(named(X)) == ["deep"]


def test_connect_branch_with_the_rest():
    inputs = {"a": X, "b": X + 1, "c": X + 2}
    branches = {"first": MLPBlock([2], filter="a", activation=None, kernel_initializer="ones"), "b": Filter("b")}
    out = NoOp().connect_branch(branches, add_rest=True)(inputs)
    np.testing.assert_array_equal(out["first"], [[-1, -1]])
    assert sorted(out) == ["b", "c", "first"]
    schema = Schema([ColumnSchema.create_continuous("a"), ColumnSchema.create_continuous("b")])
    assert sorted(NoOp().connect_branch(TabularBlock(schema=schema), add_rest=True)(inputs)) == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"must have a schema or begin with a Filter.* Received: '1'"):
        NoOp().connect_branch(Filter("a"), MLPBlock([2]), add_rest=True)
    with pytest.raises(ValueError, match=r"must have something beside \['a', 'b', 'c'\]"):
        NoOp().connect_branch(Filter(["a", "b", "c"]), add_rest=True)(inputs)


def test_branches_without_inputs_are_left_out():
    schemas = {name: Schema([ColumnSchema.create_continuous(name)]) for name in "abc"}
    make = {name: ContinuousFeatures(schema=schema) for name, schema in schemas.items()}
    block = ParallelBlock(make)
    assert sorted(block({"a": X, "c": X, "other": X})) == ["a", "c"]
    assert sorted(block({"b": X})) == ["b"]
    with pytest.raises(ValueError, match=r"must have a column of a branch, \['a', 'b', 'c'\]. Received: \['other'\]"):
        block({"other": X})
    for strict in (ParallelBlock(make, automatic_pruning=False), ParallelBlock(make, is_input=True)):
        with pytest.raises(ValueError, match=r"missing: \['b'\]"):
            strict({"a": X, "c": X})


def test_strict_takes_dictionaries_only():
    with pytest.raises(TypeError, match=r"a strict ParallelBlock must be a dictionary\. Received: KerasTensor"):
        ParallelBlock({"a": NoOp()}, strict=True)(X)


def test_names_of_branches():
    one, two = Affine(name="one"), Affine(name="two")
    assert list(ParallelBlock(one, two, use_layer_name=True)) == ["one", "two"]
    with pytest.raises(ValueError, match=r"Names of branches must be unique. Received: \['one', 'one'\]"):
        ParallelBlock(one, one, use_layer_name=True)
    block = ParallelBlock({"one": one})
    block.add_branch("two", two)
    assert list(block(X)) == ["one", "two"]
    for name, branch, error, message in [
        ("three", two, ValueError, "before the block is built. Received: 'three'"),
        ("two", two, ValueError, "must be unique. Received again: 'two'"),
        ("three", 3, TypeError, "must be a Keras layer. Received: 3"),
    ]:
        fresh = block if "built" in message else ParallelBlock({"one": one, "two": two})
        with pytest.raises(error, match=message):
            fresh.add_branch(name, branch)


def test_residual():
    np.testing.assert_array_equal(ResidualBlock(Affine(2))(X), 3 * X)
    np.testing.assert_array_equal(Affine(2).connect_with_residual(Affine(1, 1), "relu")(X), [[5, 0]])
    np.testing.assert_array_equal(ResidualBlock(Affine(1))({"b": X, "a": X + 1}), [[4, -2, 2, -4]])
    with pytest.raises(ValueError, match=r"must keep the shape \(None, 2\). Received: \(None, 3\)"):
        ResidualBlock(keras.layers.Dense(3))(X)


def test_shortcut():
    block = Affine(2).connect_with_shortcut(Affine(1, 1, name="deep"))
    assert {name: value.numpy().tolist() for name, value in block(X).items()} == {
        "shortcut": [[2, -4]],
        "deep": [[3, -3]],
    }
    out = NoOp().connect_with_shortcut(Seen(), Filter("a"), block_outputs_name="seen")({"a": X, "b": X})
    assert sorted(out) == ["a", "seen"]
    summed = Affine(2).connect_with_shortcut(Affine(1, 1), aggregation="sum-residual")
    np.testing.assert_array_equal(summed(X), [[5, 0]])


def test_repeat():
    block = Affine(2).repeat(3)
    assert len(block) == 3
    np.testing.assert_array_equal(block(X), 8 * X)
    with pytest.raises(ValueError, match=r"num must be at least 1. Received: 0"):
        Affine().repeat(0)


def test_repeat_in_parallel():
    block = Affine(2).repeat_in_parallel(2, prefix="expert_", residual=True)
    assert list(block) == ["expert_0", "expert_1", "shortcut"]
    assert block["expert_0"] is not block["expert_1"]
    layer = Affine()
    shared = layer.repeat_in_parallel(names=["x", "y"], copies=False, aggregation="sum")
    assert shared["x"] is shared["y"] is layer
    np.testing.assert_array_equal(shared(X), 2 * X)
    with pytest.raises(ValueError, match="must not be given together"):
        layer.repeat_in_parallel(names=["x"], prefix="y")


def test_copy_has_weights_of_its_own():
    block = MLPBlock([3, 2]).connect_with_residual(MLPBlock([2]))
    block(X)
    copy = block.copy()
    assert copy.get_config() == block.get_config()
    copy(X)
    copy.set_weights(block.get_weights())
    np.testing.assert_array_equal(copy(X), block(X))
    copy.set_weights([0 * weight for weight in copy.get_weights()])
    assert np.abs(block.get_weights()[0]).max() > 0


def test_as_tabular_prepare_and_debug(capsys):
    assert list(Affine().as_tabular("x")(X)) == ["x"]
    np.testing.assert_array_equal(Affine(2).prepare(aggregation="sum")({"a": X, "b": X}), 4 * X)
    np.testing.assert_array_equal(Affine(2).prepare(Affine(1, 1))(X), 2 * (X + 1))
    with pytest.raises(ValueError, match="either block, or post and aggregation"):
        Affine().prepare()
    debug = Affine(2).connect_debug_block()
    np.testing.assert_array_equal(debug(X), 2 * X)
    assert "(1, 2) float32" in capsys.readouterr().out
    assert isinstance(Affine().connect_debug_block(append=False)[0], DebugBlock)


def test_select_by_name_looks_below():
    inner = Affine(name="inner")
    block = MLPBlock([2], block_name="bottom").connect(ParallelBlock({"x": inner}))
    assert block.select_by_name("inner") is inner
    assert block.select_by_name("bottom") is block[0]
    assert block.select_by_name("nowhere") is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Affine(2).connect(MLPBlock([2]), ResidualBlock(MLPBlock([2]), activation="relu")),
        lambda: Affine(2).connect_branch(MLPBlock([2]), Affine(3), aggregation="stack"),
        lambda: ParallelBlock({"b": Affine(2), "a": NoOp()}, pre=Affine(3), post=Filter("a", exclude=True)),
        lambda: Affine().as_tabular("x").connect(Filter("x"), DebugBlock(), TabularBlock(aggregation="concat")),
        lambda: ParallelBlock(NoOp(), automatic_pruning=False),
        lambda: ParallelBlock(NoOp(), schema=Schema([ColumnSchema.create_continuous("a")]), is_input=True),
    ],
)
def test_config_round_trip(make):
    block = make()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    out = block({"a": X} if block.is_input else X)
    again_out = again({"a": X} if block.is_input else X)
    again.set_weights(block.get_weights())
    again_out = again({"a": X} if block.is_input else X)
    keras.tree.map_structure(np.testing.assert_array_equal, again_out, out)


def test_inside_a_functional_model():
    inputs = {"a": keras.Input((2,)), "b": keras.Input((2,))}
    outputs = NoOp().connect(Filter("a"), MLPBlock([3]))(inputs)
    model = keras.Model(inputs, outputs)
    assert model.predict({"a": X, "b": X}, verbose=0).shape == (1, 3)


def test_dropout_below_follows_training():
    block = NoOp().connect(ParallelBlock({"x": keras.layers.Dropout(0.5, seed=1)}))
    ones = np.ones((1, 100))
    assert np.unique(block(ones, training=True)["x"]).tolist() == [0, 2]
    assert np.unique(block(ones, training=False)["x"]).tolist() == [1]
