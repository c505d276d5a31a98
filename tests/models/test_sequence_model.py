"""Models of sessions, end to end: masked and next items, recurrent layers and transformers."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import merlin_models.tf as ml

ITEMS = 10
SCHEMA = ml.Schema([ml.ColumnSchema.create_categorical("item", ITEMS, value_count=(0, 0), tags=[ml.Tags.ITEM_ID])])


def follow(item):
    """The rule: which item comes next."""
    return (3 * item + 1) % (ITEMS + 1) + (1 if (3 * item + 1) % (ITEMS + 1) == 0 else 0)


def sessions(rng, rows):
    found = []
    for length in rng.integers(3, 8, rows):
        session = [int(rng.integers(1, ITEMS + 1))]
        while len(session) < length:
            session.append(follow(session[-1]))
        found.append(session)
    return tf.ragged.constant(found, tf.int64, row_splits_dtype=tf.int64)


def batches(items, size=32):
    return tf.data.Dataset.from_tensor_slices({"item": items}).batch(size)


def model_of(*body, dim=16, **options):
    keras.utils.set_random_seed(1)
    table = ml.EmbeddingTable(dim, SCHEMA["item"])
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    output = ml.CategoricalOutput(table, metrics=[accuracy], **options)
    return ml.Model(ml.InputBlockV2(SCHEMA, categorical=table), *body, output)


def accuracy_of(model, items, pre):
    logs = model.evaluate(batches(items), pre=pre, verbose=0, return_dict=True)
    return logs["item/categorical_output/accuracy"]


def test_two_way_recurrent_layers_learn_masked_items(rng, tmp_path):
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(16, return_sequences=True))
    model = model_of(ml.ReplaceMaskedEmbeddings(), recurrent, ml.MLPBlock([16], no_activation_last_layer=True))
    model.compile(keras.optimizers.Adam(0.03))
    transform = ml.SequenceMaskRandom(SCHEMA, masking_prob=0.3, seed=1)
    model.fit(batches(sessions(rng, 320), 16), epochs=8, pre=transform, verbose=0)
    items = sessions(rng, 100)
    assert accuracy_of(model, items, ml.SequenceMaskLast(SCHEMA)) > 0.4  # 0.1 by chance
    next_items = model.predict(batches(items), pre=ml.SequenceMaskLastInference(SCHEMA), verbose=0)
    assert next_items.shape == (100, ITEMS + 1)
    expected = [follow(row[-1]) for row in items.to_list()]
    assert np.mean(next_items.argmax(axis=1) == expected) > 0.4
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    loaded = again.predict(batches(items), pre=ml.SequenceMaskLastInference(SCHEMA), verbose=0)
    np.testing.assert_allclose(loaded, next_items, rtol=1e-5)
    assert accuracy_of(again, items, ml.SequenceMaskLast(SCHEMA)) == accuracy_of(
        model, items, ml.SequenceMaskLast(SCHEMA)
    )


@pytest.mark.usefixtures("on_device")
def test_a_causal_transformer_learns_next_items(rng, tmp_path):
    model = model_of(ml.GPT2Block(16, 2, 1, dropout=0.0))
    model.compile(keras.optimizers.Adam(0.03))
    model.fit(batches(sessions(rng, 320), 16), epochs=4, pre=ml.SequencePredictNext(SCHEMA), verbose=0)
    items = sessions(rng, 100)
    assert accuracy_of(model, items, ml.SequencePredictNext(SCHEMA)) > 0.5
    assert accuracy_of(model, items, ml.CausalLanguageModeling(SCHEMA)) > 0.5
    scores = model({"item": items})
    np.testing.assert_array_equal(scores.row_splits, items.row_splits)
    last = model.predict(batches(items), pre=ml.SequenceCausalLastInference(SCHEMA), verbose=0)
    np.testing.assert_allclose(last, np.stack([row[-1] for row in scores]), rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again({"item": items}).values, scores.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [ml.BertBlock, ml.XLNetBlock])
def test_two_way_transformers_train_on_masked_items(kind, rng):
    model = model_of(kind(16, 2, 1, dropout=0.0, pre="replace_masked_embeddings"))
    model.compile(keras.optimizers.Adam(0.02))
    before = np.array(model[1].pre.vector)
    transform = ml.MaskedLanguageModeling(SCHEMA, mlm_probability=0.3, seed=1)
    history = model.fit(batches(sessions(rng, 320)), epochs=5, pre=transform, verbose=0)
    assert history.history["loss"][-1] < 0.85 * history.history["loss"][0]
    assert not np.allclose(before, model[1].pre.vector)


def test_a_tied_softmax_over_a_sample_of_items(rng, tmp_path):
    keras.utils.set_random_seed(1)
    table = ml.EmbeddingTable(16, SCHEMA["item"])
    sampler = ml.PopularityBasedSampler(max_id=ITEMS, min_id=1, max_num_samples=6)
    task = ml.SampledSoftmaxTask(table, sampler, logq_correction=True, min_id=1, metrics=[ml.RecallAt(1)])
    model = ml.Model(ml.InputBlockV2(SCHEMA, categorical=table), ml.GPT2Block(16, 2, 1, dropout=0.0), task)
    assert task.table is table
    model.compile(keras.optimizers.Adam(0.03))
    model.fit(batches(sessions(rng, 320), 16), epochs=4, pre=ml.SequencePredictNext(SCHEMA), verbose=0)
    items = sessions(rng, 100)
    for pre in (ml.SequencePredictNext(SCHEMA), ml.CausalLanguageModeling(SCHEMA)):
        logs = model.evaluate(batches(items), pre=pre, verbose=0, return_dict=True)
        assert next(value for name, value in logs.items() if name.endswith("recall_at_1")) > 0.5
    scores = model.predict(batches(items), pre=ml.SequenceCausalLastInference(SCHEMA), verbose=0)
    assert scores.shape == (100, ITEMS + 1)
    assert np.isneginf(scores[:, 0]).all()
    assert np.mean(scores.argmax(axis=1) == [follow(row[-1]) for row in items.to_list()]) > 0.5
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    loaded = again.predict(batches(items), pre=ml.SequenceCausalLastInference(SCHEMA), verbose=0)
    np.testing.assert_allclose(loaded, scores, rtol=1e-5, atol=1e-6)


def test_last_item_of_a_pooled_sequence(rng):
    model = model_of(keras.layers.GRU(16))
    model.compile(keras.optimizers.Adam(0.03))
    model.fit(batches(sessions(rng, 320), 16), epochs=4, pre=ml.SequencePredictLast(SCHEMA), verbose=0)
    assert accuracy_of(model, sessions(rng, 100), ml.SequencePredictLast(SCHEMA)) > 0.5


def test_padded_and_ragged_sequences_have_the_same_loss(rng):
    items = sessions(rng, 40)
    padded = tf.data.Dataset.from_tensor_slices({"item": items.to_tensor()}).batch(16)
    for body, pre in (
        (ml.GPT2Block(16, 2, 1), ml.SequencePredictNext(SCHEMA)),
        (ml.XLNetBlock(16, 2, 1, pre=ml.ReplaceMaskedEmbeddings()), ml.SequenceMaskLast(SCHEMA)),
    ):
        keras.utils.set_random_seed(1)
        embeddings = ml.Embeddings(SCHEMA, dim=16, sequence_combiner=None)
        model = ml.Model(ml.InputBlockV2(SCHEMA, categorical=embeddings), body, ml.CategoricalOutput(SCHEMA))
        model.compile("adam")
        logs = [model.evaluate(data, pre=pre, verbose=0, return_dict=True) for data in (batches(items, 16), padded)]
        assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_rows_weigh_as_much_as_they_are_told(rng):
    items = sessions(rng, 8)
    weights = np.array([1, 0, 0, 2, 0, 0, 0, 3], np.float32)
    model = model_of(ml.GPT2Block(16, 2, 1))
    model.compile("adam")
    data = tf.data.Dataset.from_tensors(({"item": items}, {}, weights))
    logs = model.evaluate(data, pre=ml.SequencePredictNext(SCHEMA), verbose=0, return_dict=True)
    scores, targets = model({"item": items[:, :-1]}), items[:, 1:]
    losses = tf.keras.losses.sparse_categorical_crossentropy(targets.values, scores.values, from_logits=True)
    each = np.repeat(weights, targets.row_lengths())
    assert logs["loss"] == pytest.approx(float(np.mean(losses * each)), rel=1e-4)


def test_masked_positions_must_be_replaced(rng):
    model = model_of(ml.BertBlock(16, 2, 1))
    outputs = ml.SequenceMaskLast(SCHEMA)({"item": sessions(rng, 3)}).outputs
    with pytest.raises(ValueError, match=r"A model of masked sequences must have a ReplaceMaskedEmbeddings block"):
        model(outputs)


def test_a_validator_of_sequences(rng):
    model = model_of(ml.GPT2Block(16, 2, 1))
    model.compile("adam")
    data = batches(sessions(rng, 32))
    last = ml.CausalLanguageModeling(SCHEMA)
    validator = ml.KerasSequenceValidator(data, pre=last)
    history = model.fit(data, pre=ml.SequencePredictNext(SCHEMA), callbacks=[validator], verbose=0)
    logs = model.evaluate(data, pre=last, verbose=0, return_dict=True)
    assert history.history["val_loss"][-1] == pytest.approx(logs["loss"], rel=1e-5)


def test_replace_masked_embeddings(rng):
    block = ml.ReplaceMaskedEmbeddings(initializer="ones")
    again = ml.ReplaceMaskedEmbeddings.from_config(block.get_config())
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(block(x), again(x))
    np.testing.assert_array_equal(block(x), x)  # nothing is masked
    with pytest.raises(ValueError, match=r"Inputs must be one tensor \(batch, length, dim\). Received shape: \(2, 4\)"):
        ml.ReplaceMaskedEmbeddings()(np.ones((2, 4)))


@pytest.mark.parametrize("run", ["fit", "evaluate"])
def test_items_that_the_model_reads_are_no_targets_by_themselves(run):
    model, items = model_of(ml.GPT2Block(16, 2, 1)), sessions(np.random.default_rng(0), 8)
    model.compile("adam")
    call = getattr(model, run)
    for data in (
        batches(items),
        {"item": items},
        ml.Loader(pd.DataFrame({"item": items.to_list()}), 4, cat_names=["item"]),
    ):
        with pytest.raises(
            ValueError, match=r"y must have the targets \['item'\], or pre= make them, .* Received: y=None"
        ):
            call(data, verbose=0)
    call({"item": items}, items, verbose=0)  # given, they are the user's choice
