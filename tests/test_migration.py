"""docs/migration.md has every public name of the older library, and what it says is here can be imported."""

from __future__ import annotations

import importlib
import inspect
import pathlib
import re

import pytest

import merlin_models.tf as ml

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "migration.md"

FIRST_NOTEBOOKS = """
    Schema Tag Block BlockContext SequentialBlock ResidualBlock right_shift_layer DualEncoderBlock CrossBlock
    DLRMBlock MLPBlock ContinuousEmbedding DotProductInteraction MMOEGate MMOEBlock CGCBlock DenseResidualBlock
    TabularBlock ContinuousFeatures EmbeddingFeatures SequenceEmbeddingFeatures EmbeddingOptions FeatureConfig
    TableConfig ParallelPredictionBlock TwoTowerBlock MatrixFactorizationBlock AsDenseFeatures AsSparseFeatures
    ElementwiseSum ElementwiseSumItemMulti AsTabular ConcatFeatures Filter ParallelBlock StackFeatures PredictionTask
    BinaryClassificationTask MultiClassClassificationTask RegressionTask InBatchNegativeSampling ExtraNegativeSampling
    ItemRetrievalTask NDCGAt AvgPrecisionAt RecallAt Model InputBlock PredictionTasks StochasticSwapNoise ExpandDims
    L2Norm NoOp data SyntheticData MemoryBankBlock SamplingBiasCorrection SoftmaxTemperature ItemSoftmaxWeightTying
    Softmax LabelAwareAttention ContinuousPowers Cross DenseMaybeLowRank SumResidual AddLeft Sum CosineSimilarity
    PrecisionAt DCGAt Debug WithShortcut
"""
VERSIONS_0 = """
    CausalLanguageModeling MaskedLanguageModeling ItemRetrievalScorer NextItemPredictionTask ranking_metrics
    ItemSampler EmbeddingWithMetadata InBatchSampler CachedCrossBatchSampler CachedUniformSampler
    PopularityBasedSampler FIFOQueue YoutubeDNNRetrieval Tags YoutubeDNNRetrievalModel TwoTowerModel
    MatrixFactorizationModel DLRMModel DCNModel losses LossType TopKIndexBlock IndexBlock CategoricalOneHot
    FMPairwiseInteraction LabelToOneHot PrecisionAt MRRAt RetrievalModel DeepFMModel sample_batch NCFModel
    QueryItemIdsEmbeddingsBlock
"""
VERSION_23_12 = """
    Block Cond MapValues ModelContext SequentialBlock ResidualBlock DualEncoderBlock TopKEncoder Encoder
    EmbeddingEncoder CrossBlock DLRMBlock MLPBlock ContinuousEmbedding ExpertsGate MMOEBlock CGCBlock PLEBlock
    TopKIndexBlock IndexBlock DenseResidualBlock TabularBlock ContinuousFeatures Continuous ContinuousProjection
    EmbeddingFeatures SequenceEmbeddingFeatures EmbeddingOptions EmbeddingTable AverageEmbeddingsByWeightFeature
    Embeddings PretrainedEmbeddings FeatureConfig TableConfig ParallelPredictionBlock TwoTowerBlock
    MatrixFactorizationBlock QueryItemIdsEmbeddingsBlock PrepareFeatures PrepareListFeatures ToSparse ToDense ToTarget
    CategoryEncoding BroadcastToSequence HashedCross HashedCrossAll ElementwiseSum ElementwiseSumItemMulti AsTabular
    ConcatFeatures Filter ParallelBlock StackFeatures SequenceAggregator DotProductInteraction FMPairwiseInteraction
    FMBlock ToOneHot ModelOutput OutputBlock ColumnBasedSampleWeight BinaryOutput RegressionOutput CategoricalOutput
    ContrastiveOutput PredictionTask BinaryClassificationTask MultiClassClassificationTask RegressionTask
    MultiOptimizer LazyAdam OptimizerBlocks split_embeddings_on_size ItemRetrievalTask ItemRetrievalScorer NDCGAt
    PrecisionAt MRRAt AvgPrecisionAt RecallAt BaseModel TopKMetricsAggregator Model RetrievalModel RetrievalModelV2
    InputBlock InputBlockV2 PredictionTasks StochasticSwapNoise ExpandDims L2Norm NoOp ItemSampler
    EmbeddingWithMetadata InBatchSampler PopularityBasedSampler FIFOQueue YoutubeDNNRetrievalModel TwoTowerModel
    MatrixFactorizationModel DLRMModel DCNModel DeepFMModel WideAndDeepModel losses LossType sample_batch
    TensorInitializer Loader KerasSequenceValidator SequencePredictNext SequencePredictLast SequencePredictRandom
    SequenceTargetAsInput SequenceMaskLast SequenceMaskRandom ReplaceMaskedEmbeddings Prediction LogLossMetric
"""
IMPORTABLE_IN_23_12 = """
    MatrixFactorizationModelV2 TwoTowerModelV2 YoutubeDNNRetrievalModelV2 NCFModel TopKOutput Candidate
    CandidateSampler InBatchSamplerV2 PopularityBasedSamplerV2 SequenceMaskLastInference AlbertBlock BertBlock
    GPT2Block RobertaBlock XLNetBlock TransformerBlock AttentionWeights HiddenStates LastHiddenState
    LastHiddenStateAndAttention SOKEmbedding InBatchNegatives LogitsTemperatureScaler PopularityLogitsCorrection
    NoveltyAt PopularityBiasAt ItemCoverageAt WandbLogger ExamplesPerSecondCallback
"""
NAMES = (FIRST_NOTEBOOKS, VERSIONS_0, VERSION_23_12, IMPORTABLE_IN_23_12)


