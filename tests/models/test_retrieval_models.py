"""Retrieval models: training, what they recommend, evaluation on the catalogue, files, mixed precision, errors."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from retrieval_data import CATALOGUE, IDS, MOVIES, SCHEMA, USERS, interactions, likes

import merlin_models.tf as ml

METRICS = {f"item_retrieval_task/{name}_at_10" for name in ("recall", "mrr", "ndcg", "map", "precision")}


def two_towers(schema=SCHEMA, **kwargs):
    keras.utils.set_random_seed(2)
    options = ml.EmbeddingOptions(embedding_dim_default=16)
    kwargs = {"logits_temperature": 0.1, "embedding_options": options, **kwargs}
    return ml.TwoTowerModel(schema, query_tower=ml.MLPBlock([16], activation="linear"), **kwargs)


@pytest.fixture(scope="module")
def trained():
    model = two_towers()
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    history = model.fit(interactions(), batch_size=64, epochs=8, verbose=0).history
    assert set(history) == METRICS | {"loss", "regularization_loss", "total_loss"}
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    return model


def test_connect_makes_a_retrieval_model():
    towers = ml.TwoTowerBlock(SCHEMA, query_tower=ml.MLPBlock([8]))
    assert type(towers.connect(ml.ItemRetrievalTask())) is ml.RetrievalModel
    assert type(towers.connect(ml.L2Norm()).connect(ml.ItemRetrievalTask())) is ml.RetrievalModel
    assert type(ml.InputBlock(SCHEMA).connect(ml.MLPBlock([8]), ml.BinaryClassificationTask("click"))) is ml.Model


def test_it_recommends_what_users_like(trained):
    users = np.arange(1, USERS + 1)
    found = trained.to_top_k_encoder(CATALOGUE, k=8).recommend(users)
    assert found.identifiers.shape == found.scores.shape == (USERS, 8)
    assert found.identifiers.dtype == np.int64
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert likes(users, found.identifiers).mean() > 0.95


def test_recommendations_are_the_best_products(trained):
    queries = trained.query_embeddings({"userId": np.arange(1, USERS + 1)})
    items = trained.item_embeddings(CATALOGUE)
    assert queries.index.name == "userId"
    assert items.index.tolist() == CATALOGUE["movieId"].tolist()
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)  # as the task normalizes
    scores = queries.to_numpy() @ items.to_numpy().T
    found = trained.to_top_k_recommender(CATALOGUE, k=5).batch_predict(
        {"userId": np.arange(1, USERS + 1)}, batch_size=7
    )
    np.testing.assert_array_equal(found.identifiers, np.argsort(-scores, axis=1, kind="stable")[:, :5] + 1)
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :5], rtol=1e-5)
    pairs = {"userId": np.arange(1, 9), "movieId": np.arange(1, 9), "genres": CATALOGUE["genres"][:8]}
    np.testing.assert_allclose(trained.predict(pairs, verbose=0)[:, 0], np.diag(scores)[:8], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["frame", "dictionary", "object"])
def test_seen_items_are_excluded(trained, form):
    rows = interactions()
    seen = {name: rows[name] for name in ("userId", "movieId")}
    given = {"frame": pd.DataFrame(seen), "dictionary": seen, "object": ml.SeenItems(seen["userId"], seen["movieId"])}[
        form
    ]
    users = np.arange(1, USERS + 1)
    found = trained.to_top_k_encoder(CATALOGUE).recommend(users, k=MOVIES, exclude_seen=given).identifiers
    for user, items in zip(users, found, strict=True):
        had = set(rows["movieId"][rows["userId"] == user])
        assert set(items[items >= 0]) == set(CATALOGUE["movieId"]) - had
        assert (items[MOVIES - len(had) :] == -1).all()


def test_evaluation_on_the_catalogue(trained):
    rows, targets = interactions(100, seed=5), np.arange(100) % 4 != 0
    weights = np.random.default_rng(1).uniform(0.5, 2, 100)
    scores = (
        trained.query_embeddings({"userId": np.arange(1, USERS + 1)}).to_numpy()
        @ trained.item_embeddings(CATALOGUE).T.to_numpy()
    )
    of_rows = scores[rows["userId"] - 1]
    rank = (of_rows > of_rows[np.arange(100), rows["movieId"] - 1][:, None]).sum(1)

    results = trained.evaluate(rows, item_corpus=CATALOGUE, return_dict=True, batch_size=30)
    assert set(results) == METRICS
    assert results["item_retrieval_task/recall_at_10"] == pytest.approx((rank < 10).mean(), abs=1e-6)
    assert results["item_retrieval_task/mrr_at_10"] == pytest.approx(
        np.where(rank < 10, 1 / (rank + 1), 0).mean(), abs=1e-6
    )
    counted = trained.evaluate(rows, targets, sample_weight=weights, item_corpus=CATALOGUE, return_dict=True)
    assert counted["item_retrieval_task/recall_at_10"] == pytest.approx((rank < 10)[targets].mean(), abs=1e-6)

    recommender = trained.to_top_k_encoder(CATALOGUE)
    batches = tf.data.Dataset.from_tensor_slices((rows, rows["movieId"])).batch(32)
    assert list(recommender.evaluate(batches, return_dict=True).values()) == pytest.approx(
        [results[f"item_retrieval_task/{name}"] for name in recommender.evaluate(batches, return_dict=True)]
    )
    assert trained.evaluate(rows, item_corpus=recommender) == pytest.approx(list(results.values()))


def test_a_recommender_is_compiled_with_another_k(trained, tmp_path):
    recommender, users = trained.to_top_k_encoder(CATALOGUE, k=8), {"userId": np.arange(1, USERS + 1)}
    assert recommender.predict(users, verbose=0)[1].shape == (USERS, 8)
    best = recommender.recommend(users).identifiers
    recommender.compile(k=3)
    np.testing.assert_array_equal(recommender.predict(users, verbose=0)[1], best[:, :3])
    rows = interactions()
    batches = tf.data.Dataset.from_tensor_slices((rows, rows["movieId"])).batch(32)
    assert set(recommender.evaluate(batches, return_dict=True)) == {name.split("/")[1][:-2] + "3" for name in METRICS}
    recommender.compile(metrics=[ml.RecallAt(2)])
    assert list(recommender.evaluate(batches, return_dict=True)) == ["recall_at_2"]
    recommender.save(tmp_path / "recommender.keras")
    loaded = keras.models.load_model(tmp_path / "recommender.keras")
    np.testing.assert_array_equal(loaded.predict(users, verbose=0)[1], best[:, :3])
    assert loaded.evaluate(batches, return_dict=True) == recommender.evaluate(batches, return_dict=True)
    with pytest.raises(ValueError, match=rf"at most the number of candidates, {MOVIES}\. Received: 9999"):
        recommender.compile(k=9999)


def test_evaluation_without_seen_items(trained):
    rows = {
        name: np.array(value)
        for name, value in {"userId": [1, 1], "movieId": [2, 6], "genres": [[2, 0], [2, 0]]}.items()
    }
    seen = {"userId": np.full(MOVIES - 2, 1), "movieId": np.setdiff1d(CATALOGUE["movieId"], [2, 6])}
    results = trained.evaluate(rows, item_corpus=CATALOGUE, exclude_seen=seen, return_dict=True)
    assert results["item_retrieval_task/mrr_at_10"] == pytest.approx(0.75)  # of two, one is first and one second


def test_data_of_all_forms(trained):
    rows = interactions(50)
    frame = pd.DataFrame({**rows, "genres": list(rows["genres"])})
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(20)
    expected = trained.to_item_encoder().batch_predict(rows)
    for data in (frame, batches):
        np.testing.assert_allclose(trained.to_item_encoder().batch_predict(data), expected, rtol=1e-5, atol=1e-6)
        encoded = trained.item_embeddings(data)
        assert sorted(encoded.index) == sorted(set(rows["movieId"]))
    np.testing.assert_allclose(encoded.loc[rows["movieId"][7]], expected[7], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frame", [False, True])
def test_data_without_rows(trained, frame):
    users = {"userId": np.zeros(0, np.int64)}
    users = pd.DataFrame(users) if frame else users
    recommender = trained.to_top_k_encoder(CATALOGUE, k=3)
    seen = {"userId": np.array([1]), "movieId": np.array([2])}
    for k, found in ((3, recommender.recommend(users)), (2, recommender.recommend(users, exclude_seen=seen, k=2))):
        assert found.scores.shape == found.identifiers.shape == (0, k)
        assert found.identifiers.dtype == np.int64
    assert trained.to_query_encoder().batch_predict(users).shape == (0, 16)
    assert trained.query_embeddings(users).shape == (0, 16)
    with pytest.raises(ValueError, match=r"at most the number of candidates, 0\. Received: 10"):
        trained.to_top_k_encoder({name: value[:0] for name, value in CATALOGUE.items()})


def test_files(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is ml.RetrievalModel
    rows = interactions(64)
    assert again.evaluate(rows, verbose=0) == pytest.approx(trained.evaluate(rows, verbose=0))
    again.fit(rows, verbose=0)  # its optimizer is there, too

    recommender = trained.to_top_k_encoder(CATALOGUE, k=3)
    recommender.save(tmp_path / "recommender.keras")
    loaded = keras.models.load_model(tmp_path / "recommender.keras")
    users = np.arange(1, USERS + 1)
    for one, other in zip(recommender.recommend(users), loaded.recommend(users), strict=True):
        np.testing.assert_array_equal(one, other)
    predicted = loaded.predict({"userId": users}, verbose=0)
    np.testing.assert_array_equal(predicted[1], recommender.recommend(users).identifiers)
    fewer = {name: value[:20] for name, value in CATALOGUE.items()}
    assert loaded.index_candidates(fewer).recommend(users, k=20).identifiers.max() == 20


def test_ids_beyond_32_bits():
    column = ml.ColumnSchema("itemId", np.int64, tags=("item_id",))
    schema = ml.Schema([ml.ColumnSchema.create_continuous("price", tags=["item"])])
    encoder = ml.Encoder(schema, keras.layers.Dense(4))
    user = ml.EmbeddingEncoder(IDS.select_by_name("userId"), dim=4)
    ids = 2**53 + np.arange(5)
    catalogue = {"itemId": ids, "price": np.arange(5, dtype=np.float32)}
    found = ml.TopKEncoder(user, candidates=catalogue, candidate_encoder=encoder, k=5, candidate_id=column.name)
    assert set(found.recommend([1]).identifiers[0]) == set(ids)
    seen = ml.SeenItems([1, 1], ids[:2])
    assert set(found.recommend([1], exclude_seen=seen).identifiers[0]) == {*ids[2:], -1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: ml.MatrixFactorizationModel(IDS, dim=16, loss="bpr", logits_temperature=0.1),
        lambda: ml.MatrixFactorizationModelV2(IDS, dim=16, post=ml.L2Norm(), logits_temperature=0.1),
        lambda: ml.TwoTowerModelV2(
            *(
                ml.Encoder(IDS.select_by_name(name), ml.MLPBlock([16], activation="linear"))
                for name in ("userId", "movieId")
            ),
            outputs=ml.ContrastiveOutput(normalize=True, logits_temperature=0.1),
        ),
    ],
    ids=["matrix factorization", "matrix factorization v2", "two towers v2"],
)
def test_other_models_learn(make, tmp_path):
    keras.utils.set_random_seed(2)
    model = make()
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    rows = interactions(1024)
    if model.prediction_tasks[0].item_name == "candidate":
        assert model.prediction_tasks[0].loss.reduction == "sum_over_batch_size"
    model.fit(rows, batch_size=64, epochs=4, verbose=0)
    users = np.arange(1, USERS + 1)
    recommender = model.to_top_k_encoder({"movieId": CATALOGUE["movieId"]}, k=8)
    assert likes(users, recommender.recommend(users).identifiers).mean() > 0.9
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(rows, verbose=0) == pytest.approx(model.evaluate(rows, verbose=0))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = two_towers(task_options={"learnable_temperature": True})
        model.compile(optimizer=keras.optimizers.Adam(0.02))
        rows = interactions(256)
        history = model.fit(rows, batch_size=64, epochs=3, verbose=0).history
        found = model.to_top_k_encoder(CATALOGUE, k=4).recommend(np.array([1, 2]))
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert found.scores.dtype == np.float32
    assert model.predict({name: value[:3] for name, value in rows.items()}, verbose=0).dtype == np.float32


def test_last_batch_of_one_row():
    model = two_towers()
    model.compile(optimizer="adam")
    history = model.fit(interactions(33), batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert np.isfinite(model.evaluate(interactions(33), batch_size=32, verbose=0)).all()


def test_eager_steps_and_graphs_agree():
    rows, logs = interactions(128), []
    for eagerly in (True, False):
        model = two_towers()
        model.compile(optimizer="adam", run_eagerly=eagerly)
        logs.append(model.fit(rows, batch_size=64, shuffle=False, verbose=0).history)
    for name, values in logs[0].items():
        assert logs[1][name] == pytest.approx(values, rel=1e-4), name


def test_weighted_metrics_and_other_metrics():
    model = two_towers()
    model.compile(optimizer="adam", metrics=[ml.RecallAt(5)], weighted_metrics=[ml.NDCGAt(top_ks=[5, 10])])
    rows, weights = interactions(64), np.linspace(0.5, 2, 64)
    results = model.evaluate(rows, sample_weight=weights, return_dict=True, verbose=0)
    names = {f"item_retrieval_task/{name}" for name in ("recall_at_5", "ndcg_at_5", "ndcg_at_10")}
    assert set(results) == names | {"loss", "regularization_loss", "total_loss"}
    assert set(model.evaluate(rows, sample_weight=weights, item_corpus=CATALOGUE, return_dict=True)) == names


def test_errors(trained):
    rows = interactions(8)
    with pytest.raises(ValueError, match=r"missing: \['movieId'\]"):
        trained.evaluate({name: rows[name] for name in ("userId", "genres")}, verbose=0)
    with pytest.raises(ValueError, match=r"exclude_seen must be None without item_corpus"):
        trained.evaluate(rows, exclude_seen=rows)
    repeated = {name: np.concatenate([value[:2], value]) for name, value in CATALOGUE.items()}
    with pytest.raises(ValueError, match=r"make sure that `data` contains unique indices. Received twice: \[1, 2\]"):
        trained.to_top_k_encoder(repeated)
    with pytest.raises(ValueError, match=r"k must be at most the number of candidates, 40. Received: 41"):
        trained.to_top_k_encoder(CATALOGUE, k=41)
    with pytest.raises(
        ValueError, match=r"topk_layer must be a layer or one of \['brute-force-topk'\]. Received: 'ann'"
    ):
        trained.to_top_k_encoder(CATALOGUE, strategy="ann")
    recommender = trained.to_top_k_encoder(CATALOGUE)
    with pytest.raises(
        ValueError, match=r"Metrics must look at no more than the k = 5 candidates of a query. Received: 10"
    ):
        trained.evaluate(rows, item_corpus=trained.to_top_k_encoder(CATALOGUE, k=5))
    with pytest.raises(ValueError, match=r"Interactions must have the columns 'userId' and 'movieId'"):
        recommender.recommend([1], exclude_seen={"userId": [1]})
    with pytest.raises(TypeError, match=r"exclude_seen must be a SeenItems, or a DataFrame or dictionary"):
        recommender.recommend([1], exclude_seen=[[1]])
    with pytest.raises(ValueError, match=r"Targets must be the ids of the true candidates. Received: none"):
        recommender.evaluate({"userId": np.array([1])})
    with pytest.raises(ValueError, match=r"index_candidates\(\) must be called before"):
        ml.TopKEncoder(trained.to_query_encoder()).recommend([1])
    with pytest.raises(ValueError, match=r"A retrieval model must be two towers"):
        ml.RetrievalModel(ml.InputBlock(SCHEMA), ml.ItemRetrievalTask())
    with pytest.raises(ValueError, match=r"Arrays must be of one length. Received: {'userId': 8, 'movieId': 7"):
        trained.to_item_encoder().batch_predict({**rows, "movieId": rows["movieId"][:7]})


@pytest.mark.parametrize(("version", "sampled"), [(1, True), (1, False), (2, True)])
def test_youtube(version, sampled, tmp_path):
    """The next item is of the kind of those in the history."""
    keras.utils.set_random_seed(2)
    history = ml.ColumnSchema.create_categorical("movieId", MOVIES, value_count=(0, 3), tags=[ml.Tags.ITEM_ID])
    schema = ml.Schema([history, SCHEMA["userId"]])
    options = {"num_sampled": 10, "min_sampled_id": 1, "logits_temperature": 0.1}
    top = ml.MLPBlock([16], activation="linear")
    if version == 1:
        model = ml.YoutubeDNNRetrievalModel(schema, top_block=top, sampled_softmax=sampled, **options)
    else:
        model = ml.YoutubeDNNRetrievalModelV2(schema, top_block=top, dim=16, **options)
        tables = [
            layer.table_configs for layer in model._flatten_layers() if isinstance(layer, ml.EmbeddingBagCollection)
        ]
        assert sorted(name for names in tables for name in names) == ["movieId", "userId"]  # one table of movies
    rng = np.random.default_rng(4)
    kind = rng.integers(0, 4, 512)
    movies = rng.integers(0, MOVIES // 4, (512, 4)) * 4 + kind[:, None] + 1
    movies[::5, 2] = 0  # shorter histories
    rows = {"movieId": movies[:, :3], "userId": rng.integers(1, USERS + 1, 512)}
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    model.fit(rows, movies[:, 3], batch_size=64, epochs=14, verbose=0)
    results = model.evaluate(rows, movies[:, 3], return_dict=True, verbose=0)
    assert results["sampled_softmax_task/recall_at_10"] > 0.9  # of all, ten of which are of the kind

    recommender = model.to_top_k_encoder(k=10)
    found = recommender.recommend(rows).identifiers
    assert ((found - 1) % 4 == kind[:, None]).mean() > 0.75
    assert found.min() >= 1
    scores = model.predict(rows, verbose=0)
    assert scores.shape == (512, MOVIES + 1)
    assert np.isneginf(scores[:, 0]).all()
    np.testing.assert_array_equal(np.sort(np.argsort(-scores, axis=1)[:, :10]), np.sort(found))

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(rows, verbose=0)[:, 1:], scores[:, 1:], rtol=1e-6)
    assert len(again.weights) == len(model.weights)


def test_youtube_needs_a_history():
    with pytest.raises(ValueError, match=r"The schema should contain one list with the tag `item_id`, the history"):
        ml.YoutubeDNNRetrievalModel(SCHEMA)


def test_negatives_that_are_drawn_are_encoded_by_the_item_tower():
    keras.utils.set_random_seed(2)
    samplers = [ml.PopularityBasedSampler(max_id=MOVIES, min_id=1, max_num_samples=20)]
    options = {"logq_correction": True}
    model = ml.MatrixFactorizationModel(IDS, 16, logits_temperature=0.1, samplers=samplers, task_options=options)
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    model.fit(interactions(1024), batch_size=64, epochs=4, verbose=0)
    users = np.arange(1, USERS + 1)
    found = model.to_top_k_encoder({"movieId": CATALOGUE["movieId"]}, k=8).recommend(users)
    assert likes(users, found.identifiers).mean() > 0.9
    model = two_towers(samplers=samplers)  # whose item tower reads genres, too
    model.compile(optimizer="adam")
    with pytest.raises(ValueError, match=r"item_encoder of .* must be given where the item tower cannot do it"):
        model.fit(interactions(8), verbose=0)


def test_caches_are_saved(tmp_path):
    model = two_towers(samplers=["in-batch", ml.CachedUniformSampler(30)])
    model.compile(optimizer="adam")
    rows = interactions(128)
    model.fit(rows, batch_size=32, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    caches = [each.prediction_tasks[0].negatives.samplers[1] for each in (model, again)]
    assert int(caches[1].count) == 30
    for name in ("ids", "embeddings"):
        np.testing.assert_array_equal(getattr(caches[1], name), getattr(caches[0], name))
