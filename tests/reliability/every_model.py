"""Models of each kind with optimizers of each kind, and a training of each in two halves.

    python every_model.py first|second FOLDER NAME...

"first" trains, saves a file, and notes what the model answers and where training ends. "second", in a process of its own,
compares that with the file's model and its training, to the bit, and with the exports.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import merlin_models.tf as ml

TAGS = ml.Tags
IDS = [
    ml.ColumnSchema.create_categorical("user", 30, tags=[TAGS.USER_ID]),
    ml.ColumnSchema.create_categorical("movie", 40, tags=[TAGS.ITEM_ID, TAGS.ITEM]),
]
FEATURES = ml.Schema(
    [
        *IDS,
        ml.ColumnSchema.create_categorical("genres", 8, value_count=(0, 4), tags=[TAGS.ITEM]),
        ml.ColumnSchema.create_continuous("age", tags=[TAGS.USER]),
        ml.ColumnSchema.create_continuous("taste", shape=(3,), tags=[TAGS.USER]),
    ]
)
TARGETS = ml.Schema(
    [
        ml.ColumnSchema("click", np.int64, tags=(TAGS.TARGET, TAGS.BINARY_CLASSIFICATION)),
        ml.ColumnSchema("seconds", np.float32, tags=(TAGS.TARGET, TAGS.REGRESSION)),
    ]
)
ALL, IDS = ml.Schema([*FEATURES, *TARGETS]), ml.Schema(IDS)
SESSIONS = ml.Schema([ml.ColumnSchema.create_categorical("item", 10, value_count=(0, 0), tags=[TAGS.ITEM_ID])])
VECTORS = np.random.default_rng(0).normal(size=(41, 5)).astype(np.float32)
SCHEDULE = keras.optimizers.schedules.ExponentialDecay


def click():
    return ml.BinaryClassificationTask("click")


def model_of(*blocks, columns=FEATURES, **options):
    return ml.Model(ml.InputBlock(columns, **options), *blocks, click())


def dlrm():
    options = ml.EmbeddingOptions(embedding_dim_default=8)
    bottom, top = ml.MLPBlock([8]), ml.MLPBlock([8])
    return ml.DLRMModel(
        FEATURES, embedding_options=options, bottom_block=bottom, top_block=top, prediction_tasks=click()
    )


def hashed():
    wide = ml.HashedCross(IDS, num_bins=30, sparse=True)
    return ml.WideAndDeepModel(
        FEATURES, ml.MLPBlock([8]), wide_schema=IDS, wide_preprocess=wide, prediction_tasks=click()
    )


def experts(block, **options):
    inputs = ml.InputBlock(FEATURES, aggregation="concat")
    return ml.Model(inputs, block(ml.PredictionTasks(ALL), ml.MLPBlock([8]), **options), ml.PredictionTasks(ALL))


def progressive(outputs, expert):
    return ml.PLEBlock(2, outputs=outputs, expert_block=expert, num_task_experts=1, num_shared_experts=2)


def pretrained():
    initial = {"movie": ml.TensorInitializer(VECTORS)}
    options = ml.EmbeddingOptions(embeddings_initializers=initial, embedding_dims={"movie": 5, "user": 4})
    return model_of(ml.MLPBlock([8]), columns=IDS, embedding_options=options, aggregation="concat")


def towers(**options):
    return ml.TwoTowerModel(FEATURES, query_tower=ml.MLPBlock([8]), **options)


def streamed():
    sampler = ml.InBatchSampler(ml.StreamingItemFrequency())
    return towers(samplers=sampler, task_options={"logq_correction": True, "learnable_temperature": True})


def sessions(body, sampled=False):
    table = ml.EmbeddingTable(8, SESSIONS["item"])
    sampler = ml.PopularityBasedSampler(max_id=10, min_id=1, max_num_samples=6)
    output = ml.SampledSoftmaxTask(table, sampler, min_id=1) if sampled else ml.CategoricalOutput(table)
    return ml.Model(ml.InputBlockV2(SESSIONS, categorical=table), body, output)


def half(make, policy="mixed_bfloat16"):
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy("float32")


def frozen():
    model = model_of(ml.MLPBlock([8]))
    model.freeze_blocks(model.blocks[0])
    return model


def masked(kind):
    return sessions(kind(8, 2, 1, pre="replace_masked_embeddings"))


def some_tables(model):
    large, small = ml.split_embeddings_on_size(model.blocks[0], threshold=35)
    parts = [ml.OptimizerBlocks(ml.RowwiseAdagrad(0.05), large), ml.OptimizerBlocks("sgd", small)]
    return {"optimizer": ml.MultiOptimizer([*parts, ml.OptimizerBlocks("adagrad", model.blocks[1])], "adam")}


def with_optimizer(optimizer, **options):
    return lambda _: {"optimizer": optimizer(), **options}


ADAM = with_optimizer(keras.optimizers.Adam)
DECAY = with_optimizer(lambda: keras.optimizers.AdamW(SCHEDULE(0.01, 2, 0.5), weight_decay=0.1))
SUMS = with_optimizer(lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3))
SCALED = with_optimizer(lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), dynamic_growth_steps=2))
OWN = with_optimizer(keras.optimizers.Adam, embedding_optimizer=ml.LazyAdam(SCHEDULE(0.1, 1, 0.5)))
DENSE = with_optimizer(
    lambda: keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=3), embedding_optimizer="dense"
)
NEXT, MASK = ml.SequencePredictNext, ml.SequenceMaskLast

# name -> (model, compile's arguments of the model, columns of features, targets, transform)
MODELS = {
    "dropout": (
        lambda: model_of(ml.MLPBlock([16, 8], dropout=0.3, normalization="batch_norm")),
        ADAM,
        FEATURES,
        ["click"],
    ),
    "dlrm": (dlrm, OWN, FEATURES, ["click"]),
    "dcn": (lambda: ml.DCNModel(FEATURES, 2, ml.MLPBlock([8]), prediction_tasks=click()), DECAY, FEATURES, ["click"]),
    "deepfm": (lambda: ml.DeepFMModel(FEATURES, 8, prediction_tasks=click()), SUMS, FEATURES, ["click"]),
    "hashed": (hashed, with_optimizer(keras.optimizers.Ftrl), FEATURES, ["click"]),
    "ncf": (lambda: ml.NCFModel(IDS, 8, ml.MLPBlock([8]), prediction_tasks=click()), DENSE, IDS, ["click"]),
    "mmoe": (lambda: experts(ml.MMOEBlock, num_experts=2), SCALED, FEATURES, ["click", "seconds"]),
    "ple": (lambda: experts(progressive), ADAM, FEATURES, ["click", "seconds"]),
    "pretrained": (pretrained, with_optimizer(keras.optimizers.Adagrad), IDS, ["click"]),
    "frozen": (frozen, ADAM, FEATURES, ["click"]),
    "several optimizers": (lambda: model_of(ml.MLPBlock([8])), some_tables, FEATURES, ["click"]),
    "bfloat16": (lambda: half(dlrm), ADAM, FEATURES, ["click"]),
    "float16": (lambda: half(dlrm, "mixed_float16"), ADAM, FEATURES, ["click"]),
    "two towers": (towers, ADAM, FEATURES, []),
    "cached": (lambda: towers(samplers=["in-batch", ml.CachedCrossBatchSampler(64)]), ADAM, FEATURES, []),
    "streamed": (streamed, ADAM, FEATURES, []),
    "factorization": (lambda: ml.MatrixFactorizationModel(IDS, dim=8), ADAM, IDS, []),
    "gpt2": (lambda: sessions(ml.GPT2Block(8, 2, 1), sampled=True), ADAM, SESSIONS, [], NEXT),
    "bert": (lambda: masked(ml.BertBlock), ADAM, SESSIONS, [], MASK),
    "xlnet": (lambda: masked(ml.XLNetBlock), ADAM, SESSIONS, [], MASK),
    "gru": (lambda: sessions(keras.layers.GRU(8, return_sequences=True, dropout=0.2)), ADAM, SESSIONS, [], NEXT),
}
HALF = {"bfloat16": 0.03, "float16": 0.005}  # how far exports may be from the model there; else 1e-5


def batch(columns, targets, rows, seed):
    """Features, with lists ragged, some of them empty, and targets or None."""
    rng = np.random.default_rng(seed)
    features = {}
    for column in columns:
        if column.is_list and column.has_tag(TAGS.CATEGORICAL):
            offsets = np.concatenate([[0], np.cumsum(rng.integers(0 if column.name == "genres" else 2, 6, rows))])
            values = rng.integers(1, column.cardinality, offsets[-1])
            features[column.name] = tf.RaggedTensor.from_row_splits(values, offsets)
        elif column.has_tag(TAGS.CATEGORICAL):
            features[column.name] = tf.constant(rng.integers(1, column.cardinality, rows))
        else:
            features[column.name] = tf.constant(rng.normal(size=(rows, *(column.shape or ()))).astype(np.float32))
    numbers = {"click": rng.integers(0, 2, (rows, 1)), "seconds": rng.normal(size=(rows, 1))}
    chosen = {name: numbers[name] for name in targets}
    return features, (chosen or None) if len(chosen) != 1 else chosen[targets[0]]


def train(model, columns, targets, seeds, transform=None):
    parts = [tuple(x for x in batch(columns, targets, 24, seed) if x is not None) for seed in seeds]
    specs = keras.tree.map_structure(_spec, parts[0] if len(parts[0]) > 1 else parts[0][0])
    batches = (part if len(part) > 1 else part[0] for part in parts)
    data = tf.data.Dataset.from_generator(lambda: batches, output_signature=specs)
    model.fit(data, verbose=0, **({"pre": transform(SESSIONS)} if transform else {}))


def _spec(x):
    if isinstance(x, tf.RaggedTensor):
        return tf.RaggedTensorSpec([None, None], x.dtype, row_splits_dtype=tf.int64)
    return tf.TensorSpec([None, *x.shape[1:]], x.dtype)


def numbers(outputs):
    """Outputs of a model or an export as arrays, by their names: a loaded dictionary has no order."""
    outputs = [outputs[name] for name in sorted(outputs)] if isinstance(outputs, dict) else [outputs]
    flat = [x.flat_values if isinstance(x, tf.RaggedTensor) else x for x in outputs]
    return [np.array(tf.cast(x, tf.float64)) for x in flat]


def state(model):
    variables = [each for each in (*model.variables, *model.optimizer.variables) if "metric" not in each.path]
    return [
        np.array(tf.cast(each.value, tf.float64)) if each.dtype == "bfloat16" else np.array(each) for each in variables
    ]


def asked(model, columns):
    return [numbers(model(batch(columns, [], 33, 55)[0] if rows else none(columns))) for rows in (33, 0)]


def none(columns):
    return {name: x[:0] for name, x in batch(columns, [], 3, 55)[0].items()}


def first(folder, name):
    make, compiled, columns, targets, *transform = MODELS[name]
    keras.utils.set_random_seed(7)
    model = make()
    model.compile(**compiled(model))
    train(model, columns, targets, (1, 2), *transform)
    model.save(folder / f"{name}.keras")
    for portable in (False, True):
        model.export(folder / f"{name} {portable}", portable=portable, verbose=False)
    answers = asked(lambda x: model(x, training=False), columns)
    train(model, columns, targets, (3, 4), *transform)
    (folder / f"{name}.pickle").write_bytes(pickle.dumps((answers, state(model))))


def second(folder, name):
    _, _, columns, targets, *transform = MODELS[name]
    keras.utils.set_random_seed(99)
    answers, end = pickle.loads((folder / f"{name}.pickle").read_bytes())
    model = keras.models.load_model(folder / f"{name}.keras")
    for mine, theirs in zip(asked(lambda x: model(x, training=False), columns), answers, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    for portable in (False, True):
        loaded = tf.saved_model.load(str(folder / f"{name} {portable}"))  # holds the variables of its functions
        served = asked(loaded.serve, columns)
        for mine, theirs in zip(served, answers, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=HALF.get(name, 1e-5))
    train(model, columns, targets, (3, 4), *transform)
    for mine, theirs in zip(state(model), end, strict=True):
        np.testing.assert_array_equal(mine, theirs)


if __name__ == "__main__":
    half_of_training, path, *names = sys.argv[1:]
    for each in names:
        {"first": first, "second": second}[half_of_training](pathlib.Path(path), each)
        print(each, flush=True)
