from __future__ import annotations

import pytest
from worlds.model_bundles import GRAPH, make_graph

pytestmark = pytest.mark.desk


def test_the_committed_model_graph_is_what_its_script_makes() -> None:
    """The graph that the base install's tests run is the one that is documented, byte for byte."""
    assert make_graph() == GRAPH.read_bytes()
