"""The notebooks, executed on the twin, and what is kept of them in the repository."""

from __future__ import annotations

import os
import sys

import pytest
from conftest import ROOT

pytest.importorskip("nvtabular", reason="needs nvtabular: the notebooks' data preparation")
pytest.importorskip("matplotlib", reason="needs matplotlib: the notebooks' pictures")
nbformat = pytest.importorskip("nbformat", reason="needs nbformat: the notebooks")
pytest.importorskip("nbclient", reason="needs nbclient: the notebooks' execution")
pytest.importorskip("ipykernel", reason="needs ipykernel: the notebooks' execution")

sys.path.append(str(ROOT / "examples" / "notebooks"))

import execute  # noqa: E402

# Lines of the notebook that this project started from, other than those that only name a folder.
TUTORIAL = """
from nvtabular.loader.tensorflow import KerasSequenceLoader
import merlin_models.tf as ml
from merlin_standard_lib import Schema, Tag
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
schema = Schema().from_proto_text(SCHEMA_PATH)
!head -30 $SCHEMA_PATH
schema = schema.remove_by_name(['rating', 'title', 'TE_movieId_rating', 'userId_count'])
schema.column_names
model = ml.Model(
ml.InputBlock(schema),
ml.MLPBlock([64, 32]),
ml.BinaryClassificationTask("rating_b")
x_cat_names, x_cont_names = ['userId', 'movieId', 'genres'], []
sparse_features_max = {'genres': 10}
def get_dataloader(paths_or_dataset, batch_size=4096):
sparse_names=list(sparse_features_max.keys()),
return dataloader.map(lambda X, y: (X, tf.reshape(y, (-1,))))
train_paths = glob.glob(os.path.join(OUTPUT_DIR, "train/*.parquet"))
model.compile(optimizer="adam", run_eagerly=False)
losses = model.fit(train_loader, epochs=1)
model.reset_metrics()
eval_metrics = model.evaluate(eval_loader, return_dict=True)
model = ml.InputBlock(schema).connect(ml.MLPBlock([64, 32]), ml.BinaryClassificationTask("rating_b"))
body = ml.InputBlock(schema).connect_branch(block1, block2, aggregation='concat')
model = body.connect(ml.BinaryClassificationTask("rating_b"))
schema = schema.remove_by_name(['rating', 'title'])
def get_dataloader(paths_or_dataset, batch_size=20):
two_tower = ml.TwoTowerBlock(schema, query_tower=ml.MLPBlock([512, 256]))
model = two_tower.connect(ml.ItemRetrievalTask(softmax_temperature=2))
user_model = model[0]['query']
user_model(user_id)
"""


def sources(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook, source: str):
    """Of the first cell whose code has `source` in it: the text that it printed or gave, and its images."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source)
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "".join(parts), [output for output in cell.outputs if "image/png" in output.get("data", {})]


@pytest.fixture(scope="module")
def executed(twin_folder, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MERLIN_DATA_DIR", str(twin_folder))
    patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    try:
        folder = tmp_path_factory.mktemp("notebooks")
        return {path.name[:2]: notebook for path, notebook in execute.execute(folder).items()}
    finally:
        patch.undo()


def test_download_and_convert(executed):
    printed, _ = outputs(executed["01"], "print(f")
    assert "by 100 users of 150 movies, from the folder that MERLIN_DATA_DIR names" in printed
    assert outputs(executed["01"], "plt.show()")[1]


def test_etl(executed):
    shown, _ = outputs(executed["02"], "Schema().from_proto_text")
    columns = ["movieId", "userId", "genres", "TE_movieId_rating", "userId_count", "rating", "rating_b", "title"]
    assert [line.split(":")[0].strip() for line in shown.splitlines()[1:-1]] == columns
    assert outputs(executed["02"], "plt.show()")[1]


def test_models(executed):
    notebook = executed["03"]
    printed, _ = outputs(notebook, "!head -30")
    assert printed.splitlines()[:3] == ["feature {", '  name: "movieId"', "  type: INT"]
    assert "is_categorical: true" in printed
    assert "extra_metadata" in printed
    assert outputs(notebook, "schema.column_names")[0] == "['movieId', 'userId', 'genres', 'rating_b']"
    assert "rating_b/binary_classification_task/auc" in outputs(notebook, "comparison = ")[0]
    assert "item_retrieval_task/recall_at_10" in outputs(notebook, "two_tower = ")[0]
    assert "shape=(5, 256)" in outputs(notebook, "user_model(user_id)")[0]
    assert outputs(notebook, "plt.show()")[1]


def test_the_tutorial_s_lines_are_there():
    code = "\n".join(sources(nbformat.read(execute.notebooks()[2], as_version=4)))
    lines = [line.strip().rstrip(",") for line in code.splitlines()]
    missing = [line for line in TUTORIAL.strip().splitlines() if line.rstrip(",") not in lines]
    assert not missing


@pytest.mark.parametrize("path", execute.notebooks(), ids=lambda path: path.stem)
def test_kept_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 200_000
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    kept = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in kept)
    assert {output.output_type for output in kept} <= {"stream", "display_data", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in kept)


def test_last_state():
    bar = "Epoch 1/2\n\x1b[1m1/2\x1b[0m ━━ loss: 3\x08\x08\x08\x08\r2/2 ━━ loss: 2\r\n\ndone"
    assert execute.last_state(bar) == "Epoch 1/2\n2/2 ━━ loss: 2\n\ndone"


def test_clean():
    cell = nbformat.v4.new_code_cell("fit()")
    stream = nbformat.v4.new_output
    cell.outputs = [
        stream("stream", name="stdout", text="1/2 loss: 3\r"),
        stream("stream", name="stderr", text="a warning"),
        stream("stream", name="stdout", text="2/2 loss: 2 in /data/here/train\n"),
        stream("execute_result", data={"text/plain": "2"}),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=nbformat.read(execute.notebooks()[0], 4).metadata)
    execute.clean(notebook, execute.pathlib.Path("/data/here"))
    assert [output.get("text") for output in cell.outputs] == ["2/2 loss: 2 in ~/merlin-data/movielens/train\n", None]
