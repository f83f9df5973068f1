"""A scikit-learn estimator of one's own as a family, by skl2onnx; refused where that is known to be wrong.

It sees prepared columns (imputed, standardised) as float32, and must say ``predict_proba``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier

from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.lab.features import OPSET
from aiotkit.lab.heads.base import Family, Floats, Progress, Rows, Windows
from aiotkit.lab.onnx_graph import ML_DOMAIN, ML_OPSET, Graph
from aiotkit.lab.prepare import Preparation, learn_preparation

#: probabilities below are held there before the logarithm
FLOOR = 1e-7
_THRESHOLD = "its threshold is lost on conversion; here the threshold follows from the costs"
_UNSUPPORTED = {
    "TunedThresholdClassifierCV": _THRESHOLD,
    "FixedThresholdClassifier": _THRESHOLD,
    "CalibratedClassifierCV": "it converts wrongly around scalers and with isotonic regression; training "
    "calibrates every family itself: give the estimator inside it",
    "IsotonicRegression": "isotonic steps convert wrongly",
}
_CONTAINERS = ("Pipeline", "ColumnTransformer", "FeatureUnion")


def chosen_families(families: Sequence[str] | Mapping[str, Any]) -> dict[str, Family]:
    """Families by name, simplest first; estimators of one's own come last.

    Raises:
        DataError: no family of that name, or an estimator that cannot become a graph.
    """
    from aiotkit.lab.heads import FAMILIES

    given = (
        dict(families) if isinstance(families, Mapping) else {name: FAMILIES.get(name) for name in families}
    )
    if not given:
        raise DataError("families", expected=f"at least one of {', '.join(FAMILIES)}", found="none")
    for name, value in given.items():
        if value is None:
            raise DataError(
                f"family '{name}'", expected=f"one of {', '.join(FAMILIES)}", do=did_you_mean(name, FAMILIES)
            )
    order = {name: i for i, name in enumerate(FAMILIES)}
    return {
        name: as_family(name, given[name]) for name in sorted(given, key=lambda n: order.get(n, len(order)))
    }


def as_family(name: str, value: Any) -> Family:
    """A family as it is, or an estimator made into one."""
    if isinstance(value, BaseEstimator):
        check_supported(name, value)
        return Own(name, value)
    if isinstance(value, type) or not (hasattr(value, "fit") and hasattr(value, "name")):
        raise DataError(
            f"family '{name}'",
            expected="a scikit-learn classifier, or an object with 'name' and 'fit' as lab.heads.base.Family",
            found=value.__name__ if isinstance(value, type) else type(value).__name__,
            do="Give an instance, not a class." if isinstance(value, type) else "",
        )
    found: Family = value
    return found


def check_supported(name: str, estimator: BaseEstimator) -> None:
    """Refuse what cannot become a graph that decides the same.

    Raises:
        DataError: naming the estimator and why.
    """
    from skl2onnx._supported_operators import (  # type: ignore[import-untyped]
        sklearn_operator_name_map as converters,
    )

    if not is_classifier(estimator) or not hasattr(estimator, "predict_proba"):
        raise DataError(
            f"family '{name}': {type(estimator).__name__}",
            expected="a classifier with predict_proba",
            do="For LinearSVC or RidgeClassifier take 'logistic'; SVC needs probability=True.",
        )
    for inner in _within(estimator):
        kind = type(inner).__name__
        reason = _UNSUPPORTED.get(kind, "")
        if not reason and kind not in _CONTAINERS and type(inner) not in converters:
            reason = "no converter to ONNX is known for it"
        if reason:
            raise DataError(f"family '{name}': {kind} is not supported: {reason}")


def _within(estimator: Any) -> Iterator[Any]:
    """An estimator and every estimator among its parameters."""
    yield estimator
    for value in estimator.get_params(deep=True).values():
        if isinstance(value, BaseEstimator) and value is not estimator:
            yield value


@dataclass(frozen=True)
class OwnFitted:
    """A fitted estimator behind the preparation; logits are logarithms of its probabilities."""

    preparation: Preparation
    estimator: Any
    settings: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, classes]``."""
        p = self.estimator.predict_proba(self.preparation.apply(x).astype(np.float32))
        return np.log(np.clip(np.asarray(p, dtype=np.float64), FLOOR, 1.0))

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """The converted estimator."""
        from skl2onnx import to_onnx  # type: ignore[import-untyped]

        try:
            model = to_onnx(
                self.estimator,
                np.zeros((1, self.preparation.size), dtype=np.float32),
                options={id(self.estimator): {"zipmap": False}},
                target_opset={"": OPSET, ML_DOMAIN: ML_OPSET},
            )
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            kind = type(self.estimator).__name__
            raise DataError(f"{kind} cannot be converted to ONNX", found=str(error)[:200]) from error
        z = graph.to32(self.preparation.add_to(graph, x))
        p = graph.to64(graph.embed(model, {model.graph.input[0].name: z}, model.graph.output[1].name))
        return graph.op("Log", graph.op("Clip", p, graph.number(FLOOR), graph.number(1.0)))


@dataclass(frozen=True)
class Own:
    """A clone of the estimator is fitted each time; nothing of it is tuned here."""

    name: str
    estimator: Any

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> OwnFitted:
        """Learn; every ``random_state`` inside becomes ``seed``, weights are given where they are taken."""
        estimator = clone(self.estimator)
        states = {k: seed for k in estimator.get_params(deep=True) if k.split("__")[-1] == "random_state"}
        estimator.set_params(**states)
        preparation = learn_preparation(rows.x, rows.weight)
        z = preparation.apply(rows.x).astype(np.float32)
        takes = "sample_weight" in inspect.signature(estimator.fit).parameters
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                estimator.fit(z, rows.y, **({"sample_weight": rows.weight} if takes else {}))
            except (ValueError, TypeError, np.linalg.LinAlgError) as error:
                raise DataError(f"family '{self.name}' cannot learn", found=str(error)[:200]) from error
        progress(1.0)
        return OwnFitted(preparation, estimator)
