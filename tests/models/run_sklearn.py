#!/usr/bin/env python3
"""Part "sklearn": every estimator of scikit-learn that skl2onnx converts, with default parameters on small data of its kind, written by
to_onnx with default options, and boosted trees of other libraries: compiled without a flag, against the library's own answers and
ONNX Runtime's."""
import os
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read when the libraries are loaded; small data
import numpy as np
import onnx
import onnxruntime as ort

import burin
from support.part import check, finish, skip

try:
    from skl2onnx import to_onnx
    from skl2onnx.common import _container as container
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common.data_types import DictionaryType, FloatTensorType, StringTensorType
    from skl2onnx.sklapi import CastRegressor, CastTransformer, ReplaceTransformer
    from sklearn.base import is_classifier, is_regressor
    from sklearn.multiclass import _ConstantPredictor
    from sklearn.utils import all_estimators
except ImportError as e:
    skip("scikit-learn", e)
    sys.exit(finish())

ort.set_default_logger_severity(4)
TOLERANCE = 1e-4
VERBOSE = "-v" in sys.argv
ROWS, COLUMNS = 48, 5
TEXTS = ["the cat sat on the mat", "A dog, a cat!", "mats and dogs", "the the the end", "numbers 12 and 345", "on the mat", "cat", "dogs sat"]
DICTS = [{"a": 1.0, "b": 2.5}, {"b": 3.0, "c": -1.0}, {"c": 4.0}]


