"""ItemRetrievalTask: its loss, gradients and metrics beside NumPy in float64; labels, weights, ids, errors, configs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.tasks import TaskStep, computing_loss

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("userId", 30, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("movieId", 40, tags=[ml.Tags.ITEM_ID]),
    ]
)


def vectors(rng, rows=9, dim=5):
    return {name: rng.normal(size=(rows, dim)).astype(np.float32) for name in ("query", "item")}


def run(task, inputs, ids=None, targets=None, sample_weight=None, metrics=(), weighted=(), training=True, loss=None):
    """The loss of a step."""
    task.build({name: (None, value.shape[1]) for name, value in inputs.items()})
    with computing_loss():
        outputs = task(inputs)
    features = {} if ids is None else {"movieId": ids}
    step = TaskStep(features, None if ids is None else SCHEMA, targets, outputs, sample_weight, training)
    return task.compute_loss(step, loss or task.loss, metrics, weighted)


def reference(inputs, ids=None, temperature=1.0, normalize=True):
    """The loss of each row and the rank of its item, in float64."""
    query, item = (inputs[name].astype(np.float64) for name in ("query", "item"))
    if normalize:
        query, item = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (query, item))
    scores = query @ item.T / temperature
    rows = np.arange(len(scores))
    ids = rows if ids is None else np.reshape(ids, -1)
    own = scores[rows, rows]
    negatives = np.where(ids[:, None] == ids, -np.inf, scores)
    losses = np.log(np.exp(own) + np.exp(negatives).sum(1)) - own
    return losses, (negatives > own[:, None]).sum(1)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1, 2])
def test_loss_is_the_sum_of_rows(rng, temperature, normalize):
    inputs, ids = vectors(rng), rng.integers(1, 5, (9, 1))
    task = ml.ItemRetrievalTask(softmax_temperature=temperature, normalize=normalize)
    for known in (None, ids, ids.astype(np.int32), ids[:, 0]):
        losses, _ = reference(inputs, known, temperature, normalize)
        np.testing.assert_allclose(run(task, inputs, known), losses.sum(), rtol=1e-5)


def test_by_hand():
    """Two rows of one item know no negative; cosines are 1 and 0."""
    inputs = {"query": np.eye(2, 3, dtype=np.float32), "item": np.eye(2, 3, dtype=np.float32)}
    np.testing.assert_allclose(run(ml.ItemRetrievalTask(), inputs), 2 * np.log(1 + np.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(run(ml.ItemRetrievalTask(), inputs, np.array([7, 7])), 0, atol=1e-6)


@pytest.mark.usefixtures("on_device")
def test_ids_keep_all_their_bits(rng):
    """Ids that float32 or int32 would take for one."""
    inputs = vectors(rng, 3)
    ids = np.array([2**53, 2**53 + 1, 2**53 + 2**32])
    losses, _ = reference(inputs, ids)
    np.testing.assert_allclose(run(ml.ItemRetrievalTask(), inputs, ids), losses.sum(), rtol=1e-5)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(
    "targets", [np.array([1, 0, 1, 1, 0, 0, 1, 1, 1]), np.array([[0.5], [0], [1], [2], [0], [0], [1], [1], [1]])]
)
def test_targets_weigh_rows_whose_items_stay_negatives(rng, targets):
    inputs, ids = vectors(rng), rng.integers(1, 9, 9)
    losses, rank = reference(inputs, ids)
    weights = rng.uniform(0.5, 2, 9).astype(np.float32)
    plain, weighted = ml.RecallAt(3), ml.RecallAt(3)
    loss = run(ml.ItemRetrievalTask(), inputs, ids, targets, weights, [plain], [weighted])
    rows = targets.reshape(-1)
    np.testing.assert_allclose(loss, (losses * rows * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(plain.result(), (rank < 3)[rows > 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(weighted.result(), np.average(rank < 3, weights=rows * weights), rtol=1e-5)


@pytest.mark.parametrize(
    ("reduction", "divisor"), [("sum", 1), ("sum_over_batch_size", 9), ("mean", 9), ("mean_with_sample_weight", 6)]
)
def test_reductions(rng, reduction, divisor):
    inputs, targets = vectors(rng), np.array([1, 0, 1, 1, 0, 0, 1, 1, 1])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction)
    losses, _ = reference(inputs)
    np.testing.assert_allclose(
        run(ml.ItemRetrievalTask(loss), inputs, targets=targets), (losses * targets).sum() / divisor, rtol=1e-5
    )


@pytest.mark.usefixtures("on_device")
def test_metrics_are_those_of_the_scores(rng):
    inputs, ids = vectors(rng, 40, 3), rng.integers(0, 20, 40)
    _, rank = reference(inputs, ids)
    task = ml.ItemRetrievalTask()
    metrics = task.create_metrics()
    run(task, inputs, ids, metrics=metrics, training=False)
    results = metrics[0].result()
    hit = rank < 10
    expected = {
        "recall_at_10": hit,
        "precision_at_10": hit / 10,
        "mrr_at_10": hit / (rank + 1),
        "map_at_10": hit / (rank + 1),
        "ndcg_at_10": hit / np.log2(rank + 2),
    }
    assert set(results) == {f"item_retrieval_task/{name}" for name in expected}
    for name, values in expected.items():
        np.testing.assert_allclose(results[f"item_retrieval_task/{name}"], values.mean(), rtol=1e-5)


@pytest.mark.usefixtures("on_device")
def test_gradients(rng):
    inputs, ids = vectors(rng), rng.integers(1, 7, 9)
    task = ml.ItemRetrievalTask(softmax_temperature=0.5, learnable_temperature=True)
    tensors = {name: tf.Variable(value) for name, value in inputs.items()}
    with tf.GradientTape() as tape:
        loss = run(task, {name: v + 0.0 for name, v in tensors.items()}, ids)
    (log_scale,) = task.trainable_variables
    grads = tape.gradient(loss, [*tensors.values(), log_scale])
    eps = 1e-6
    for name, grad in zip(tensors, grads, strict=False):
        place = (4, 2)
        ends = []
        for sign in (1, -1):
            moved = {key: value.astype(np.float64) for key, value in inputs.items()}
            moved[name][place] += sign * eps
            ends.append(reference(moved, ids, 0.5)[0].sum())
        np.testing.assert_allclose(grad[place], (ends[0] - ends[1]) / (2 * eps), rtol=1e-3)
    ends = [reference(inputs, ids, 0.5 * np.exp(-sign * eps))[0].sum() for sign in (1, -1)]
    np.testing.assert_allclose(grads[-1], (ends[0] - ends[1]) / (2 * eps), rtol=1e-3)


def test_the_learned_temperature_stays_above_its_least():
    task = ml.ItemRetrievalTask(softmax_temperature=0.02, learnable_temperature=True)
    task.build({"query": (None, 4), "item": (None, 4)})
    (log_scale,) = task.trainable_variables
    keras.optimizers.SGD(100.0).apply([tf.constant(-1.0)], [log_scale])
    np.testing.assert_allclose(task.temperature.value, 0.01, rtol=1e-5)


@pytest.mark.usefixtures("on_device")
def test_symmetric(rng):
    inputs = vectors(rng)
    losses = reference(inputs)[0] + reference({"query": inputs["item"], "item": inputs["query"]})[0]
    np.testing.assert_allclose(run(ml.ItemRetrievalTask(symmetric=True), inputs), losses.sum() / 2, rtol=1e-5)


def test_predictions_are_products_of_pairs(rng):
    inputs = vectors(rng)
    products = np.sum(inputs["query"] * inputs["item"], axis=1, keepdims=True)
    lengths = np.prod([np.linalg.norm(v, axis=1, keepdims=True) for v in inputs.values()], axis=0)
    np.testing.assert_allclose(
        ml.ItemRetrievalTask(softmax_temperature=2)(inputs), products / lengths, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(ml.ItemRetrievalTask(normalize=False)(inputs), products, rtol=1e-4, atol=1e-6)


def test_layers_before_and_after_the_normalization(rng):
    inputs = vectors(rng)
    task = ml.ItemRetrievalTask(task_block=keras.layers.Dense(3), extra_pre_call=keras.layers.Rescaling(2.0))
    kernel = (task(inputs), task.task_block.kernel.numpy())[1]
    pair = [v @ kernel for v in inputs.values()]
    query, item = (2 * v / np.linalg.norm(v, axis=1, keepdims=True) for v in pair)
    np.testing.assert_allclose(task(inputs), np.sum(query * item, 1, keepdims=True), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("rows", [0, 1])
def test_tiny_batches(rng, rows):
    inputs = vectors(rng, rows)
    metric = ml.RecallAt(1)
    loss = run(ml.ItemRetrievalTask(), inputs, np.arange(rows), np.ones(rows), metrics=[metric])
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    assert float(metric.result()) == rows
    mean = keras.losses.CategoricalCrossentropy(from_logits=True)
    assert float(run(ml.ItemRetrievalTask(mean), inputs)) == 0


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(rng, policy):
    inputs, ids = vectors(rng), rng.integers(1, 7, 9)
    task = ml.ItemRetrievalTask(softmax_temperature=0.05, learnable_temperature=True, dtype=policy)
    loss = run(task, inputs, ids)
    assert loss.dtype == "float32"
    assert task(inputs).dtype == "float32"
    assert task.temperature.log_scale.dtype == "float32"
    np.testing.assert_allclose(loss, reference(inputs, ids, 0.05)[0].sum(), rtol=3e-2)


def test_config(rng):
    task = ml.ItemRetrievalTask(
        keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum_over_batch_size"),
        metrics=[ml.NDCGAt(5)],
        extra_pre_call=keras.layers.Rescaling(0.5),
        target_name="rating_b",
        task_block=keras.layers.Dense(3),
        softmax_temperature=0.3,
        normalize=False,
        learnable_temperature=True,
        symmetric=True,
        item_id_name="movieId",
        precision="float32",
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(task))
    assert again.task_name == "rating_b/item_retrieval_task"
    assert [metric.name for metric in again.create_metrics()] == ["rating_b/item_retrieval_task/ndcg_at_5"]
    inputs = vectors(rng)
    for each in (task, again):
        run(each, inputs, np.arange(9))
    again.set_weights(task.get_weights())
    np.testing.assert_array_equal(run(again, inputs, np.arange(9)), run(task, inputs, np.arange(9)))
    assert again.get_config() == task.get_config()


def test_errors(rng):
    inputs = vectors(rng)
    with pytest.raises(ValueError, match=r"vectors of 'query' and 'item' must have one length, .* Received: 5 and 4"):
        ml.ItemRetrievalTask(normalize=False)({"query": inputs["query"], "item": inputs["item"][:, :4]})
    for number in (40, 41):
        task = ml.ItemRetrievalTask(logq_correction=ml.PopularityLogitsCorrection(number))
        if number == 41:  # ids 0 to 40
            run(task, inputs, np.arange(9))
            continue
        with pytest.raises(
            ValueError,
            match=r"logq_correction must have a frequency for each of the 41 ids of 'movieId', .* Received: 40",
        ):
            run(task, inputs, np.arange(9))
    with pytest.raises(
        ValueError, match=r"must be a dictionary with 'query' and 'item', as of TwoTowerBlock. Received: \['query'\]"
    ):
        ml.ItemRetrievalTask()({"query": inputs["query"]})
    with pytest.raises(ValueError, match=r"Inputs must have the items' ids, 'itemId'. Received: \['movieId'\]"):
        run(ml.ItemRetrievalTask(item_id_name="itemId"), inputs, np.arange(9))
    with pytest.raises(
        ValueError,
        match=r"Targets of task 'item_retrieval_task' must have the shape \(batch,\) or \(batch, 1\). Received: \(9, 9\)",
    ):
        run(ml.ItemRetrievalTask(), inputs, targets=np.eye(9))
    with pytest.raises(ValueError, match=r"metrics of a retrieval task must be ranking metrics"):
        run(ml.ItemRetrievalTask(), inputs, metrics=[keras.metrics.AUC()])
    for wrong in (
        "mse",
        keras.losses.CategoricalCrossentropy(),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    ):
        with pytest.raises(
            ValueError, match=r"loss must be 'categorical_crossentropy', from logits and without label_smoothing"
        ):
            ml.ItemRetrievalTask(wrong)
    with pytest.raises(ValueError, match=r"loss must have a reduction out of"):
        ml.ItemRetrievalTask(keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None))
    for wrong in (0, -1.0, float("inf")):
        with pytest.raises(ValueError, match=r"temperature must be a positive number. Received"):
            ml.ItemRetrievalTask(softmax_temperature=wrong)
    with pytest.raises(ValueError, match=r"temperature must be at least 0.01 to be learned"):
        ml.ItemRetrievalTask(softmax_temperature=0.001, learnable_temperature=True)
    with pytest.raises(ValueError, match=r"precision must be one of"):
        ml.ItemRetrievalTask(precision="float8")


LOG_P = np.log(np.arange(1, 41) / np.arange(1, 41).sum())


def scores_of(inputs, candidates, positive_ids, candidate_ids, positive_log_q=0.0, log_q=0.0):
    """Losses of rows and the ranks of their positives, of cosines with given candidates, in float64."""
    query, item = (inputs[name] / np.linalg.norm(inputs[name], axis=1, keepdims=True) for name in ("query", "item"))
    own = (query * item).sum(1) - positive_log_q
    negatives = np.where(positive_ids[:, None] == candidate_ids, -np.inf, query @ candidates.T - log_q)
    return np.logaddexp(own, np.logaddexp.reduce(negatives, axis=1)) - own, (negatives > own[:, None]).sum(1)


class TestNegatives:
    def test_cross_batch_cache(self, rng):
        task = ml.ItemRetrievalTask(samplers=["in-batch", ml.CachedCrossBatchSampler(5)])
        first, second = vectors(rng), vectors(rng)
        ids = np.arange(1, 10), np.arange(6, 15)
        np.testing.assert_allclose(run(task, first, ids[0]), reference(first)[0].sum(), rtol=1e-5)
        unit = [each["item"] / np.linalg.norm(each["item"], axis=1, keepdims=True) for each in (first, second)]
        candidates, known = np.concatenate([unit[1], unit[0][-5:]]), np.concatenate([ids[1], ids[0][-5:]])
        metric = ml.RecallAt(2)
        losses, rank = scores_of(second, candidates, ids[1], known)
        np.testing.assert_allclose(run(task, second, ids[1], metrics=[metric]), losses.sum(), rtol=1e-5)
        np.testing.assert_allclose(metric.result(), (rank < 2).mean(), rtol=1e-6)

    @pytest.mark.parametrize("unit", [True, False])
    def test_popularity_correction(self, rng, unit):
        frequencies = np.concatenate([[0], np.exp(LOG_P)])
        correction = ml.PopularityLogitsCorrection(frequencies, reg_factor=1.0 if unit else 0.5)
        task = ml.ItemRetrievalTask(logq_correction=correction)
        inputs, ids = vectors(rng), rng.integers(1, 41, 9)
        log_q = (1.0 if unit else 0.5) * LOG_P[ids - 1]
        normal = inputs["item"] / np.linalg.norm(inputs["item"], axis=1, keepdims=True)
        losses, _ = scores_of(inputs, normal, ids, ids, log_q, log_q)
        np.testing.assert_allclose(run(task, inputs, ids), losses.sum(), rtol=1e-5)
        # Evaluation is of scores as they are.
        np.testing.assert_allclose(run(task, inputs, ids, training=False), reference(inputs, ids)[0].sum(), rtol=1e-5)

    def test_streaming_correction(self, rng):
        frequency = ml.StreamingItemFrequency(num_buckets=1000)
        task = ml.ItemRetrievalTask(samplers=ml.InBatchSampler(frequency), logq_correction=True)
        inputs, ids = vectors(rng), np.array([1, 2, 3, 4, 5, 6, 7, 1, 1])
        for step in range(30):
            loss = run(task, inputs, ids if step % 2 else ids + 40)
        log_q = np.asarray(frequency(ids))
        np.testing.assert_allclose(np.exp(log_q[:2]), [1.5, 0.5], rtol=0.1)
        normal = inputs["item"] / np.linalg.norm(inputs["item"], axis=1, keepdims=True)
        np.testing.assert_allclose(loss, scores_of(inputs, normal, ids, ids, log_q, log_q)[0].sum(), rtol=1e-4)

    def test_drawn_ids_and_the_balance_heuristic(self, rng):
        """Negatives of the batch and of a draw: the expected numbers of both count for every score."""
        table = rng.normal(size=(41, 5)).astype(np.float32)
        sampler = ml.PopularityBasedSampler(
            max_id=40, min_id=1, max_num_samples=6, seed=3, item_encoder=lambda ids: tf.gather(table, ids)
        )
        correction = ml.PopularityLogitsCorrection(np.concatenate([[0], np.exp(LOG_P)]))
        task = ml.ItemRetrievalTask(samplers=["in-batch", sampler], logq_correction=correction)
        inputs, ids = vectors(rng), rng.integers(1, 41, 9)
        drawn = []
        sample = sampler.sample_ids
        sampler.sample_ids = lambda: drawn.append(sample()) or drawn[-1]
        loss = run(task, inputs, ids)
        known = np.concatenate([ids, np.asarray(drawn[-1][0])])
        vector = np.concatenate([inputs["item"], table[known[9:]]])
        normal = vector / np.linalg.norm(vector, axis=1, keepdims=True)
        log_q = np.logaddexp(LOG_P[known - 1] + np.log(9), np.asarray(sampler.log_q(known)))
        losses, _ = scores_of(inputs, normal, ids, known, log_q[:9], log_q)
        np.testing.assert_allclose(loss, losses.sum(), rtol=1e-4)

    def test_errors(self, rng):
        inputs = vectors(rng)
        with pytest.raises(ValueError, match=r"The items' ids must be known for these samplers and logq_correction"):
            run(ml.ItemRetrievalTask(samplers=ml.CachedUniformSampler(5)), inputs)
        with pytest.raises(
            ValueError, match=r"logq_correction must be a PopularityLogitsCorrection, or an InBatchSampler must"
        ):
            ml.ItemRetrievalTask(logq_correction=True)
        with pytest.raises(
            ValueError, match=r"logq_correction must be True where an InBatchSampler has an item_frequency"
        ):
            ml.ItemRetrievalTask(samplers=ml.InBatchSampler(ml.StreamingItemFrequency(10)))
        with pytest.raises(ValueError, match=r"samplers must have at most one InBatchSampler. Received: 2"):
            ml.ItemRetrievalTask(samplers=["in-batch", "in-batch"])
        with pytest.raises(TypeError, match=r"logq_correction must be a bool or a PopularityLogitsCorrection"):
            ml.ItemRetrievalTask(logq_correction="popularity")
        with pytest.raises(ValueError, match=r"item_encoder of .* must be given where the item tower cannot do it"):
            run(
                ml.ItemRetrievalTask(samplers=ml.PopularityBasedSampler(max_id=40, max_num_samples=5)),
                inputs,
                np.arange(9),
            )
        with pytest.raises(
            ValueError, match=r"symmetric must be False unless the items of the batch are the only candidates"
        ):
            ml.ItemRetrievalTask(symmetric=True, samplers=["in-batch", ml.CachedUniformSampler(5)])


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("name", ["bpr", "bpr-max", "top1", "top1_v2", "top1-max", "logistic", "hinge"])
def test_pairwise_losses(rng, name):
    """Beside the loss itself on the matrix of scores; all ids differ, so the pairs are those of the other columns."""
    inputs, targets = vectors(rng), np.array([1, 0, 1, 1, 0, 1, 1, 1, 1])
    query, item = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in inputs.values())
    scores = (query @ item.T / 0.5).astype(np.float32)
    metric = ml.MRRAt(9)
    value = run(ml.ItemRetrievalTask(name, softmax_temperature=0.5), inputs, np.arange(9), targets, metrics=[metric])
    expected = ml.losses.loss_registry.parse(name)(np.eye(9, dtype=np.float32), scores, sample_weight=targets)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    rank = (scores > np.diag(scores)[:, None]).sum(1)
    np.testing.assert_allclose(metric.result(), (1 / (1 + rank))[targets > 0].mean(), rtol=1e-5)


def test_pairwise_losses_leave_out_accidental_hits(rng):
    inputs = vectors(rng, 2)
    assert float(run(ml.ItemRetrievalTask("bpr"), inputs, np.array([5, 5]))) == 0


def test_both_names_of_the_temperature():
    late, early = ml.ItemRetrievalTask(logits_temperature=0.5), ml.ItemRetrievalTask(softmax_temperature=0.5)
    assert late.get_config()["softmax_temperature"] == early.get_config()["softmax_temperature"] == 0.5
    with pytest.raises(ValueError, match=r"its later name\. Received: 2 and 0\.5"):
        ml.ItemRetrievalTask(softmax_temperature=2, logits_temperature=0.5)
