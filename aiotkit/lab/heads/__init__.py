"""Heads: one file a family. ``FAMILIES`` lists those that come with the package, simplest first."""

from __future__ import annotations

from collections.abc import Mapping

from aiotkit.lab.heads.base import Family
from aiotkit.lab.heads.cnn import Cnn
from aiotkit.lab.heads.forest import RandomForest
from aiotkit.lab.heads.hgb import Boosting
from aiotkit.lab.heads.lda import Lda
from aiotkit.lab.heads.logistic import Logistic
from aiotkit.lab.heads.mlp import Mlp

#: simplest first: a tie in money goes to the earlier one
FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (Lda(), Logistic(), Boosting(), RandomForest(), Mlp(), Cnn())
}