def data(seed=3):
    """Tables of floats, whole numbers, strings, and targets of every kind."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    score = x @ [1.0, -2, 0.5, 0, 1] + 0.3 * rng.standard_normal(ROWS)
    three = np.digitize(score, np.quantile(score, [0.33, 0.66]))
    missing = x.copy()
    missing[rng.random(x.shape) < 0.15] = np.nan
    whole = rng.integers(0, 5, x.shape)
    return dict(x=x, counts=whole.astype(np.float32), whole=whole, kernel=(x @ data(3)["x"].T if seed != 3 else x @ x.T), texts=TEXTS, dicts=DICTS,
                two=(score > 0).astype(np.int64), three=three, y=score.astype(np.float32),
                ys=np.stack([score, x[:, 0] - x[:, 1]], 1).astype(np.float32), positive=np.exp(score / 3).astype(np.float32), missing=missing,
                names=np.array(["low", "middle", "high"])[three], both=np.stack([three, score > 0], 1).astype(np.int64),
                words=np.array(["red", "green", "blue"], object)[rng.integers(0, 3, (ROWS, 2))])


FIT, ASK = data(), data(4)
KINDS = {c.__name__: c for c in (CastRegressor, CastTransformer, ReplaceTransformer, _ConstantPredictor)} | dict(all_estimators())


def with_numbers(make_node):
    """protobuf takes no truth values for whole numbers any more; some converters give them."""
    number = lambda v: [int(e) if isinstance(e, (bool, np.bool_)) else e for e in v] if isinstance(v, list) else v
    return lambda *a, **attrs: make_node(*a, **{k: number(v) for k, v in attrs.items()})


container.make_node = with_numbers(container.make_node)


def make(kind, **given):
    return KINDS[kind](**given)

LIMITS = {}


# ---- what an estimator needs that is not a table of floats and its usual target ----
def voters():
    return [("a", make("LogisticRegression")), ("b", make("DecisionTreeClassifier"))]


def regressors():
    return [("a", make("Ridge")), ("b", make("DecisionTreeRegressor"))]


def columns():
    return [("scale", make("StandardScaler"), [0, 2]), ("bins", make("MinMaxScaler"), [1]), ("same", "passthrough", [3])]


ARGUMENTS = {
    "CastRegressor": lambda: {"estimator": make("Ridge")}, "ColumnTransformer": lambda: {"transformers": columns()},
    "FeatureHasher": lambda: {"n_features": 16, "input_type": "string"},
    "FeatureUnion": lambda: {"transformer_list": [("a", make("PCA", n_components=2)), ("b", make("StandardScaler"))]},
    "GaussianRandomProjection": lambda: {"n_components": 3}, "GenericUnivariateSelect": lambda: {"mode": "k_best", "param": 2},
    "GridSearchCV": lambda: {"estimator": make("LogisticRegression"), "param_grid": {"C": [0.1, 1]}},
    "KBinsDiscretizer": lambda: {"encode": "onehot-dense"}, "LocalOutlierFactor": lambda: {"novelty": True},
    "MultiOutputClassifier": lambda: {"estimator": make("LogisticRegression")}, "MultiOutputRegressor": lambda: {"estimator": make("Ridge")},
    "NearestNeighbors": lambda: {"radius": None}, "OneHotEncoder": lambda: {"sparse_output": False},
    "OneVsOneClassifier": lambda: {"estimator": make("LogisticRegression")}, "OneVsRestClassifier": lambda: {"estimator": make("LogisticRegression")},
    "Pipeline": lambda: {"steps": [("scale", make("StandardScaler")), ("last", make("LogisticRegression"))]},
    "QuantileTransformer": lambda: {"n_quantiles": 20}, "RFE": lambda: {"estimator": make("Ridge")}, "RFECV": lambda: {"estimator": make("Ridge")},
    "RadiusNeighborsClassifier": lambda: {"radius": 9.0}, "RadiusNeighborsRegressor": lambda: {"radius": 9.0},
    "RandomTreesEmbedding": lambda: {"sparse_output": False}, "ReplaceTransformer": lambda: {"from_value": 0.0, "to_value": -1.0},
    "SelectFdr": lambda: {"alpha": 0.5}, "SelectFromModel": lambda: {"estimator": make("Lasso", alpha=0.1)},
    "SelectFpr": lambda: {"alpha": 0.5}, "SelectFwe": lambda: {"alpha": 0.9},
    "SelectKBest": lambda: {"k": 3}, "SelectPercentile": lambda: {"percentile": 50},
    "StackingClassifier": lambda: {"estimators": voters()}, "StackingRegressor": lambda: {"estimators": regressors()},
    "TunedThresholdClassifierCV": lambda: {"estimator": make("LogisticRegression")},
    "VotingClassifier": lambda: {"estimators": voters(), "flatten_transform": False}, "VotingRegressor": lambda: {"estimators": regressors()},
}
INPUTS = {"counts": "BernoulliNB ComplementNB MultinomialNB TfidfTransformer ReplaceTransformer", "whole": "CategoricalNB", "three": "LabelBinarizer",
          "missing": "SimpleImputer KNNImputer HistGradientBoostingClassifier HistGradientBoostingRegressor",
          "words": "OneHotEncoder OrdinalEncoder TargetEncoder FeatureHasher", "names": "LabelEncoder", "kernel": "KernelCenterer",
          "texts": "CountVectorizer TfidfVectorizer", "dicts": "DictVectorizer"}
TARGETS = {"two": "GaussianProcessClassifier TunedThresholdClassifierCV TargetEncoder", "both": "MultiOutputClassifier",
           "three": "NeighborhoodComponentsAnalysis SelectFdr SelectFpr SelectFwe SelectPercentile SelectKBest "
           "GenericUnivariateSelect",
           "positive": "GammaRegressor PoissonRegressor TweedieRegressor", "ys": "MultiOutputRegressor PLSRegression MultiTaskElasticNet "
           "MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV", "ones": "_ConstantPredictor"}


def chosen(table, kind, usual):
    return next((name for name, kinds in table.items() if kind in kinds.split()), usual)


# ---- one case ----
def declared(x):
    """initial_types of the graph, and what it is fed: batches of any size."""
    if isinstance(x, list) and isinstance(x[0], dict):
        return [("X", DictionaryType(StringTensorType([1]), FloatTensorType([1])))], {"X": x}
    if isinstance(x, list):
        return [("X", StringTensorType([None]))], {"X": np.array(x, object)}
    if x.dtype.kind in "OU":
        return [("X", StringTensorType([None, *x.shape[1:]]))], {"X": x.astype(object)}
    return None, {"X": x}


def answers(estimator, x):
    """What the library says, in the order of the graph's outputs; as far as it has a method for it."""
    if type(estimator).__name__ == "NearestNeighbors":
        return estimator.kneighbors(x)[::-1]
    if is_classifier(estimator) or hasattr(estimator, "predict_proba") or type(estimator).__name__ == "_ConstantPredictor":
        return [getattr(estimator, m)(x) for m in ("predict", "predict_proba") if hasattr(estimator, m)]
    methods = ("predict", "decision_function") if hasattr(estimator, "score_samples") or hasattr(estimator, "offset_") else ("predict", "transform")
    if is_regressor(estimator):
        methods = ("predict",)
    if hasattr(estimator, "get_support") or not hasattr(estimator, "predict"):
        methods = ("transform",)
    return [getattr(estimator, m)(x) for m in methods if hasattr(estimator, m)]