def read_table() -> dict[str, list[str]]:
    """Older names with the paths where the page says that they are; none where it says why not."""
    page = PAGE.read_text().split("## Defects")[0]
    found: dict[str, list[str]] = {}
    for cell, now in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", page, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", cell)
        for name in names:
            assert name not in found, f"{name} has two rows"
            found[name] = re.findall(r"`((?:ml|merlin_models)\.[\w.]+)`", now)
            if now.startswith("same name"):
                found[name].append(f"ml.{name}")
            else:
                assert found[name] or now.startswith(("not needed: ", "not yet here")), (
                    f"{name} has neither place nor reason"
                )
    return found


TABLE = read_table()


def find(path: str) -> object:
    """The object of a path such as ``merlin_models.blocks.Block.connect``."""
    path = re.sub(r"^ml\.", "merlin_models.tf.", path)
    module, _, rest = path.rpartition(".")
    names = [rest]
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, rest = module.rpartition(".")
            names.insert(0, rest)
    for name in names:
        found = getattr(found, name)
    return found


OTHER_LIBRARIES = PAGE.read_text().split("## From TensorFlow Recommenders")[1]


def test_what_other_libraries_have_here_can_be_imported():
    tables = "\n".join(re.findall(r"^\| .*$", OTHER_LIBRARIES, re.MULTILINE))
    paths = set(re.findall(r"`((?:ml|merlin_models)\.[\w.]+)`", tables))
    assert len(paths) > 20
    for path in sorted(paths):
        assert find(path) is not None


def test_every_layer_loss_and_metric_of_keras_rs_has_a_row():
    import keras_rs

    table = OTHER_LIBRARIES.split("## From keras-rs")[1]
    named = set(re.findall(r"`((?:layers|losses|metrics)\.\w+)`", table))
    for module in ("layers", "losses", "metrics"):
        public = {f"{module}.{name}" for name in dir(getattr(keras_rs, module)) if name[0].isupper()}
        assert public - named - {"layers.Retrieval"} == set()  # the base of the others
        assert {name for name in named if name.startswith(module)} <= public


@pytest.mark.parametrize("names", NAMES, ids=["first notebooks", "0.1 to 0.3", "23.12", "23.12, beside __all__"])
def test_every_name_has_a_row(names):
    assert [name for name in names.split() if name not in TABLE] == []


@pytest.mark.parametrize("path", sorted({path for paths in TABLE.values() for path in paths}))
def test_what_is_here_can_be_imported(path):
    assert find(path) is not None


def test_names_of_the_namespace_are_public():
    names = {path.removeprefix("ml.") for paths in TABLE.values() for path in paths if path.startswith("ml.")}
    assert names <= set(ml.__all__)


def test_aliases():
    assert ml.BaseModel is ml.Model
    assert ml.CandidateSampler is ml.ItemSampler
    assert ml.InBatchSamplerV2 is ml.InBatchSampler
    assert ml.SoftmaxTemperature is ml.LogitsTemperatureScaler is ml.LogitsTemperature


ARGUMENTS = re.findall(r"^\| `(\w+)` \| (`[^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("name", "was", "now"), ARGUMENTS)
def test_arguments(name, was, now):
    """The page's table of arguments: those of the older library are unknown here, those that it names are there."""
    made = getattr(ml, name)
    known = inspect.signature(made.__init__ if inspect.isclass(made) else made).parameters
    assert not set(re.findall(r"`(\w+)`", was)) & set(known)
    assert set(re.findall(r"`(\w+)=`", now)) <= set(known)
    assert re.search(r"`\w+=`|^not needed|^not here|^as of", now)
    for other in re.findall(r"`([A-Z]\w+)", now):
        assert other in ml.__all__


BLOCK_NAMES = """
    as-sparse as-dense to_sparse to_dense prepare_lists prepare_features as-ragged category_encoding continuous-powers
    label_to_onehot hashed_cross to_target stochastic-swap-noise ssn l2-norm remove_pad_3d seq_predict_next
    seq_predict_last seq_predict_random seq_target_as_input weight-tying item_retrieval_scorer brute-force-topk
    sampling-bias-correction in-batch-negative-sampling clm causal mlm masked last_hidden_state pooler_output
    hidden_states attentions last_hidden_state_and_attention inference_hidden_state sequence_last sequence_first
    sequence_mean sequence_cls_index in-batch concat stack sum sum-residual add-left element-wise-sum
    element-wise-sum-item-multi cosine cosine-similarity elementwise-multiply
"""


def test_blocks_and_aggregations_by_name():
    from merlin_models.blocks import AGGREGATIONS, BLOCKS
    from merlin_models.samplers import SAMPLERS

    table = PAGE.read_text().split("## Blocks and aggregations by name")[1].split("\n## ")[0]
    known = {*AGGREGATIONS.names, *BLOCKS.names, *SAMPLERS.names}
    found = []
    for cell, now in re.findall(r'^\| (`"[^|]+) \| ([^|]+) \|$', table, re.MULTILINE):
        names = re.findall(r'`"([^"]+)"`', cell)
        found += names
        if "strategy=" in now:
            assert inspect.signature(ml.RetrievalModel.to_top_k_encoder).parameters["strategy"].default == names[0]
        elif now.startswith("same name"):
            assert set(names) <= known
        else:
            assert not set(names) & known
            assert now.startswith("not needed: ") or find(re.findall(r"`(ml\.\w+)`", now)[0])
    assert sorted(found) == sorted(BLOCK_NAMES.split())


def test_the_table_of_arguments_is_there():
    assert len(ARGUMENTS) >= 18
