"""BERT, RoBERTa, ALBERT, GPT-2 and XLNet blocks, and what is taken of their output."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml

BLOCKS = [ml.BertBlock, ml.RobertaBlock, ml.AlbertBlock, ml.GPT2Block, ml.XLNetBlock]
LENGTHS = [4, 1, 3]


def block_of(kind, **options):
    block = kind(d_model=8, n_head=2, n_layer=2, initializer_range=0.3, layer_norm_eps=1e-5, **options)
    block.build((None, None, 8))
    return block


def sequences(rng):
    return tf.RaggedTensor.from_row_lengths(rng.normal(size=(8, 8)).astype(np.float32), LENGTHS)


def masked(ragged):
    dense = ragged.to_tensor()
    dense._keras_mask = tf.sequence_mask(LENGTHS)
    return dense


@pytest.mark.parametrize("kind", BLOCKS)
def test_ragged_in_ragged_out_and_padding_has_no_influence(kind, rng):
    block, x = block_of(kind), sequences(rng)
    out = block(x)
    np.testing.assert_array_equal(out.row_splits, x.row_splits)
    for row in range(3):
        alone = block(x[row][None])
        np.testing.assert_allclose(out[row], alone[0], rtol=1e-4, atol=1e-5)
    padded = block(masked(x))
    np.testing.assert_array_equal(padded._keras_mask, tf.sequence_mask(LENGTHS))
    np.testing.assert_allclose(tf.boolean_mask(padded, tf.sequence_mask(LENGTHS)), out.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", BLOCKS)
def test_who_sees_whom(kind, rng):
    block, x = block_of(kind), rng.normal(size=(1, 5, 8)).astype(np.float32)
    changed = x.copy()
    changed[0, 3] += rng.normal(size=8)
    moved = np.abs(np.asarray(block(changed)) - np.asarray(block(x))).max(axis=-1)[0] > 1e-6
    assert moved.tolist() == ([False, False, False, True, True] if kind is ml.GPT2Block else [True] * 5)
    # The order of positions counts.
    swapped = x[:, [1, 0, 2, 3, 4]]
    assert not np.allclose(block(swapped)[0, 4], block(x)[0, 4], atol=1e-5)


def test_xlnet_in_one_direction(rng):
    block, x = block_of(ml.XLNetBlock, attn_type="uni"), rng.normal(size=(1, 5, 8)).astype(np.float32)
    changed = x.copy()
    changed[0, 3] += rng.normal(size=8)
    moved = np.abs(np.asarray(block(changed)) - np.asarray(block(x))).max(axis=-1)[0] > 1e-6
    assert moved.tolist() == [False, False, False, True, True]


def test_albert_has_one_layer():
    def counts(kind, n_layer):
        block = kind(d_model=8, n_head=2, n_layer=n_layer)
        block.build((None, None, 8))
        return block.count_params()

    assert counts(ml.AlbertBlock, 3) == counts(ml.AlbertBlock, 1) == counts(ml.BertBlock, 1) < counts(ml.BertBlock, 3)


@pytest.mark.parametrize("kind", BLOCKS)
def test_config_file_and_precision(kind, rng, tmp_path):
    block = block_of(kind, pre="replace_masked_embeddings", post=ml.MLPBlock([3]), transformer_post="sequence_last")
    x = masked(sequences(rng))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    inputs = keras.Input((None, 8))
    model = keras.Model(inputs, block(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    half = block_of(kind, dtype="mixed_bfloat16")
    half.set_weights(block_of(kind).get_weights())
    assert half(x).dtype == tf.bfloat16
    assert np.isfinite(np.asarray(tf.cast(half(x), tf.float32))).all()


@pytest.mark.parametrize("kind", BLOCKS)
def test_empty_batch_and_empty_sequences(kind, rng):
    block, x = block_of(kind), sequences(rng)
    assert block(x[:0]).shape[0] == 0
    some = tf.RaggedTensor.from_row_lengths(x.values, [4, 0, 4])
    out = block(some)
    assert np.isfinite(out.values.numpy()).all()
    np.testing.assert_allclose(out[2], block(some[2][None])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["ragged", "masked", "dense"])
@pytest.mark.parametrize("post", ["sequence_last", "sequence_first", "sequence_mean", "sequence_cls_index"])
def test_summaries_of_sequences(post, form, rng):
    x = sequences(rng)
    block = block_of(ml.BertBlock, transformer_post=post)
    lengths = [4, 4, 4] if form == "dense" else LENGTHS
    x = {"ragged": x, "masked": masked(x), "dense": x.to_tensor()}[form]
    hidden = block.transformer(x.to_tensor() if form == "ragged" else x, mask=tf.sequence_mask(lengths))[
        "last_hidden_state"
    ]
    rows = [np.asarray(row)[:length] for row, length in zip(hidden, lengths, strict=True)]
    take = {"sequence_first": lambda row: row[0], "sequence_mean": lambda row: row.mean(axis=0)}
    expected = [take.get(post, lambda row: row[-1])(row) for row in rows]
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-5)


def test_other_parts_of_the_output(rng):
    x = sequences(rng)
    states = block_of(ml.BertBlock, transformer_post="hidden_states")(x)
    assert [state.row_lengths().numpy().tolist() for state in states] == [LENGTHS] * 3
    attentions = block_of(ml.XLNetBlock, transformer_post="attentions")(x)
    assert [weights.shape.as_list() for weights in attentions] == [[3, 2, 4, 4]] * 2
    last, weights = block_of(ml.GPT2Block, transformer_post="last_hidden_state_and_attention")(x)
    assert last.row_lengths().numpy().tolist() == LENGTHS
    np.testing.assert_allclose(np.triu(weights[0, 0], 1), np.zeros((4, 4)), atol=1e-6)
    assert block_of(ml.BertBlock, transformer_post="pooler_output")(x).shape == (3, 8)
    assert len(block_of(ml.BertBlock).transformer.weights) + 2 == len(
        block_of(ml.BertBlock, transformer_post="pooler_output").transformer.weights
    )  # a pooler only where it is used
    own = block_of(ml.BertBlock, transformer_post=ml.SequenceClsIndex(2))(x)
    np.testing.assert_array_equal(own[1], np.zeros(8))  # has no such position


def test_a_block_of_ones_own_on_the_output(rng):
    """Which is built by shapes, of which those of attentions and the pooler are not there."""

    class First(ml.Block):
        def call(self, inputs, training=None):
            assert inputs.attentions is None
            return inputs.last_hidden_state[:, 0]

    x = np.ones((2, 5, 8), "float32")
    block = block_of(ml.BertBlock, transformer_post=First())
    np.testing.assert_allclose(block(x), block.transformer(x)["last_hidden_state"][:, 0], rtol=1e-5, atol=1e-6)


def test_a_layer_of_ones_own(rng):
    class Doubled(keras.layers.Layer):
        def call(self, inputs, mask=None):
            return 2 * inputs

    x = sequences(rng)
    out = ml.TransformerBlock(Doubled(), pre="replace_masked_embeddings")(x)
    np.testing.assert_allclose(out.values, 2 * x.values)


def test_features_are_concatenated(rng):
    x = sequences(rng)
    first, second = x.with_flat_values(x.values[:, :3]), x.with_flat_values(x.values[:, 3:])
    block = block_of(ml.BertBlock)
    np.testing.assert_array_equal(block({"b": second, "a": first}).values, block(x).values)


def test_wrong_arguments_and_inputs(rng):
    with pytest.raises(ValueError, match=r"pad_token must be 0, the padding of all lists of the library.* Received: 3"):
        ml.BertBlock(8, 2, 1, pad_token=3)
    with pytest.raises(ValueError, match=r"attn_type must be 'bi' or 'uni'. Received: 'both'"):
        ml.XLNetBlock(8, 2, 1, attn_type="both")
    with pytest.raises(TypeError, match=r"XLNetBlock has no max_position_embeddings"):
        ml.XLNetBlock(8, 2, 1, max_position_embeddings=10)
    with pytest.raises(KeyError, match=r"A block must be one of .*'sequence_last'.* Received: 'last'"):
        ml.BertBlock(8, 2, 1, transformer_post="last")
    with pytest.raises(TypeError, match=r"transformer_post must be a layer or the name of a block. Received: None"):
        ml.BertBlock(8, 2, 1, transformer_post=None)
    with pytest.raises(ValueError, match=r"\(batch, length, 8\), the last being d_model. Received: .*6\)"):
        ml.BertBlock(8, 2, 1)(np.ones((2, 3, 6)))
    with pytest.raises(ValueError, match=r"must have the shape \(batch, length, dim\). Received: \(None, 8\)"):
        ml.BertBlock(8, 2, 1)(np.ones((2, 8)))
    short = block_of(ml.BertBlock, max_position_embeddings=3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"not be longer than max_position_embeddings=3"):
        short(sequences(rng))
    with pytest.raises(TypeError, match=r"Inputs of HiddenStates must be a TransformerOutput"):
        ml.HiddenStates()(np.ones((2, 3, 8)))