def plain(value):
    """A table of a list of dicts (ZipMap), a list of tables (several outputs), a sparse one or a vector."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([list(row.values()) for row in value])
    value = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
    return value.astype(str) if value.dtype.kind in "OU" else value


def flat(outputs):
    """Elements of sequences as outputs of their own, as burin has them."""
    return [e for o in outputs for e in (o if isinstance(o, list) and o and isinstance(o[0], np.ndarray) else [o])]


def same(a, b):
    a, b = plain(a), plain(b)
    if a.size != b.size or (a.dtype.kind in "US") != (b.dtype.kind in "US"):
        return False
    a, b = a.ravel(), b.ravel()
    return bool((a == b).all() if a.dtype.kind in "US" else np.allclose(a, b, TOLERANCE, TOLERANCE, equal_nan=True))


def convert(estimator, x):
    types, feed = declared(x)
    given = {"initial_types": types} if types else {"X": x[:1]}
    try:
        return to_onnx(estimator, **given), feed
    except RuntimeError as e:
        if "target_opset" not in str(e):
            raise
        return to_onnx(estimator, **given, target_opset={"": 21, "ai.onnx.ml": 3}), feed  # as it asks for


def run_rows(run, feed):
    """What run gives; of dicts one by one, since a graph takes one map."""
    x = feed.get("X")
    if not (isinstance(x, list) and isinstance(x[0], dict)):
        return run({k: np.asarray(v) for k, v in feed.items()})
    return [np.concatenate(rows) for rows in zip(*(run({"X": row}) for row in x))]


def reference(model, feed):
    """ONNX Runtime's answers, or None where it does not take the graph."""
    try:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return run_rows(lambda f: session.run(None, f), feed)
    except Exception:
        return None


def judge(name, estimator, x):
    try:
        model, feed = convert(estimator, x)
    except Exception as e:
        return skip(name, f"skl2onnx: {type(e).__name__} {str(e).strip().splitlines()[0][:150]}")
    compare(name, model, feed, flat(answers(estimator, x)))


def compare(name, model, feed, wanted):
    """burin's outputs with the library's, and with those of ONNX Runtime."""
    other = reference(model, feed)
    try:
        got = run_rows(burin.compile(model).run, feed)
    except Exception as e:
        known = next((why for kind, why in LIMITS.items() if name.startswith(kind)), None)
        if known or other is None and "internal error" not in str(e):
            return skip(name, known or f"ONNX Runtime refuses the graph, too: {str(e).split(': ', 1)[-1]}"[:200])
        return check(name, False, e)
    library = bool(wanted) and all(same(g, w) for g, w in zip(got, wanted))
    runtime = other is not None and len(got) == len(flat(other)) and all(same(g, w) for g, w in zip(got, flat(other)))
    # Where the graph itself is not the estimator, ONNX Runtime says so, too.
    if runtime and not library and VERBOSE:
        print(f"note {name}: the graph is not the estimator")
    shown = [[plain(e)[:3] for e in outputs] for outputs in (got, wanted)]
    check(name, library or runtime, f"as the library: {library}, as ONNX Runtime: {runtime}; {shown[0]}, not {shown[1]}")


def cases(every):
    """(name, estimator, names of its data) of all that skl2onnx knows. Classifiers have three classes, two, or strings, in turn;
    `every`: each has all of them."""
    turn = 0
    for kind in sorted(known.__name__ for known in sklearn_operator_name_map):
        rows, target = chosen(INPUTS, kind, "x"), chosen(TARGETS, kind, None)
        first = make(kind, **ARGUMENTS.get(kind, dict)())
        targets = [target or ("three" if is_classifier(first) else "y")]
        if is_classifier(first) and not target:
            targets = ["three", "two", "names"] if every else [["three", "two", "names"][turn % 3]]
            turn += 1
        for target in targets:
            yield f"{kind} of {target}", make(kind, **ARGUMENTS.get(kind, dict)()), rows, target


def fit(estimator, rows, target):
    if rows in ("three", "names"):
        return estimator.fit(FIT[rows])
    if target == "ones":
        return estimator.fit(FIT[rows], np.ones(1, np.int64))
    return estimator.fit(FIT[rows], FIT[target][: len(FIT[rows])])


# ---- boosted trees, as onnxmltools and catboost write them ----
def boosted_models():
    """(name, estimator, rows, target, arguments of fit, how it is written)."""
    group = {"group": [12] * 4}
    try:
        import xgboost as xgb
        from onnxmltools import convert_xgboost as write
        for rows in ("x", "missing"):
            yield "XGBRegressor", xgb.XGBRegressor(n_estimators=5), rows, "y", {}, write
            yield "XGBClassifier", xgb.XGBClassifier(n_estimators=5), rows, "two", {}, write
            yield "XGBClassifier", xgb.XGBClassifier(n_estimators=5), rows, "three", {}, write
        yield "XGBRFRegressor", xgb.XGBRFRegressor(n_estimators=5), "x", "y", {}, write
        yield "XGBRegressor count:poisson", xgb.XGBRegressor(n_estimators=5, objective="count:poisson"), "x", "positive", {}, write
        yield "XGBClassifier binary:hinge", xgb.XGBClassifier(n_estimators=5, objective="binary:hinge"), "x", "two", {}, write
    except ImportError as e:
        skip("xgboost", e)
    try:
        import lightgbm as lgb
        from onnxmltools import convert_lightgbm as write
        small = {"n_estimators": 5, "verbose": -1, "min_child_samples": 4}
        for rows in ("x", "missing"):
            yield "LGBMRegressor", lgb.LGBMRegressor(**small), rows, "y", {}, write
            yield "LGBMClassifier", lgb.LGBMClassifier(**small), rows, "two", {}, write
            yield "LGBMClassifier", lgb.LGBMClassifier(**small), rows, "names", {}, write
        yield "LGBMClassifier with categories", lgb.LGBMClassifier(**small), "counts", "two", {"categorical_feature": [0, 2]}, write
        yield "LGBMRanker", lgb.LGBMRanker(**small), "x", "three", group, write
        yield "LGBMRegressor tweedie", lgb.LGBMRegressor(**small, objective="tweedie"), "x", "positive", {}, write
    except ImportError as e:
        skip("lightgbm", e)
    try:
        import catboost as cat
        for estimator, target in ((cat.CatBoostRegressor, "y"), (cat.CatBoostClassifier, "two"), (cat.CatBoostClassifier, "names")):
            yield estimator.__name__, estimator(iterations=5, verbose=0, allow_writing_files=False), "missing", target, {}, write_catboost
    except ImportError as e:
        skip("catboost", e)  # large: ./dev does not install it


def write_catboost(estimator, initial_types):
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        estimator.save_model(file.name, format="onnx")
        return onnx.load(file.name)


def test_boosted():
    try:
        from onnxmltools.convert.common.data_types import FloatTensorType as Floats
    except ImportError as e:
        return skip("boosted trees", e)
    for name, estimator, rows, target, arguments, write in boosted_models():
        estimator.fit(FIT[rows], FIT[target], **arguments)
        methods = [m for m in ("predict", "predict_proba") if hasattr(estimator, m)]
        model = write(estimator, initial_types=[("X", Floats([None, COLUMNS]))])
        compare(f"{name} of {target}, {rows}", model, {model.graph.input[0].name: ASK[rows]}, [getattr(estimator, m)(ASK[rows]) for m in methods])


def main():
    """run_sklearn.py [--all] [-v] [PART OF A NAME …]"""
    names = [a for a in sys.argv[1:] if not a.startswith("-")]
    warnings.simplefilter("ignore")
    for name, estimator, rows, target in cases("--all" in sys.argv):
        if not names or any(part in name for part in names):
            judge(name, fit(estimator, rows, target), ASK[rows])
    if not names or "boosted" in names:
        test_boosted()
    return finish()


if __name__ == "__main__":
    sys.exit(main())
